"""Which share of the samples is this process's: one of several that divide a set without speaking to each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from assay.errors import OptionError
from assay.runtime import generator

ORDER = 0xCA  # separates this order from every other use of the same seed


@dataclass(frozen=True)
class Shard:
    """Number ``index``, from 0, of ``count`` shards; 0 of 1 is everything."""

    index: int = 0
    count: int = 1

    @property
    def in_file(self) -> bool:
        """Whether what is read of it goes to a file at once, however small it is."""
        return False

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise OptionError("shard", expected="i/n with 0 <= i < n", got=f"{self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``0/4`` is the first of four; :class:`OptionError` otherwise."""
        try:
            index, count = map(int, text.split("/"))
        except ValueError:
            raise OptionError("shard", expected="i/n such as 0/4", got=repr(text)) from None
        return cls(index, count)

    @classmethod
    def of_torchrun(cls) -> Shard | None:
        """This process's shard where torchrun started several, else None."""
        world = int(os.environ.get("WORLD_SIZE", "1"))
        return None if world == 1 or "RANK" not in os.environ else cls(int(os.environ["RANK"]), world)

    def places(self, n: int) -> NDArray[np.int64]:
        """Which of ``n`` samples are its own, where any division will do: every ``count``-th."""
        return np.arange(self.index, n, self.count)


@dataclass(frozen=True)
class MachineShard(Shard):
    """The share of one process of a machine, whose processes put all of them into one file."""

    @property
    def in_file(self) -> bool:
        return True


@dataclass(frozen=True)
class BlockShard(Shard):
    """Every ``count``-th block of an order drawn from ``seed``; with few samples the blocks are smaller than ``block``.

    So the blocks are those of one process, whatever the number of processes.
    """

    block: int = 500
    seed: int = 0

    def block_size(self, n: int) -> int:
        """Of ``n`` samples, so that every shard has a block."""
        return min(self.block, -(-n // self.count))

    def blocks(self, n: int) -> dict[int, NDArray[np.int64]]:
        """Its own blocks by their number: places among ``n`` samples."""
        everything = blocks_in(n, block=self.block_size(n), seed=self.seed)
        return {number: everything[number].numpy() for number in range(self.index, len(everything), self.count)}

    def places(self, n: int) -> NDArray[np.int64]:
        blocks = self.blocks(n)
        return np.concatenate([np.empty(0, np.int64), *blocks.values()])


def blocks_in(n: int, *, block: int, seed: int) -> tuple[torch.Tensor, ...]:
    """All blocks of ``n`` samples, in an order drawn from ``seed``."""
    return torch.split(torch.randperm(n, generator=generator(seed, ORDER)), block)
