"""Tables as other programs write them (CSV, TSV, JSON lines, Parquet, NumPy) to columns of NumPy arrays."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.data.reading import readable, text_encoding
from assay.errors import DataError

TABLES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".parquet", ".pq", ".npz", ".npy")
STATED = b"assay.predictions"  # the key of what a file states of itself, in JSON
WITHOUT_HEADER = "scores"  # what numbers without a header, and an array without a name, are called

AnyArray = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Table:
    """``columns`` by their names, each (N,) or (N, K); text as objects of ``str``, None where there is none.

    ``stated`` is what the file says of itself, such as the names of the classes; ``notes`` tell what was left out.
    """

    columns: Mapping[str, AnyArray]
    stated: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_table(path: Path, *, as_text: Callable[[str], bool]) -> Table:
    """Read a file by its suffix, one of :data:`TABLES`. ``as_text`` tells by its name which column of a CSV is text.

    Raises :class:`DataError` for a file that is missing, damaged, or of another kind.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLES:
        got = f"{suffix or 'no suffix'}{' (a pickle is not read: it can run code)' if suffix in _PICKLES else ''}"
        raise DataError(str(path), expected=f"a file of predictions ({', '.join(TABLES)})", got=got)
    if not path.is_file():
        raise DataError(str(path), expected="a file of predictions", got="a folder" if path.exists() else "nothing")
    with readable(path, f"a readable table ({suffix})", pa.ArrowException):
        if suffix in {".npz", ".npy"}:
            return _read_arrays(path)
        if suffix in {".parquet", ".pq"}:
            return _read_parquet(path)
        if suffix in {".jsonl", ".ndjson"}:
            return Table(_columns_of(pyarrow.json.read_json(path), where=str(path)))
        return _read_text(path, as_text)
    raise AssertionError  # mypy: the context manager above passes no exception on


_PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".joblib"}


def _read_text(path: Path, as_text: Callable[[str], bool]) -> Table:
    with path.open("rb") as file:
        encoding = text_encoding(file.read(4))
    with path.open(encoding=encoding, newline="") as file:
        first = file.readline()
    if not first.strip():
        raise DataError(str(path), expected="a header and rows", got="an empty file")
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=first.count)
    with path.open(encoding=encoding, newline="") as file:
        header = next(csv.reader(file, delimiter=delimiter))
    named = not _are_values(header)
    if named and len(set(header)) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f"{path}: columns", expected="distinct names", got=f"{twice!r} twice")
    table = pyarrow.csv.read_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(
            encoding="utf8" if encoding == "utf-8-sig" else encoding, autogenerate_column_names=not named
        ),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={name: pa.string() for name in header if as_text(name.lstrip("# "))} if named else None
        ),
    )
    columns = _columns_of(table, where=str(path))
    if named:
        return Table({name.lstrip("# "): cells for name, cells in columns.items()})  # NumPy writes "# " before a header
    numbers = np.column_stack(list(columns.values()))
    note = f"{path.name}: the first line is no header: all {len(columns)} columns are taken for the classes"
    return Table({WITHOUT_HEADER: numbers}, notes=(note,))


def _are_values(header: list[str]) -> bool:
    """Whether a first line holds numbers, and not the names 0, 1, 2, … of classes."""
    try:
        numbers = [float(cell) for cell in header]
    except ValueError:
        return False
    return len(header) > 1 and sorted(numbers) not in ([*range(len(header))], [*range(1, len(header) + 1)])


def _read_parquet(path: Path) -> Table:
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        chosen = [each.name for each in schema if not _is_binary(each.type)]
        if len(set(schema.names)) < len(schema.names):
            raise DataError(f"{path}: columns", expected="distinct names", got=", ".join(schema.names)[:100])
        table = file.read(columns=chosen)
    metadata = schema.metadata or {}
    stated = json.loads(metadata[STATED]) if STATED in metadata else {}
    index = _index_columns(metadata)
    columns = {name: cells for name, cells in _columns_of(table, where=str(path)).items() if name not in index}
    notes = (f"{path.name}: the index, which has no name, is not used",) if index else ()
    return Table(columns, stated if isinstance(stated, dict) else {}, notes)


def _index_columns(metadata: Mapping[bytes, bytes]) -> set[str]:
    """The columns in which pandas kept an index without a name."""
    try:
        names = json.loads(metadata[b"pandas"])["index_columns"]
    except (KeyError, TypeError, ValueError):
        return set()
    return {name for name in names if isinstance(name, str) and name.startswith("__index_level_")}


