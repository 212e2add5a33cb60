"""Matrices as the solvers see them: a shape, a dtype, and row blocks that may be read again and again."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from assay.errors import DataError

BLOCK_BYTES = 32 << 20  # of float64: stays in the last-level cache between the two halves of XᵀXV
WIDE_BYTES = 4 << 20  # of one buffer that float32 rows are widened into again and again


class Matrix(ABC):
    """An m×n matrix of real numbers, read as row blocks; products accumulate in float64 across blocks.

    ``dtype`` is float32 or float64, the precision of a block. ``replayable`` is False for an iterator that can be read
    once only; ``residual_is_entrywise`` where ‖X − AB‖² is summed over entries, so that a small one keeps its digits;
    ``stored_transposed`` where X is the transpose of what the user gave, such as a file in Fortran order.
    Subclasses give ``blocks``; in-memory ones also ``transposed``.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    replayable: bool = True
    in_memory: bool = False
    residual_is_entrywise: bool = True
    stored_transposed: bool = False

    @abstractmethod
    def blocks(self) -> Iterator[Tensor]:
        """Row blocks (b, n) from top to bottom, in ``dtype``."""

    def transposed(self) -> Matrix:
        """Xᵀ, for matrices in memory."""
        raise NotImplementedError

    def dense(self) -> Tensor:
        """All of X in float64. Raises :class:`DataError` where this process holds some of its rows only."""
        if self.local_rows != self.shape[0]:
            raise DataError("X", expected="a matrix in one process, or method gram or krylov", got="shared rows")
        total = torch.empty(self.shape, dtype=torch.float64)
        for block, part in self._with_rows(total):  # a block may lie in a buffer that the next one overwrites
            part.copy_(block)
        return total

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
        return (
            min(block_rows(self.shape[1]), self.shape[0])
            + self.shape[0] // block_rows(self.shape[1], size=WIDE_BYTES)
            + 2
        )

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
        rest = torch.empty(block_rows(self.shape[1], size=WIDE_BYTES), self.shape[1], dtype=torch.float64)
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
        buffer = torch.empty(block_rows(self.shape[1], size=WIDE_BYTES), self.shape[1], dtype=dtype)
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
        yield from torch.split(self.values, block_rows(self.shape[1]))

    def transposed(self) -> Dense:
        return Dense(self.values.T)

    def rough_squared_norm(self) -> float:
        """‖X‖²_F to about 1e-6 of itself, in half the time: blocks in their own precision."""
        return sum(float(flat @ flat) for flat in (block.reshape(-1) for block in self.blocks()))

    def times(self, right: Tensor) -> Tensor:
        return self.values @ right if right.dtype == self.dtype else super().times(right)


class Scaled(Matrix):
    """c·X: entries whose squares would overflow or vanish are brought near 1 by a power of two, which is exact."""

    def __init__(self, matrix: Matrix, factor: float) -> None:
        if matrix.local_rows != matrix.shape[0]:
            got = "shared rows out of range: scale them in every process alike"
            raise DataError("X", expected="entries whose squares stay in range", got=got)
        self.matrix, self.factor = matrix, factor
        self.shape, self.dtype = matrix.shape, torch.float64
        self.replayable, self.in_memory = matrix.replayable, matrix.in_memory

    def blocks(self) -> Iterator[Tensor]:
        return (block.double() * self.factor for block in self.matrix.blocks())

    def transposed(self) -> Scaled:
        return Scaled(self.matrix.transposed(), self.factor)


