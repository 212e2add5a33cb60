"""Parquet files with a column of images and a column of labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from assay.data.arrays import check_independent, to_image_bytes
from assay.data.dataset import ImageDataset
from assay.data.division import PictureFacts
from assay.data.labels import Values, assign_classes, read_labels
from assay.data.metadata import Column, make_column
from assay.data.pictures import Decoded, Encoded, decode_pictures
from assay.data.preparing import prepare_all
from assay.data.reading import Reading, readable
from assay.data.selection import choose_samples
from assay.data.sources.columns import kept_notes, label_note, rows_of_split
from assay.data.sources.parquet_columns import Columns, find_columns, holds_paths, holds_pictures, is_encoded
from assay.data.sources.picture_paths import PictureFolder
from assay.errors import DataError

ROWS = 1024  # rows a read: few enough to keep little in memory, enough to keep the decoders busy

Places = NDArray[np.int64]


def load_parquet(
    files: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read ``files`` one after the other as one split.

    Columns are found by the ``huggingface`` metadata, by their usual names, or by their types; see
    :func:`assay.data.sources.parquet_columns.find_columns`. Images are encoded files
    (``struct<bytes, path>`` or binary), paths to them from the folder of the file or ``reading.root``, or lists of
    pixels. A column of splits parts the rows. Class names come from the metadata; else from the labels of ``files`` and
    of ``others``, the files of the same set's other splits, so that every split numbers its classes alike. Other
    columns of scalars are metadata. An id is the row's place in the files of the split.

    With ``reading.limit`` only the row groups that hold the chosen rows are read, and only those rows are decoded.
    """
    columns = _agreeing_columns(files, reading)
    where = f"{files[0]}:{columns.label}" if len(files) == 1 else f"{name} ({split}):{columns.label}"
    cells = [_read_labels(file, columns) for file in files]
    count = sum(map(len, cells))
    if not count:
        raise DataError(where, expected="at least one image", got="an empty table")
    stored = read_labels(np.concatenate(cells), where=where, names=columns.classes)
    splits = None if columns.split is None else [cell for file in files for cell in _read_column(file, columns.split)]
    part = rows_of_split(splits, count, column=columns.split or "", split=split, reading=reading,
                         where=str(files[0]), name=name)  # fmt: skip
    more = [] if columns.classes else _labels_of_others(others, columns)
    if part.parts:
        more.append(np.delete(stored, part.rows))
        where = f"{where} ({part.split})"
    labels, classes, of_labels = assign_classes(stored[part.rows], names=columns.classes, where=where, others=more)
    within = limited = choose_samples(labels.numpy(), limit=reading.limit)
    if reading.divide is not None:
        within = within[reading.divide(part.rows[within], labels.numpy()[within])]
    chosen = part.rows[within]
    if reading.only is not None:
        chosen = chosen[np.isin(chosen, list(reading.only))]
    rows = np.sort(chosen)
    filenames: list[str | None] = []
    if holds_pictures(columns.image_type) and not is_encoded(columns.image_type):
        decoded = _read_pixels(_cells(files, columns.image, rows), reading=reading, where=f"{name}:{columns.image}")
    else:
        pictures = _encoded(_cells(files, columns.image, rows), filenames, column=columns.image, root=reading.root)
        if not holds_pictures(columns.image_type):
            _refuse_missing(files, columns.image, rows, reading=reading)

        def everything() -> Iterator[Encoded]:
            cells = _cells(files, columns.image, np.sort(part.rows[limited]))
            return _encoded(cells, [], column=columns.image, root=reading.root)

        decoded = decode_pictures(pictures, count=len(rows), reading=reading, where=name, everything=everything)
    places = rows[decoded.indices.numpy()]
    named = [filenames[place] for place in decoded.indices.tolist()] if filenames else [None]
    names = None if None in named else tuple(str(filename) for filename in named)
    metadata, dropped = _metadata(files, columns, places)
    if columns.split is not None and not part.parts:
        column = make_column([(splits or [])[row] for row in places.tolist()])
        metadata |= {} if column is None else {columns.split: column}
    dataset = ImageDataset(
        decoded.images,
        labels[torch.from_numpy(np.searchsorted(part.rows, places))],
        classes,
        name,
        part.split,
        torch.from_numpy(places),
        names,
        decoded.skipped,
        (
            *label_note(columns.label, columns.like_label, where=name),
            *part.notes,
            *kept_notes(list(metadata), [*columns.unused, *dropped], where=name),
            *of_labels,
            *decoded.notes,
        ),
        metadata=metadata,
    )
    return dataset if np.array_equal(rows, chosen) else dataset.arranged(torch.from_numpy(chosen))


def class_names(file: Path) -> tuple[str, ...] | None:
    with opened(file) as parquet:
        return find_columns(parquet.schema_arrow, reading=Reading(), where=str(file)).classes


def _readable(file: Path) -> AbstractContextManager[None]:
    return readable(file, "a readable Parquet file", pa.ArrowException)


@contextmanager
def opened(file: Path) -> Iterator[pq.ParquetFile]:
    with _readable(file), pq.ParquetFile(file) as parquet:
        yield parquet