def _is_binary(kind: pa.DataType) -> bool:
    """Pictures, which are not needed here."""
    if pa.types.is_struct(kind):
        return not any(part.name == "path" for part in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _columns_of(table: pa.Table, *, where: str) -> dict[str, AnyArray]:
    if table.num_rows == 0:
        raise DataError(where, expected="at least one row", got="none")
    columns: dict[str, AnyArray] = {}
    for place, name in enumerate(table.column_names):
        cells = table.column(place).combine_chunks()
        if pa.types.is_struct(cells.type) and all(_is_number(part.type) for part in cells.type):
            names = [part.name for part in cells.type]  # such as {"cat": 0.9, "dog": 0.1}
            columns |= {f"{name}_{part}": _to_array(pc.struct_field(cells, part), where=where) for part in names}
        else:
            columns[name] = _to_array(cells, where=f"{where}:{name}")
    return columns


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _to_array(cells: Any, *, where: str) -> AnyArray:
    """One column as an array: numbers as they are, missing ones as NaN; lists as rows; everything else as text."""
    cells = _unwrap(cells)
    kind = cells.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _rows(cells, where=where)
    is_truth = pa.types.is_boolean(kind) and not cells.null_count
    if is_truth or _is_number(kind):
        return np.asarray(cells.to_numpy(zero_copy_only=False))
    values = np.empty(len(cells), object)
    values[:] = [None if value is None else value if isinstance(value, str) else str(value)
                 for value in cells.to_pylist()]  # fmt: skip
    return _lists_of(values, where=where)


def _unwrap(cells: Any) -> Any:
    """The plain cells below pieces, extension types, categories, decimals and pictures with a path."""
    if isinstance(cells, pa.ChunkedArray):
        cells = pa.concat_arrays(cells.chunks)
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    if pa.types.is_struct(cells.type) and any(part.name == "path" for part in cells.type):
        cells = cells.field("path")
    if pa.types.is_dictionary(cells.type):
        cells = cells.dictionary_decode()
    return pc.cast(cells, pa.float64()) if pa.types.is_decimal(cells.type) else cells


def _rows(cells: Any, *, where: str) -> AnyArray:
    """Lists of equal lengths to one array (N, K); a row that is missing is one of NaN."""
    known = cells.is_valid().to_numpy(zero_copy_only=False)
    lengths = pc.unique(pc.list_value_length(cells).drop_null()).to_pylist()
    if len(lengths) != 1:
        got = "no list" if not lengths else f"{len(lengths)} different lengths"
        raise DataError(where, expected="lists of one length, a number for each class", got=got)
    flat = _to_array(cells.flatten(), where=where)
    if flat.dtype.kind not in "biuf" or flat.ndim != 1:
        raise DataError(where, expected="lists of numbers", got=f"type {cells.type}")
    if known.all():
        return flat.reshape(len(cells), lengths[0])
    rows = np.full((len(cells), lengths[0]), np.nan, np.result_type(flat.dtype, np.float16))
    rows[known] = flat.reshape(-1, lengths[0])
    return rows


def _lists_of(values: AnyArray, *, where: str) -> AnyArray:
    """Text such as ``[0.1, 0.9]`` in every row as numbers (N, K); any other text as it is."""
    texts = values.tolist()
    if not all(text is not None and text.startswith("[") and text.rstrip().endswith("]") for text in texts):
        return values
    rows: list[list[float]] = []
    for place, text in enumerate(texts):
        try:
            rows.append([float(part) for part in text.strip("[] \n").replace(",", " ").split()])
        except ValueError:
            got = f"{text!r:.60}{' (cut off when it was written)' if '...' in text else ''}"
            raise DataError(f"{where}[{place}]", expected="a list of numbers", got=got) from None
        if len(rows[-1]) != len(rows[0]):
            got = f"{len(rows[-1])} instead of {len(rows[0])}"
            raise DataError(f"{where}[{place}]", expected="lists of one length", got=got)
    return np.array(rows)


def _read_arrays(path: Path) -> Table:
    if path.suffix.lower() == ".npy":
        return Table({WITHOUT_HEADER: _array(lambda: np.load(path, allow_pickle=False), where=str(path))})
    with path.open("rb") as file:
        head = file.read(2)
    if head != b"PK" or not zipfile.is_zipfile(path):
        raise DataError(str(path), expected="a NumPy archive (.npz)", got="something else, or a truncated one")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = {name: _array(partial(archive.__getitem__, name), where=f"{path}:{name}") for name in archive.files}
    stated = arrays.pop(STATED.decode(), None)
    return Table(arrays, {} if stated is None else json.loads(str(stated)))


def _array(load: Callable[[], AnyArray], *, where: str) -> AnyArray:
    try:
        array = load()
    except ValueError as error:
        if "allow_pickle" in str(error):
            got = "Python objects, which only unpickling can read, and that can run code"
            raise DataError(where, expected="an array of numbers or text", got=got) from None
        raise
    return array.astype(str).astype(object) if array.dtype.kind in "US" else array
