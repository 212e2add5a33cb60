"""From whatever a user holds to a :class:`Matrix`, checked."""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from assay.arguments import checked
from assay.data.reading import readable, text_encoding
from assay.errors import DataError
from assay.lowrank.matrix import Dense, Matrix, Scaled, from_scipy, from_torch_sparse
from assay.lowrank.streams import MappedArray, NpyFile, ParquetMatrix, RowBlocks, check_real

_REAL = {torch.float32, torch.float64}
_SAFE_SCALE = {torch.float32: 1e9, torch.float64: 1e75}  # entries between 1/limit and limit have fourth powers in range


@checked
def as_matrix(source: object) -> Matrix:
    """Take a tensor (dense or sparse), an array, a memmap, a scipy.sparse matrix, a path, or row blocks.

    Integers, booleans and half floats become float64 (float32 for half floats) before any arithmetic, so nothing
    overflows. Row blocks come as a list, as a function that returns an iterator (read as often as needed), or as an
    iterator (read once: the single-pass method). Raises :class:`DataError` for anything that is not a real matrix.
    """
    matrix = _wrap(source)
    m, n = matrix.shape
    if m == 0 or n == 0 or n < 0:
        raise DataError("X", expected="at least one row and one column", got="an empty matrix" if n < 0 else (m, n))
    return matrix


def _wrap(source: object) -> Matrix:  # noqa: PLR0911  # one return a kind of input reads best
    if isinstance(source, Matrix):
        return source
    if isinstance(source, str | Path):
        return open_matrix(Path(source))
    if isinstance(source, Tensor):
        return _from_tensor(source)
    if type(source).__module__.startswith("scipy.sparse"):
        check_real(np.dtype(source.dtype))  # type: ignore[attr-defined]
        return from_scipy(source)
    if isinstance(source, np.memmap) and source.ndim == 2:
        check_real(source.dtype)
        return MappedArray(source)
    if isinstance(source, Iterator) or (callable(source) and not hasattr(source, "__array__")):
        return RowBlocks(source)
    if isinstance(source, list) and source and all(getattr(part, "ndim", 0) == 2 for part in source):
        return RowBlocks(lambda: source)
    return _from_array(source)


def open_matrix(path: Path) -> Matrix:
    """A matrix file, by its suffix.

    ``.npy`` and ``.parquet`` are streamed; ``.npz`` (scipy.sparse, or one array), ``.csv``, ``.mtx``, ``.pt`` and
    ``.safetensors`` (one matrix) are read.
    Raises :class:`DataError` when the file is missing, broken, or of another kind.
    """
    if not path.is_file():
        raise DataError(str(path), expected="a file", got="a folder" if path.is_dir() else "nothing of that name")
    kind = path.suffix.lower()
    if kind == ".npy":
        return NpyFile(path)
    if kind == ".parquet":
        return ParquetMatrix(path)
    read_pt: Callable[[Path], object] = partial(torch.load, map_location="cpu", weights_only=True)
    readers = {".npz": _read_npz, ".csv": _read_csv, ".mtx": _read_mtx, ".pt": read_pt, ".safetensors": _read_tensors}
    if kind not in readers:
        expected = ".npy, .parquet, " + ", ".join(readers)
        raise DataError(str(path), expected=expected, got=kind or "no suffix")
    with readable(path, f"a readable {kind} file", SafetensorError):
        try:
            return _wrap(readers[kind](path))
        except DataError as error:
            raise DataError(f"{path}: {error.where}", expected=error.expected, got=error.got) from None


def measure_energy(matrix: Matrix, *, roughly: bool = False) -> tuple[Matrix, float]:
    """‖X‖²_F; as a check of every entry, and with X scaled by a power of two where its squares would leave the range.

    ``roughly`` spares a dense matrix in memory the summation in float64; that is enough to tell whether its numbers can
    be worked with. Returns the matrix to work with (X itself, or a :class:`Scaled` one) and its squared norm. Raises
    :class:`DataError` counting and locating NaN and infinite entries.
    """
    energy = matrix.rough_squared_norm() if roughly and isinstance(matrix, Dense) else matrix.squared_norm()
    size = math.sqrt(energy) if math.isfinite(energy) and energy >= 0 else math.inf
    limit = _SAFE_SCALE[matrix.dtype]
    if energy > 0 and 1 / limit < size < limit:
        return matrix, energy
    largest = _locate_non_finite(matrix)
    if largest == 0:
        return matrix, 0.0
    scaled = Scaled(matrix, 2.0 ** -math.floor(math.log2(largest)))
    return scaled, scaled.squared_norm()


