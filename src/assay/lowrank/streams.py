"""Matrices that need not fit in memory: files and iterators of row blocks."""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.reading import UNREADABLE
from assay.errors import DataError
from assay.lowrank.matrix import Matrix, block_rows, squared_norm
from assay.runtime import generator

READ_BYTES = 32 << 20  # of one read from a file


class NpyFile(Matrix):
    """A ``.npy`` file in C order, read block by block into one buffer: memory does not grow with the file.

    Raises :class:`DataError` for a file that is no ``.npy``, not two-dimensional, not of real numbers, or truncated.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _open(path) as file:
            shape, self.stored_transposed, self.stored = _read_header(path, file)
            self.offset = file.tell()
        self.shape = (shape[1], shape[0]) if self.stored_transposed else shape  # Fortran order is Xᵀ in C order
        expected = self.offset + shape[0] * shape[1] * self.stored.itemsize
        if (size := path.stat().st_size) < expected:
            full = f"{expected} bytes for {shape[0]}×{shape[1]} {self.stored}"
            raise DataError(str(path), expected=full, got=f"{size}: the file is truncated")
        self.dtype = torch.float32 if self.stored in {np.dtype("f4"), np.dtype("f2")} else torch.float64

    def blocks(self) -> Iterator[Tensor]:
        """Rows read with plain reads, so that the pages of the file never count as this process's memory."""
        m, n = self.shape
        rows = max(block_rows(n), READ_BYTES // max(1, n * self.stored.itemsize))
        buffer = np.empty((min(rows, m), n), self.stored)
        with _open(self.path) as file:
            file.seek(self.offset)
            for start in range(0, m, rows):
                part = buffer[: min(rows, m - start)]
                view = memoryview(part.view(np.uint8)).cast("B")  # type: ignore[arg-type]  # an array is a buffer
                if _read_fully(file, view) != part.nbytes:
                    raise DataError(str(self.path), expected=f"{m} rows", got=f"{start}: the file is truncated")
                yield from _as_blocks(part, self.dtype)


class MappedArray(Matrix):
    """A ``numpy.memmap`` (or any array too large to copy), copied slice by slice; its pages are given back."""

    def __init__(self, array: NDArray[np.generic]) -> None:
        self.array = array
        self.shape = (array.shape[0], array.shape[1])
        self.dtype = torch.float32 if array.dtype in {np.dtype("f4"), np.dtype("f2")} else torch.float64

    def blocks(self) -> Iterator[Tensor]:
        rows = max(block_rows(self.shape[1]), READ_BYTES // max(1, self.shape[1] * self.array.itemsize))
        pages = getattr(self.array, "_mmap", None)
        give_back = pages is not None and getattr(self.array, "mode", "") == "r" and hasattr(mmap, "MADV_DONTNEED")
        for start in range(0, self.shape[0], rows):
            yield from _as_blocks(np.array(self.array[start : start + rows]), self.dtype)
            if give_back and pages is not None:
                pages.madvise(mmap.MADV_DONTNEED)


class ParquetMatrix(Matrix):
    """The numeric columns of a Parquet file, or its one column of equally long lists, a row group at a time.

    Raises :class:`DataError` for other columns and for nulls, naming the column and the row.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.path = path
        try:
            file = pq.ParquetFile(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(str(path), expected="a Parquet file", got=str(error).splitlines()[0]) from None
        schema, rows = file.schema_arrow, file.metadata.num_rows
        kinds = [schema.field(i).type for i in range(len(schema))]
        self.lists = len(kinds) == 1 and (pa.types.is_list(kinds[0]) or pa.types.is_fixed_size_list(kinds[0]))
        for field, kind in zip(schema, kinds, strict=True):
            numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
            if not (numeric or self.lists):
                raise DataError(f"{path}: column {field.name!r}", expected="numbers", got=str(kind))
        self.dtype = torch.float32 if all(str(kind) in {"float", "halffloat"} for kind in kinds) else torch.float64
        columns = len(kinds)
        if self.lists and rows:
            columns = len(next(file.iter_batches(batch_size=1)).column(0)[0].as_py() or [])
        self.shape = (rows, columns)

    def blocks(self) -> Iterator[Tensor]:
        import pyarrow.parquet as pq

        start = 0
        for batch in pq.ParquetFile(self.path).iter_batches(batch_size=block_rows(self.shape[1])):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                values = column.flatten() if self.lists else column
                if values.null_count or column.null_count:
                    row = start + int(np.argmax(np.asarray(column.is_null()))) if column.null_count else start
                    raise DataError(f"{self.path}: column {name!r}, row {row}", expected="a number", got="null")
            if self.lists:
                flat = batch.column(0).flatten().to_numpy(zero_copy_only=False)
                if len(flat) != len(batch) * self.shape[1]:
                    where, expected = f"rows {start}..{start + len(batch) - 1}", f"lists of {self.shape[1]} numbers"
                    raise DataError(f"{self.path}: {where}", expected=expected, got="other lengths")
                values = flat.reshape(len(batch), self.shape[1])
            else:
                values = np.stack([column.to_numpy(zero_copy_only=False) for column in batch.columns], axis=1)
            start += len(batch)
            yield from _as_blocks(values, self.dtype)


class RowBlocks(Matrix):
    """Row blocks from a function that returns a fresh iterator at each call, or from an iterator (read once only).

    The number of rows is counted on a first pass, or is -1 for an iterator, until it has been read.
    """

    def __init__(self, source: Callable[[], Iterable[object]] | Iterator[object]) -> None:
        self._source = source
        self.replayable = callable(source)
        self.shape = (-1, -1)
        self._first: Tensor | None = None
        if callable(source):
            rows = columns = 0
            for block in self.blocks():
                rows, columns = rows + len(block), block.shape[1]
            self.shape = (rows, columns)
        else:
            first = next(iter(source), None)
            if first is not None:
                self._first = _checked_block(first, 0, -1)
                self.dtype = self._first.dtype
                self.shape = (-1, self._first.shape[1])

    def blocks(self) -> Iterator[Tensor]:
        """The blocks, each checked; all in the dtype of the first."""
        rows, columns = 0, self.shape[1]
        if not self.replayable and self._first is None and columns >= 0:
            raise DataError("row blocks", expected="an iterator that has not been read", got="one at its end")
        first, self._first = self._first, None
        iterator = iter(self._source()) if callable(self._source) else self._source
        place = -1
        for place, block in enumerate(chain(() if first is None else (first,), iterator)):
            checked = _checked_block(block, place, columns)
            if columns < 0:
                self.dtype = checked.dtype
            columns = checked.shape[1]
            rows += len(checked)
            if len(checked):
                yield checked.to(self.dtype)
        if callable(self._source) and self.shape[0] >= 0 and rows != self.shape[0]:
            raise DataError("row blocks", expected=f"{self.shape[0]} rows, as on the first pass", got=rows)
        self.shape = (rows, columns)


def _checked_block(block: object, place: int, columns: int) -> Tensor:
    tensor = block.detach().cpu() if isinstance(block, Tensor) else torch.as_tensor(np.asarray(block))
    width = "n" if columns < 0 else str(columns)
    if tensor.ndim != 2 or (columns >= 0 and tensor.shape[1] != columns):
        raise DataError(f"blocks[{place}]", expected=f"rows of {width} numbers: (b, {width})", got=tuple(tensor.shape))
    if tensor.is_complex():
        raise DataError(f"blocks[{place}]", expected="real numbers", got=tensor.dtype)
    return tensor.to(torch.float32 if tensor.dtype in {torch.float32, torch.float16, torch.bfloat16} else torch.float64)


def _as_blocks(part: NDArray[np.generic], dtype: torch.dtype) -> Iterator[Tensor]:
    target = np.float32 if dtype == torch.float32 else np.float64
    for start in range(0, len(part), block_rows(part.shape[1])):
        rows = np.require(part[start : start + block_rows(part.shape[1])], target, ["C", "W"])
        yield torch.from_numpy(rows)


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb", buffering=0)
    except OSError as error:
        raise DataError(str(path), expected="a file that can be read", got=error.strerror or str(error)) from None


def _read_fully(file: IO[bytes], view: memoryview) -> int:
    """Bytes read: a raw read may return fewer than asked for before the end of the file."""
    done = 0
    while done < len(view):
        got = file.readinto(view[done:])  # type: ignore[attr-defined]  # IO[bytes] omits readinto
        if not got:
            break
        done += got
    return done


def _read_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, int], bool, np.dtype[np.generic]]:
    try:
        with warnings.catch_warnings(action="ignore"):  # numpy's own, on headers that Python 2 wrote
            version = np.lib.format.read_magic(file)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = reader(file)
    except UNREADABLE as error:
        raise DataError(str(path), expected="a .npy file", got=" ".join(str(error).split())[:160]) from None
    if len(shape) != 2:
        raise DataError(str(path), expected="a matrix (two dimensions)", got=f"shape {shape}")
    check_real(dtype, where=str(path))
    return (shape[0], shape[1]), bool(fortran), dtype


def check_real(dtype: np.dtype[np.generic], *, where: str = "X") -> None:
    if dtype.kind not in "fiub":
        raise DataError(where, expected="real numbers", got=f"dtype {dtype}")


@dataclass(frozen=True, eq=False)
class Sketch:
    """U (m, k), σ (k,), V (n, k), the number of rows read and ‖X‖²_F."""

    left: Tensor
    sigma: Tensor
    right: Tensor
    rows: int
    energy: float


def sketch(matrix: Matrix, rank: int, *, seed: int) -> Sketch:
    """X ≈ QC with Q = orth(XΩ) and C = (ΨQ)⁺ΨX; then the best rank-r part of QC.

    Ω is (n, k), Ψ (s, m) Gaussian, k = 3r + 5 and s = 2k + 1: the range from one side, the rows from the other, each
    block of X used once for both. The columns of Ψ are drawn from the seed as rows come, so m need not be known.

    Reference: Tropp, Yurtsever, Udell & Cevher, *Practical sketching algorithms for low-rank matrix approximation*,
    SIAM J. Matrix Anal. Appl. 38 (2017), algorithm 7, without their fixed storage split.
    """
    n = matrix.shape[1]
    k = min(n, 3 * rank + 5)
    s = 2 * k + 1
    omega = torch.randn(n, k, generator=generator(seed, 0x50), dtype=torch.float64)
    draw = generator(seed, 0x51)
    ranges, tests, rows, energy = [], [], 0, 0.0
    tested = torch.zeros(s, n, dtype=torch.float64)  # ΨX
    for block in matrix.blocks():
        wide = block.double()
        part = squared_norm(wide)
        if not part < float("inf"):
            _refuse(wide, rows)
        test = torch.randn(len(wide), s, generator=draw, dtype=torch.float64)
        ranges.append((wide @ omega).to(matrix.dtype))
        tests.append(test.to(matrix.dtype))
        tested += test.T @ wide
        energy += part
        rows += len(wide)
    q = torch.linalg.qr(torch.cat(ranges).double()).Q
    mixed = torch.cat(tests).double().T @ q  # ΨQ (s, k)
    core = torch.linalg.lstsq(mixed, tested).solution  # C (k, n)
    left, sigma, right = torch.linalg.svd(core, full_matrices=False)
    return Sketch(q @ left, sigma, right.T, rows, energy)


def _refuse(block: Tensor, start: int) -> None:
    wrong = ~block.isfinite()
    if not bool(wrong.any()):
        raise DataError("X", expected="entries whose squares are finite", got=f"|x| up to {float(block.abs().max()):g}")
    row, column = wrong.nonzero()[0].tolist()
    value = float(block[row, column])
    got = f"{value} at [{start + row}, {column}], {int(wrong.sum())} non-finite in its block"
    raise DataError("X", expected="finite numbers", got=got)
