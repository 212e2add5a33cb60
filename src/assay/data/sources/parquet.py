"""Parquet files with a column of images and a column of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from assay.data.arrays import to_image_bytes
from assay.data.dataset import ImageDataset
from assay.data.labels import Values, assign_classes, read_labels
from assay.data.pictures import Decoded, Encoded, decode_pictures
from assay.data.preparing import prepare_all
from assay.data.reading import Reading, listing, readable
from assay.data.selection import choose_samples
from assay.data.sources.columns import IMAGE_NAMES, LABEL_NAMES, pick
from assay.errors import DataError
from assay.wording import plural


@dataclass(frozen=True)
class Columns:
    """The names of the two columns, the type of the images, and the class names where the file has them.

    ``unused`` are the columns that could hold the images or the labels as well.
    """

    image: str
    label: str
    image_type: pa.DataType
    classes: tuple[str, ...] | None
    unused: tuple[str, ...] = ()


def find_columns(schema: pa.Schema, *, where: str) -> Columns:
    """Find the columns, in this order: by the ``huggingface`` metadata, by the usual names, as the only one that fits.

    Of several candidates the one with the most usual name is taken (``fine_label`` before ``coarse_label``). Raises
    :class:`DataError` listing the columns when there is none, or several.
    """
    features = _features(schema)
    picturelike = [field.name for field in schema if holds_pictures(field.type)]
    declared = [name for name in picturelike if features.get(name, {}).get("_type") == "Image"]
    image = pick(declared, IMAGE_NAMES) or pick(picturelike, IMAGE_NAMES)
    if image is None:
        expected = f"a column of pictures ({', '.join(IMAGE_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    others = [field.name for field in schema if field.name != image]
    declared = [name for name in others if features.get(name, {}).get("_type") == "ClassLabel"]
    label = pick(declared, LABEL_NAMES) or pick(others, LABEL_NAMES, only_by_name=len(others) > 1)
    if label is None:
        expected = f"a column of labels ({', '.join(LABEL_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    names = features.get(label, {}).get("names")
    classes = tuple(str(name) for name in names) if isinstance(names, list) and len(names) > 1 else None
    usual = {*declared, *(name for name in others if name.lower() in LABEL_NAMES)}
    unused = tuple(name for name in others if name != label and (name in usual or name in picturelike))
    return Columns(image, label, schema.field(image).type, classes, unused)


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold images: encoded files, or lists of pixels."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return True
    return is_encoded(kind)


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a column of this type holds image files (PNG, JPEG, …) as bytes."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_encoded(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The features that the ``huggingface`` metadata declares; none where it is absent or not understood."""
    try:
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    features = declared.items() if isinstance(declared, dict) else ()
    return {name: feature for name, feature in features if isinstance(feature, dict)}


def _listing(schema: pa.Schema) -> str:
    return "columns " + ", ".join(f"{field.name} ({field.type})" for field in schema)[:200]


ROWS = 1024  # rows a read: few enough to keep little in memory, enough to keep the decoders busy

Places = NDArray[np.int64]


