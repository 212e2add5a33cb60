"""Which share of the samples is this process's: one of several that divide a set without speaking to each other."""

from __future__ import annotations

import os
from dataclasses import dataclass

from assay.errors import OptionError


@dataclass(frozen=True)
class Shard:
    """Number ``index``, from 0, of ``count`` shards; 0 of 1 is everything."""

    index: int = 0
    count: int = 1

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

    def size(self, n: int) -> int:
        """How many of ``n`` samples are its own; the first shards have one more where they do not divide evenly."""
        return len(range(self.index, n, self.count))
