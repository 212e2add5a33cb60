"""Predictions written to a file, so that they can be checked and compared again without the model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import ImageDataset
from assay.data.prediction_columns import holds_role
from assay.data.prediction_files import STATED
from assay.errors import OptionError
from assay.files import write_atomically

FORMATS = (".csv", ".parquet", ".npz")


def check_format(path: Path) -> None:
    """Raise :class:`OptionError` for a file that :func:`write_predictions` has no format for, or no folder."""
    if path.suffix.lower() not in FORMATS:
        expected = f"a file {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"
        raise OptionError(str(path), expected=expected, got=path.suffix or "no suffix")
    if not path.absolute().parent.is_dir():
        raise OptionError(str(path), expected="a file in a folder that is there", got=f"no folder {path.parent}")


def write_predictions(path: Path, logits: Tensor, dataset: ImageDataset, *, model: str) -> None:
    """Write ``logits`` float32 (N, K) of the N samples of ``dataset``, with ids, file names and labels.

    By its suffix the file is CSV (columns ``logit_CLASS``, labels as names), Parquet or NPZ (``logits`` as lists,
    labels as numbers, names of the classes, data and model beside them). Columns of metadata are written where the data
    set has some, but for those that would be read as something else. It is written whole or not at all.
    """
    check_format(path)
    columns: dict[str, Any] = {"id": dataset.ids.numpy()}
    if dataset.filenames is not None:
        columns["filename"] = np.array(dataset.filenames, object)
    stated = {
        "classes": list(dataset.classes),
        "scores": "logits",
        "data": dataset.name,
        "split": dataset.split,
        "model": model,
    }
    values = logits.numpy()
    suffix = path.suffix.lower()
    if suffix == ".csv":
        content = _as_csv(columns, values, dataset)
    else:
        columns["label"] = dataset.labels.numpy()
        more = _metadata(dataset)
        write = _as_parquet if suffix == ".parquet" else _as_npz
        content = write({**columns, **more}, values, stated)
    write_atomically(path, content)


def _metadata(dataset: ImageDataset) -> dict[str, Any]:
    """Further columns of the data set; those with the name of a column that has a meaning here are left out."""
    return {name: cells for name, cells in dataset.metadata.items() if not holds_role(name)}


def _as_csv(columns: Mapping[str, Any], logits: NDArray[np.float32], dataset: ImageDataset) -> bytes:
    """Numbers as float64, whose shortest text gives them back; names only where each is another one."""
    names = dataset.classes
    distinct = len(set(names)) == len(names) and all(name and name == name.strip() for name in names)
    called = names if distinct else tuple(map(str, range(len(names))))
    arrays = {name: pa.array(cells) for name, cells in columns.items()}
    arrays["label"] = pa.array([called[label] for label in dataset.labels.tolist()])
    arrays |= {name: pa.array(cells) for name, cells in _metadata(dataset).items() if name not in arrays}
    for place, name in enumerate(called):
        arrays[f"logit_{name}"] = pa.array(logits[:, place].astype(np.float64))
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(pa.table(arrays), buffer)
    return buffer.getvalue()


def _as_parquet(columns: Mapping[str, Any], logits: NDArray[np.float32], stated: Mapping[str, Any]) -> bytes:
    n, k = logits.shape
    arrays = {name: pa.array(cells) for name, cells in columns.items()}
    arrays["logits"] = pa.FixedSizeListArray.from_arrays(pa.array(logits.reshape(n * k)), k)
    table = pa.table(arrays).replace_schema_metadata({STATED: json.dumps(stated)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _as_npz(columns: Mapping[str, Any], logits: NDArray[np.float32], stated: Mapping[str, Any]) -> bytes:
    arrays = {name: np.asarray(cells) for name, cells in columns.items()}
    for name, cells in arrays.items():  # text as text, with nothing as "": no file of objects, which needs unpickling
        if cells.dtype == object:
            arrays[name] = np.array(["" if text is None else text for text in cells.tolist()], str)
    buffer = io.BytesIO()
    named: Any = {**arrays, "logits": logits, STATED.decode(): np.array(json.dumps(stated))}
    np.savez(buffer, **named)
    return buffer.getvalue()