def _agreeing_columns(files: Sequence[Path], reading: Reading) -> Columns:
    first: Columns | None = None
    for file in files:
        with opened(file) as parquet:
            columns = find_columns(parquet.schema_arrow, reading=reading, where=str(file))
        first = first or columns
        if columns.agreeing != first.agreeing:
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


def _read_column(file: Path, column: str) -> list[Any]:
    with opened(file) as parquet:
        return parquet.read(columns=[column]).column(0).to_pylist()  # type: ignore[no-any-return]


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


def _encoded(
    pieces: Iterator[tuple[Path, Places, pa.Array]], filenames: list[str | None], *, column: str, root: Path | None
) -> Iterator[Encoded]:
    """Cells with image files in them, or with paths to them; the paths are noted in ``filenames``, None where absent.

    A path is followed where there are no bytes, from the folder of the file or from ``root``.
    """
    for file, places, cells in pieces:
        with _readable(file):
            contents, paths = _contents_and_paths(cells)
        folder: PictureFolder | None = None
        for place, content, path in zip(places.tolist(), contents, paths, strict=True):
            filenames.append(path or None)
            name = f"{file.name}[{place}]" + (f" {path}" if path else "")
            if content is not None or not path:
                yield Encoded(name, content)
                continue
            folder = folder or PictureFolder(root or file.parent, where=f"{file}:{column}")
            pointed = folder.encoded(folder.locate(path, place), place, name=name)
            missing = is_encoded(cells.type) and isinstance(pointed.content, Path) and not pointed.content.exists()
            yield Encoded(name, None) if missing else pointed


def _contents_and_paths(cells: pa.Array) -> tuple[list[Any], list[Any]]:
    """The bytes and the paths in cells of files, of structs of both, or of paths alone; None where there is none."""
    nothing = [None] * len(cells)
    if not pa.types.is_struct(cells.type):
        values = cells.to_pylist()
        return (nothing, values) if holds_paths(cells.type) else (values, nothing)
    fields = {each.name for each in cells.type}
    contents, paths = (
        pc.struct_field(cells, name).to_pylist() if name in fields else nothing for name in ("bytes", "path")
    )
    return contents, paths


def _refuse_missing(files: Sequence[Path], column: str, rows: Places, *, reading: Reading) -> None:
    """Raise :class:`DataError` where more of the pictures that paths lead to are missing than may be."""
    located: dict[Path, list[tuple[int, str]]] = {}
    for file, places, cells in _cells(files, column, rows):
        with _readable(file):
            paths = _contents_and_paths(cells)[1]
        located.setdefault(file, []).extend(zip(places.tolist(), paths, strict=True))
    for file, paths_of_file in located.items():
        folder = PictureFolder(reading.root or file.parent, where=f"{file}:{column}")
        folder.refuse_missing([folder.locate(path, row) for row, path in paths_of_file], max_bad=reading.max_bad)


def _metadata(files: Sequence[Path], columns: Columns, rows: Places) -> tuple[dict[str, Column], list[str]]:
    """The columns of scalars at ``rows`` (sorted, counted over all files), and those that hold something else.

    What a column is follows from all of its rows, so that every part of a set has the same columns.
    """
    values: dict[str, list[Any]] = {name: [] for name in columns.metadata}
    gaps = dict.fromkeys(values, False)
    outside = dict.fromkeys(values, False)  # of the numbers that have names
    start = 0
    for file in files if values else ():
        with opened(file) as parquet:
            stop = start + parquet.metadata.num_rows
            of_file = pa.array(rows[(rows >= start) & (rows < stop)] - start)
            present = [name for name in values if name in parquet.schema_arrow.names]
            table = parquet.read(columns=present)
            for name, cells in values.items():
                column = table.column(name) if name in present else pa.chunked_array([pa.nulls(stop - start)])
                cells += column.take(of_file).to_pylist()
                gaps[name] = gaps[name] or column.null_count > 0
                outside[name] = outside[name] or _has_others(column, columns.metadata[name])
        start = stop
    metadata: dict[str, Column] = {}
    for name, names in columns.metadata.items():
        cells = values[name]
        if names is not None and not outside[name]:
            cells = [None if value is None else names[value] for value in cells]
        made = make_column(cells, gaps=gaps[name])
        if made is not None:
            metadata[name] = made
    return metadata, [name for name in values if name not in metadata]


def _has_others(column: pa.ChunkedArray, names: tuple[str, ...] | None) -> bool:
    """Whether a column holds anything but the numbers of ``names``."""
    if names is None or column.null_count == len(column):
        return False
    if not pa.types.is_integer(column.type):
        return True
    extremes = pc.min_max(column).as_py()
    return not 0 <= extremes["min"] <= extremes["max"] < len(names)


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
        pixels = np.concatenate(parts)
        if reading.divide is not None:
            check_independent(pixels, where=where)
            brightest = {pixels.dtype: float(pixels.max())}
            reading.divide.keep(PictureFacts(where, brightest, (), (), reading.max_bad))
        images = to_image_bytes(pixels, where=where, notes=notes)
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