def load_parquet(
    files: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read ``files`` one after the other as one split.

    Columns are found by the ``huggingface`` metadata, by their usual names, or by their types; see
    :func:`assay.data.sources.parquet.find_columns`. Images are encoded files (``struct<bytes, path>`` or binary) or
    lists of pixels. Class names come from the metadata; else from the labels of ``files`` and of ``others``, the files
    of the same set's other splits, so that every split numbers its classes alike. An id is the row's place
    in the split.

    With ``reading.limit`` only the row groups that hold the chosen rows are read, and only those rows are decoded.
    """
    columns = _agreeing_columns(files)
    where = f"{files[0]}:{columns.label}" if len(files) == 1 else f"{name} ({split}):{columns.label}"
    cells = [_read_labels(file, columns) for file in files]
    if not sum(map(len, cells)):
        raise DataError(where, expected="at least one image", got="an empty table")
    stored = read_labels(np.concatenate(cells), where=where, names=columns.classes)
    more = [] if columns.classes else _labels_of_others(others, columns)
    labels, classes, of_labels = assign_classes(stored, names=columns.classes, where=where, others=more)
    chosen = choose_samples(labels.numpy(), limit=reading.limit, only=reading.only)
    rows = np.sort(chosen)
    filenames: list[str | None] = []
    if is_encoded(columns.image_type):
        pictures = _encoded(_cells(files, columns.image, rows), filenames)
        decoded = decode_pictures(pictures, count=len(rows), reading=reading, where=name)
    else:
        decoded = _read_pixels(_cells(files, columns.image, rows), reading=reading, where=f"{name}:{columns.image}")
    ids = torch.from_numpy(rows)[decoded.indices]
    named = [filenames[place] for place in decoded.indices.tolist()] if filenames else [None]
    names = None if None in named else tuple(str(filename) for filename in named)
    unused = columns.unused
    notes = [f"{name}: {plural(len(unused), 'column')} not used: {listing(unused)}"] if unused else []
    notes += [*of_labels, *decoded.notes]
    dataset = ImageDataset(
        decoded.images, labels[ids], classes, name, split, ids, names, decoded.skipped, tuple(notes)
    )  # fmt: skip
    return dataset if np.array_equal(rows, chosen) else dataset.arranged(torch.from_numpy(chosen))


def class_names(file: Path) -> tuple[str, ...] | None:
    with opened(file) as parquet:
        return find_columns(parquet.schema_arrow, where=str(file)).classes


def _readable(file: Path) -> AbstractContextManager[None]:
    return readable(file, "a readable Parquet file", pa.ArrowException)


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    with _readable(file), pq.ParquetFile(file) as parquet:
        yield parquet


def _agreeing_columns(files: Sequence[Path]) -> Columns:
    first: Columns | None = None
    for file in files:
        with opened(file) as parquet:
            columns = find_columns(parquet.schema_arrow, where=str(file))
        first = first or columns
        if (columns.image, columns.label, columns.classes) != (first.image, first.label, first.classes):
            expected = f"columns {first.image}, {first.label} and class names as in {files[0].name}"
            raise DataError(str(file), expected=expected, got=f"{columns.image}, {columns.label} or other class names")
    if first is None:
        raise DataError("data", expected="at least one Parquet file", got="none")
    return first


def _read_labels(file: Path, columns: Columns) -> NDArray[Any]:
    with opened(file) as parquet:
        column = parquet.read(columns=[columns.label]).column(0).combine_chunks()
        if len(column) == 0:
            return np.empty(0, np.int64)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if column.null_count:
            first = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise DataError(f"{file}:{columns.label}[{first}]", expected="a label", got="none")
        kind = column.type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind):
            return np.asarray(column.to_numpy(zero_copy_only=False))
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            values = np.empty(len(column), object)
            values[:] = column.to_pylist()
            return values
    raise DataError(f"{file}:{columns.label}", expected="one class number or class name a row", got=f"type {kind}")


def _labels_of_others(files: Sequence[Path], columns: Columns) -> list[Values]:
    """The labels of the set's other splits, so that every split numbers its classes alike."""
    labels = []
    for file in files:
        with opened(file) as parquet:
            present = columns.label in parquet.schema_arrow.names
        labels += [read_labels(_read_labels(file, columns), where=f"{file}:{columns.label}")] if present else []
    return labels


def _cells(files: Sequence[Path], column: str, rows: Places) -> Iterator[tuple[Path, Places, pa.Array]]:
    """The cells of ``column`` at ``rows`` (sorted, counted over all files), piece by piece, with their rows."""
    start = 0
    for file in files:
        with opened(file) as parquet:
            stop = start + parquet.metadata.num_rows
            rows_of_file = rows[(rows >= start) & (rows < stop)] - start
            for places, cells in _cells_of_file(parquet, column, rows_of_file):
                yield file, places, cells
        start = stop


def _cells_of_file(parquet: pq.ParquetFile, column: str, rows: Places) -> Iterator[tuple[Places, pa.Array]]:
    counts = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
    ends = np.cumsum(counts)
    for group in np.unique(np.searchsorted(ends, rows, side="right")).tolist():
        start, last = int(ends[group]) - counts[group], int(rows[rows < ends[group]].max())
        for batch in parquet.iter_batches(batch_size=ROWS, row_groups=[group], columns=[column]):
            places = rows[(rows >= start) & (rows < start + len(batch))]
            if len(places):
                yield places, batch.column(0).take(pa.array(places - start))
            start += len(batch)
            if start > last:
                break


def _encoded(pieces: Iterator[tuple[Path, Places, pa.Array]], filenames: list[str | None]) -> Iterator[Encoded]:
    """Cells with image files in them; the file names they carry are noted in ``filenames``, None where absent."""
    for file, places, cells in pieces:
        paths = [None] * len(cells)
        with _readable(file):
            if not pa.types.is_struct(cells.type):
                contents = cells.to_pylist()
            else:
                contents = pc.struct_field(cells, "bytes").to_pylist()
                if any(field.name == "path" for field in cells.type):
                    paths = pc.struct_field(cells, "path").to_pylist()
        for place, content, path in zip(places.tolist(), contents, paths, strict=True):
            filenames.append(path or None)
            yield Encoded(f"{file.name}[{place}]" + (f" {path}" if path else ""), content)


def _read_pixels(pieces: Iterator[tuple[Path, Places, pa.Array]], *, reading: Reading, where: str) -> Decoded:
    parts = []
    for file, places, cells in pieces:
        with _readable(file):
            parts.append(_dense(cells, where=f"{file}[{places[0]}]"))
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = " and ".join(sorted({str(part.shape[1:]) for part in parts}))
        raise DataError(where, expected="images of one size", got=shapes)
    notes: list[str] = []
    images = torch.empty(0, 1, 1, 1).byte()
    if parts:
        images = to_image_bytes(np.concatenate(parts), where=where, notes=notes)
    return Decoded(prepare_all(images, reading.preparation), torch.arange(len(images)), (), tuple(notes))


def _dense(cells: pa.Array, *, where: str) -> NDArray[Any]:
    """Nested lists of equal lengths to one array (N, …)."""
    if isinstance(cells.type, pa.FixedShapeTensorType):
        return np.asarray(cells.to_numpy_ndarray())
    shape = [len(cells)]
    while pa.types.is_nested(cells.type):
        if cells.null_count:
            raise DataError(where, expected="pixels in every row", got="an empty cell")
        lengths = pc.unique(pc.list_value_length(cells)).to_pylist()
        if len(lengths) != 1:
            raise DataError(where, expected="images of one size", got=f"lists of {len(lengths)} different lengths")
        shape.append(lengths[0])
        cells = cells.flatten()
    return np.asarray(cells.to_numpy(zero_copy_only=False)).reshape(shape)
