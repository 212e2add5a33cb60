"""Sparse matrices: products through compressed rows of X and of Xᵀ, never a dense m×n."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from assay.errors import DataError
from assay.lowrank.matrix import Matrix, block_rows, squared_norm


class Sparse(Matrix):
    """A matrix in compressed rows: ``row_starts`` (m+1,), ``columns`` and ``values`` (nnz,), duplicates summed."""

    in_memory = True
    residual_is_entrywise = False

    def __init__(self, row_starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> None:
        self.row_starts, self.columns, self.values = row_starts, columns, values
        self.shape, self.dtype = shape, values.dtype
        self._transposed: Sparse | None = None

    @property
    def work(self) -> int:
        """One multiply–add for each stored entry."""
        return len(self.values)

    @property
    def rounding_terms(self) -> int:
        """Entries of the fullest column, and a sum over them."""
        return self.shape[0] + 2

    def blocks(self) -> Iterator[Tensor]:
        """Dense row blocks, for solvers that know no other."""
        for start in range(0, self.shape[0], block_rows(self.shape[1])):
            rows = slice(start, min(start + block_rows(self.shape[1]), self.shape[0]))
            starts = self.row_starts[rows.start : rows.stop + 1].long()
            dense = torch.zeros(rows.stop - rows.start, self.shape[1], dtype=self.dtype)
            index = torch.repeat_interleave(torch.arange(len(dense)), starts.diff())
            part = slice(int(starts[0]), int(starts[-1]))
            dense[index, self.columns[part].long()] = self.values[part]
            yield dense

    def transposed(self) -> Sparse:
        """Xᵀ in compressed rows, built once."""
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
        """X V in V's dtype."""
        tensor = self._double if right.dtype == torch.float64 else self._single
        product: Tensor = tensor @ right.contiguous()
        return product

    def transposed_times(self, left: Tensor) -> Tensor:
        """Xᵀ U, float64 at the end."""
        return self.transposed().times(left).double()

    def apply_gram(self, right: Tensor) -> Tensor:
        """XᵀX V."""
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
        """Σ of the squares of the stored entries."""
        return squared_norm(self.values)

    def apply_gram_across(self, right: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
        """XᵀXV and (XV)ᵀA."""
        image = self.times(right)
        return self.transposed_times(image), image.T @ left.double()

    def squared_error(self, left: Tensor, right: Tensor) -> float:
        """‖X‖² − 2⟨XBᵀ, A⟩ + ⟨AᵀA, BBᵀ⟩: the residual itself is dense."""
        left, right = left.double(), right.double()
        cross = float((self.times(right.T) * left).sum())
        return max(0.0, self.squared_norm() - 2 * cross + float(((left.T @ left) * (right @ right.T)).sum()))

    @cached_property
    def _single(self) -> Tensor:
        return self._tensor(torch.float32)

    @cached_property
    def _double(self) -> Tensor:
        return self._tensor(torch.float64)

    def _tensor(self, dtype: torch.dtype) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*[Ss]parse.*beta.*")
            # the indices were checked when the matrix came in
            parts = (self.row_starts, self.columns, self.values.to(dtype))
            return torch.sparse_csr_tensor(*parts, self.shape, check_invariants=False)


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