def _locate_non_finite(matrix: Matrix) -> float:
    """The largest |x|; raises when an entry is not finite."""
    start, count, first, largest = 0, 0, "", 0.0
    for block in matrix.blocks():
        wrong = ~block.isfinite()
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            first = first or f"{block[row, column].item()} at [{start + row}, {column}]"
            count += int(wrong.sum())
        largest = max(largest, float(block.abs().nan_to_num(0).max()))
        start += len(block)
    if count:
        raise DataError("X", expected="finite numbers", got=f"{first}, {count} non-finite of {start * matrix.shape[1]}")
    return largest


def _from_tensor(source: Tensor) -> Matrix:
    if source.ndim != 2:
        raise DataError("X", expected="a matrix (two dimensions)", got=f"shape {tuple(source.shape)}")
    if source.is_complex():
        raise DataError("X", expected="real numbers", got=source.dtype)
    if source.layout != torch.strided:
        return from_torch_sparse(source)
    values = source.detach().cpu()  # before the widening: not every device has float64
    if values.dtype not in _REAL:
        half = values.dtype in {torch.float16, torch.bfloat16}
        values = values.to(torch.float32 if half else torch.float64)
    return Dense(values)


def _from_array(source: object) -> Matrix:
    try:
        array = np.asarray(source)
    except (ValueError, TypeError) as error:
        raise DataError("X", expected="a matrix", got=str(error)) from None
    if array.ndim != 2:
        got = type(source).__name__ if array.dtype == object else f"shape {array.shape}"
        raise DataError("X", expected="a matrix (two dimensions)", got=got)
    check_real(array.dtype)
    if array.dtype not in {np.dtype("f4"), np.dtype("f8")}:
        array = array.astype(np.float32 if array.dtype == np.dtype("f2") else np.float64)
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="C")
    return Dense(torch.from_numpy(array))


def _read_npz(path: Path) -> object:
    with np.load(path, allow_pickle=False) as archive:
        names = list(archive.files)
        if {"format", "shape", "data"} <= set(names):
            from scipy.sparse import load_npz

            return load_npz(path)
        if len(names) != 1:
            raise DataError("arrays", expected="one", got=", ".join(names) or "none")
        return archive[names[0]]


def _read_csv(path: Path) -> object:
    """Numbers parted by commas, semicolons or tabs, below at most one row of names.

    The first row is one of names if no cell of it looks like a number; a row of both is refused, and so are names
    without one for the first column, as programs write them above the numbers of the rows.
    """
    with path.open("rb") as file:
        encoding = text_encoding(file.read(4))
    with path.open(encoding=encoding, newline="") as file:
        first = next((line for line in file if line.strip()), "")
        delimiter = next((sign for sign in "\t;" if len(next(csv.reader([first], delimiter=sign))) > 1), ",")
        file.seek(0)
        rows = csv.reader(file, delimiter=delimiter)
        names = next((row for row in rows if any(cell.strip() for cell in row)), [])
        if not any(map(_LIKE_A_NUMBER.match, names)):
            if len(names) > 1 and not names[0].strip():
                expected = "a name for every column, and no numbers of the rows before the matrix"
                raise DataError(f"row {rows.line_num}, column 1", expected=expected, got="an empty name")
            skipped = rows.line_num
        else:
            skipped = 0
    with path.open(encoding=encoding) as file:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a file without rows is refused below
                array = np.loadtxt(file, delimiter=delimiter, skiprows=skipped, ndmin=2, quotechar='"', comments=None)
        except ValueError:
            _refuse_cell(path, encoding=encoding, delimiter=delimiter, skipped=skipped)
            raise
    if not array.size:
        raise DataError("rows", expected="numbers parted by commas", got="none")
    return array


_LIKE_A_NUMBER = re.compile(r"\s*[+-]?([0-9.]|nan\s*$|inf(inity)?\s*$)", re.IGNORECASE)


def _refuse_cell(path: Path, *, encoding: str, delimiter: str, skipped: int) -> None:
    """Raise :class:`DataError` naming the first cell that is no number, or the first row of another length."""
    with path.open(encoding=encoding, newline="") as file:
        rows, columns = csv.reader(file, delimiter=delimiter), 0
        for row in rows:
            if rows.line_num <= skipped or not row:
                continue
            for column, cell in enumerate(row, 1):
                if not _is_number(cell):
                    hint = ": decimals need a point" if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell) else ""
                    got = f"{cell.strip():.40}{hint}" if cell.strip() else "an empty cell"
                    raise DataError(f"row {rows.line_num}, column {column}", expected="a number", got=got)
            columns = columns or len(row)
            if len(row) != columns:
                raise DataError(f"row {rows.line_num}", expected=f"{columns} numbers, as above", got=len(row))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell  # Python takes 1_000 for a number; no file means that


def _read_mtx(path: Path) -> object:
    from scipy.io import mmread

    return mmread(path)


def _read_tensors(path: Path) -> object:
    from safetensors.torch import load_file

    tensors = load_file(path)
    if len(tensors) != 1:
        raise DataError("tensors", expected="one", got=", ".join(tensors) or "none")
    return next(iter(tensors.values()))
