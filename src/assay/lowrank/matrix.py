"""Matrices as the solvers see them: a shape, a dtype, and row blocks that may be read again and again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_BYTES = 32 << 20  # of float64: stays in the last-level cache between the two halves of XᵀXV
WIDE_BYTES = 4 << 20  # of one buffer that float32 rows are widened into again and again


class Matrix(ABC):
    """An m×n matrix of real numbers, read as row blocks; products accumulate in float64 across blocks.

    ``dtype`` is float32 or float64, the precision of a block. ``replayable`` is False for an iterator that can be read
    once only; ``residual_is_entrywise`` where ‖X − AB‖² is summed over entries, so that a small one keeps its digits.
    Subclasses give ``blocks``; in-memory ones also ``transposed``.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    replayable: bool = True
    in_memory: bool = False
    residual_is_entrywise: bool = True

    @abstractmethod
    def blocks(self) -> Iterator[Tensor]:
        """Row blocks (b, n) from top to bottom, in ``dtype``."""

    def transposed(self) -> Matrix:
        """Xᵀ, for matrices in memory."""
        raise NotImplementedError

    @property
    def work(self) -> int:
        """Multiply–adds of X times one vector."""
        return self.shape[0] * self.shape[1]

    @property
    def local_rows(self) -> int:
        """Rows that this process holds: all of them, but for a matrix shared among processes."""
        return self.shape[0]

    def sum_over_processes(self, part: Tensor) -> Tensor:
        """The sum over the processes that share the rows; ``part`` itself where there is one process."""
        return part

    @property
    def rounding_terms(self) -> int:
        """How many numbers at most are added one after another in an entry of XᵀX, for rounding bounds."""
        return min(block_rows(self.shape[1]), self.shape[0]) + self.shape[0] // wide_rows(self.shape[1]) + 2

    def times(self, right: Tensor) -> Tensor:
        """X V in V's dtype; V (n, k) -> (rows, k)."""
        product = right.new_empty(self.local_rows, right.shape[1])
        for block, part in self._with_rows(product):
            torch.mm(block.to(right.dtype), right, out=part)
        return product

    def transposed_times(self, left: Tensor) -> Tensor:
        """Xᵀ U; U (rows, k) -> float64 (n, k)."""
        total = left.new_zeros(self.shape[1], left.shape[1], dtype=torch.float64)
        for block, part in self._with_rows(left):
            total += block.to(left.dtype).T @ part
        return total

    def apply_gram(self, right: Tensor) -> Tensor:
        """XᵀX V, reading X once; V (n, k) -> float64 (n, k)."""
        total = torch.zeros(right.shape, dtype=torch.float64)
        for block in self._blocks_in(right.dtype):
            total += block.T @ (block @ right)
        return total

    def apply_gram_across(self, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """XᵀXV and (XV)ᵀA in float64, reading X once; V (n, k), A (rows, r) -> (n, k), (k, r)."""
        total = torch.zeros(right.shape, dtype=torch.float64)
        cross = torch.zeros(right.shape[1], left.shape[1], dtype=torch.float64)
        for wide, part in self._with_rows(left, self._blocks_in(torch.float64)):
            image = wide @ right
            total.addmm_(wide.T, image)
            cross.addmm_(image.T, part.double())
        return total, cross

    def gram(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """XᵀX, float64 (n, n): products in ``dtype``, summed over blocks in float64."""
        n = self.shape[1]
        total = torch.zeros(n, n, dtype=torch.float64)
        for block in self._blocks_in(dtype):
            total += block.T @ block
        return total

    def squared_norm(self) -> float:
        """‖X‖²_F, summed in float64."""
        return sum(squared_norm(block) for block in self._blocks_in(torch.float64))

    def squared_error(self, left: Tensor, right: Tensor) -> float:
        """‖X − AB‖²_F entry by entry, without cancellation; A (rows, r), B (r, n)."""
        right = right.double()
        rest = torch.empty(wide_rows(self.shape[1]), self.shape[1], dtype=torch.float64)
        error = 0.0
        for block, rows in self._with_rows(left, self._blocks_in(torch.float64)):
            for wide, part in zip(torch.split(block, len(rest)), torch.split(rows, len(rest)), strict=True):
                error += squared_norm(torch.addmm(wide, part.double(), right, alpha=-1, out=rest[: len(wide)]))
        return error

    def _blocks_in(self, dtype: torch.dtype) -> Iterator[Tensor]:
        """Row blocks in ``dtype``; those that must be widened come in one buffer, which the next overwrites.

        A fresh block of float64 for every block of float32 would cost ten times as much as the conversion.
        """
        if dtype == self.dtype:
            yield from self.blocks()
            return
        buffer = torch.empty(wide_rows(self.shape[1]), self.shape[1], dtype=dtype)
        for block in self.blocks():
            for part in torch.split(block, len(buffer)):
                yield buffer[: len(part)].copy_(part)

    def _with_rows(self, left: Tensor, blocks: Iterator[Tensor] | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        start = 0
        for block in self.blocks() if blocks is None else blocks:
            yield block, left[start : start + len(block)]
            start += len(block)


class Dense(Matrix):
    """A tensor in memory."""

    in_memory = True

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.shape = (values.shape[0], values.shape[1])
        self.dtype = values.dtype

    def blocks(self) -> Iterator[Tensor]:
        """Views of consecutive rows."""
        yield from torch.split(self.values, block_rows(self.shape[1]))

    def transposed(self) -> Dense:
        """A view."""
        return Dense(self.values.T)

    def rough_squared_norm(self) -> float:
        """‖X‖²_F to about 1e-6 of itself, in half the time: blocks in their own precision."""
        return sum(float(flat @ flat) for flat in (block.reshape(-1) for block in self.blocks()))

    def times(self, right: Tensor) -> Tensor:
        """One product where no conversion is needed."""
        return self.values @ right if right.dtype == self.dtype else super().times(right)


class Scaled(Matrix):
    """c·X: entries whose squares would overflow or vanish are brought near 1 by a power of two, which is exact."""

    def __init__(self, matrix: Matrix, factor: float) -> None:
        self.matrix, self.factor = matrix, factor
        self.shape, self.dtype = matrix.shape, torch.float64
        self.replayable, self.in_memory = matrix.replayable, matrix.in_memory

    def blocks(self) -> Iterator[Tensor]:
        """The blocks of X in float64, times c."""
        return (block.double() * self.factor for block in self.matrix.blocks())

    def transposed(self) -> Scaled:
        """c·Xᵀ."""
        return Scaled(self.matrix.transposed(), self.factor)


def block_rows(columns: int) -> int:
    """Rows of a block of about :data:`BLOCK_BYTES` in float64."""
    return max(64, BLOCK_BYTES // (8 * max(1, columns)))


def wide_rows(columns: int) -> int:
    """Rows of a block of about :data:`WIDE_BYTES` in float64."""
    return max(64, WIDE_BYTES // (8 * max(1, columns)))


def squared_norm(block: Tensor) -> float:
    """‖block‖²_F: float32 blocks are widened first, so that neither the squares nor the sum lose digits."""
    flat = block.double().reshape(-1)
    return float(flat @ flat)
