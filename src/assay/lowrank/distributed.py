"""A matrix whose rows are shared among processes: each holds some, sums are all-reduced."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from assay.errors import DataError
from assay.lowrank.matrix import Matrix


class SharedRows(Matrix):
    """The rows of ``local`` in this process, those of the others in theirs.

    Sums over rows (XᵀX, XᵀXV, ‖X‖²) are all-reduced in float64, so every process works with the same small matrices and
    gets the same B; A holds the rows of this process. Start the processes with ``torchrun`` and initialise the process
    group first. Raises :class:`DataError` when the processes disagree about the number of columns.
    """

    def __init__(self, local: Matrix) -> None:
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