def block_rows(columns: int, *, size: int = BLOCK_BYTES) -> int:
    """Rows of a block of about ``size`` bytes in float64."""
    return max(64, size // (8 * max(1, columns)))


def squared_norm(block: Tensor) -> float:
    """‖block‖²_F: float32 blocks are widened first, so that neither the squares nor the sum lose digits."""
    flat = block.double().reshape(-1)
    return float(flat @ flat)


class Sparse(Matrix):
    """A matrix in compressed rows: ``row_starts`` (m+1,), ``columns`` and ``values`` (nnz,), duplicates summed."""

    in_memory = True
    residual_is_entrywise = False

    def __init__(self, row_starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.row_starts, self.columns, self.values = row_starts, columns, values
        self.shape, self.dtype = shape, values.dtype
        self._transposed: Sparse | None = None
        self._tensors: dict[torch.dtype, Tensor] = {}

    @property
    def work(self) -> int:
        return len(self.values)

    @property
    def rounding_terms(self) -> int:
        """Entries of the fullest column, and a sum over them."""
        return self.shape[0] + 2

    def blocks(self) -> Iterator[Tensor]:
        for start in range(0, self.shape[0], block_rows(self.shape[1])):
            rows = slice(start, min(start + block_rows(self.shape[1]), self.shape[0]))
            starts = self.row_starts[rows.start : rows.stop + 1].long()
            dense = torch.zeros(rows.stop - rows.start, self.shape[1], dtype=self.dtype)
            index = torch.repeat_interleave(torch.arange(len(dense)), starts.diff())
            part = slice(int(starts[0]), int(starts[-1]))
            dense[index, self.columns[part].long()] = self.values[part]
            yield dense

    def transposed(self) -> Sparse:
        if self._transposed is None:
            from scipy.sparse import csr_matrix

            parts = (self.values.numpy(), self.columns.numpy(), self.row_starts.numpy())
            turned = csr_matrix(parts, shape=self.shape).tocsc()
            self._transposed = Sparse(
                torch.from_numpy(turned.indptr), torch.from_numpy(turned.indices), torch.from_numpy(turned.data),
                (self.shape[1], self.shape[0]),
            )  # fmt: skip
            self._transposed._transposed = self
        return self._transposed

    def times(self, right: Tensor) -> Tensor:
        dtype = torch.float64 if right.dtype == torch.float64 else torch.float32
        if dtype not in self._tensors:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".*[Ss]parse.*beta.*")
                # the indices were checked when the matrix came in
                parts = (self.row_starts, self.columns, self.values.to(dtype))
                self._tensors[dtype] = torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)
        return self._tensors[dtype] @ right.contiguous()

    def transposed_times(self, left: Tensor) -> Tensor:
        return self.transposed().times(left).double()

    def apply_gram(self, right: Tensor) -> Tensor:
        return self.transposed_times(self.times(right))

    def gram(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """XᵀX, dense float64 (n, n), by multiplying with slices of the identity."""
        n = self.shape[1]
        width = max(1, (64 << 20) // (8 * max(self.shape)))
        parts = []
        for start in range(0, n, width):
            unit = torch.zeros(n, min(width, n - start), dtype=dtype)
            unit[start : start + unit.shape[1]].fill_diagonal_(1)
            parts.append(self.apply_gram(unit))
        return torch.cat(parts, dim=1)

    def squared_norm(self) -> float:
        return squared_norm(self.values)

    def apply_gram_across(self, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        image = self.times(right)
        return self.transposed_times(image), image.T @ left.double()

    def squared_error(self, left: Tensor, right: Tensor) -> float:
        """‖X‖² − 2⟨XBᵀ, A⟩ + ⟨AᵀA, BBᵀ⟩: the residual itself is dense."""
        left, right = left.double(), right.double()
        cross = float((self.times(right.T) * left).sum())
        return max(0.0, self.squared_norm() - 2 * cross + float(((left.T @ left) * (right @ right.T)).sum()))


def from_scipy(matrix: Any) -> Sparse:
    """A scipy.sparse matrix or array of any format; duplicates are summed."""
    rows = matrix.tocsr()
    if rows is matrix:
        rows = rows.copy()
    if rows.nnz and not (rows.indices.min() >= 0 and rows.indices.max() < rows.shape[1]):
        raise DataError("X.indices", expected=f"0..{rows.shape[1] - 1}", got="others")
    rows.sum_duplicates()
    values = rows.data if rows.data.dtype in {np.dtype("f4"), np.dtype("f8")} else rows.data.astype(np.float64)
    index = np.int32 if max(*rows.shape, rows.nnz) < 2**31 else np.int64
    return Sparse(
        torch.from_numpy(rows.indptr.astype(index)),
        torch.from_numpy(rows.indices.astype(index)),
        torch.from_numpy(np.ascontiguousarray(values)),
        (int(rows.shape[0]), int(rows.shape[1])),
    )


def from_torch_sparse(matrix: Tensor) -> Sparse:
    """A torch sparse tensor of any layout, on any device."""
    from scipy.sparse import csr_matrix

    entries = matrix.detach().cpu().to_sparse().coalesce()
    rows, columns = entries.indices().numpy()
    values = entries.values()
    if values.dtype not in {torch.float32, torch.float64}:
        values = values.double()
    return from_scipy(csr_matrix((values.numpy(), (rows, columns)), shape=tuple(matrix.shape)))


class SharedRows(Matrix):
    """The rows of ``local`` in this process, those of the others in theirs.

    Sums over rows (XᵀX, XᵀXV, ‖X‖²) are all-reduced in float64, so every process works with the same small matrices and
    gets the same B; A holds the rows of this process. Start the processes with ``torchrun`` and initialise the process
    group first. Raises :class:`DataError` when the processes disagree about the number of columns.
    """

    def __init__(self, local: Matrix) -> None:
        if local.stored_transposed or not local.replayable:
            got = "a file in Fortran order" if local.stored_transposed else "an iterator"
            raise DataError("local", expected="rows that can be read again and again", got=got)
        self.local = local
        sizes = [torch.zeros(2, dtype=torch.int64) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor(local.shape, dtype=torch.int64))
        columns = {int(size[1]) for size in sizes}
        if len(columns) > 1:
            raise DataError("X", expected="one number of columns in all processes", got=sorted(columns))
        self.shape = (sum(int(size[0]) for size in sizes), local.shape[1])
        self.dtype = local.dtype
        self.residual_is_entrywise = local.residual_is_entrywise

    @property
    def local_rows(self) -> int:
        return self.local.shape[0]

    def blocks(self) -> Iterator[Tensor]:
        return self.local.blocks()

    def sum_over_processes(self, part: Tensor) -> Tensor:
        total = part.clone()
        dist.all_reduce(total)
        return total

    def times(self, right: Tensor) -> Tensor:
        return self.local.times(right)

    def transposed_times(self, left: Tensor) -> Tensor:
        return self.sum_over_processes(self.local.transposed_times(left))

    def apply_gram(self, right: Tensor) -> Tensor:
        return self.sum_over_processes(self.local.apply_gram(right))

    def gram(self, dtype: torch.dtype = torch.float64) -> Tensor:
        return self.sum_over_processes(self.local.gram(dtype))

    def squared_norm(self) -> float:
        return float(self.sum_over_processes(torch.tensor(self.local.squared_norm(), dtype=torch.float64)))

    def apply_gram_across(self, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        image, cross = self.local.apply_gram_across(right, left)
        return self.sum_over_processes(image), self.sum_over_processes(cross)

    def squared_error(self, left: Tensor, right: Tensor) -> float:
        mine = torch.tensor(self.local.squared_error(left, right), dtype=torch.float64)
        return float(self.sum_over_processes(mine))
