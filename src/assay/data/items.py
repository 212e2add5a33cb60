"""One item of somebody's data set, whatever its form, taken apart: a picture, its label, and what else it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from assay.arguments import describe
from assay.data.arrays import channels_first
from assay.data.decoding import BROKEN, Broken, decode_picture, read_picture
from assay.data.labels import Values, one_column, read_labels
from assay.data.rounding import Pixels, planes_of_tensor
from assay.errors import DataError, one_line
from assay.records.preparation import Preparation

IMAGE_KEYS = (
    "image", "images", "img", "imgs", "picture", "pictures", "pixel_values", "pixels", "photo", "x", "input", "inputs",
    "data", "jpg", "jpeg", "png", "webp",
)  # fmt: skip
LABEL_KEYS = (
    "label", "labels", "fine_label", "fine_labels", "target", "targets", "class", "class_id", "category", "cls", "y",
)  # fmt: skip
SAMPLE = "(image, label), or a dict with an image and a label"


class Sample(NamedTuple):
    """The parts of an item; ``unused`` tells of a tuple's parts beyond the label."""

    picture: Any
    label: Any
    others: Mapping[str, Any]
    unused: int = 0


def find_key(mapping: Mapping[Any, Any], usual: Sequence[str]) -> str | None:
    """The key of the most usual name, whatever its case."""
    by_name = {str(key).lower(): key for key in mapping}
    return next((by_name[name] for name in usual if name in by_name), None)


def take_apart(item: Any, *, name: str) -> Sample:
    """The parts of one item. Raises :class:`DataError` naming it."""
    if isinstance(item, Mapping):
        image, label = find_key(item, IMAGE_KEYS), find_key(item, LABEL_KEYS)
        if image is None or label is None:
            keys = ", ".join(map(str, item))[:100]
            raise DataError(name, expected=SAMPLE, got=f"a dict with {keys or 'nothing'}")
        return Sample(item[image], item[label], {str(k): v for k, v in item.items() if k not in {image, label}})
    if isinstance(item, tuple | list) and len(item) >= 2:
        return Sample(item[0], item[1], {}, len(item) - 2)
    raise DataError(name, expected=SAMPLE, got=describe(item) if not isinstance(item, tuple | list) else "one part")


def is_array(value: object) -> bool:
    return isinstance(value, np.ndarray | Tensor)


class Read(NamedTuple):
    """A picture as (C, H, W) numbers, and its traits; ``encoded`` ones and those of PIL are resized already."""

    pixels: Pixels
    traits: tuple[str, ...] = ()
    encoded: bool = False


def read_item(picture: Any, *, name: str, preparation: Preparation | None) -> Read:
    """A picture of PIL, an array, a tensor, or an encoded file (bytes, a path, a dict of both) as numbers.

    Raises :class:`DataError` naming it.
    """
    if isinstance(picture, Mapping):  # an encoded picture of a Hugging Face data set
        picture = picture.get("bytes") or picture.get("path")
    try:
        if isinstance(picture, Image.Image):
            decoded = read_picture(picture, preparation=preparation)
        elif isinstance(picture, bytes | str | Path):
            opened = decode_picture(Path(picture) if isinstance(picture, str) else picture, preparation=preparation)
            if isinstance(opened, Broken):
                raise DataError(name, expected="a readable picture", got=opened.reason)
            decoded = opened
        elif isinstance(picture, Tensor):
            values, spacing = planes_of_tensor(picture)
            # torch's own layout where the shape leaves it open
            first = values.ndim == 3 and values.shape[0] in {1, 2, 3, 4}
            planes = values if first else _one(values, name)
            return Read(Pixels(planes, spacing), ("row",) if values.ndim == 1 else ())
        else:
            values = np.asarray(picture)
            spacing = float(np.finfo(values.dtype).eps) if values.dtype.kind == "f" else 0.0
            return Read(Pixels(_one(values, name), spacing), ("row",) if values.ndim == 1 else ())
    except BROKEN as error:
        raise DataError(name, expected="a readable picture", got=one_line(error) or type(error).__name__) from None
    planes = decoded.pixels[None] if decoded.pixels.ndim == 2 else decoded.pixels.transpose(2, 0, 1)
    return Read(Pixels(planes, 0.0), decoded.traits, encoded=True)


def _one(values: NDArray[Any], name: str) -> NDArray[Any]:
    if values.dtype.kind not in "biuf" or values.ndim == 0 or 0 in values.shape:
        got = f"{values.dtype} of shape {values.shape}" if values.ndim else describe(values.item())
        raise DataError(name, expected="a picture: of PIL, an array, a tensor or an encoded file", got=got)
    try:
        placed: NDArray[Any] = channels_first(values[None], where=name)[0]
    except DataError as error:
        expected = "a picture (H, W), (H, W, C) or (C, H, W) with 1 to 4 channels"
        hint = ", which could be either" if "either" in error.got else ""
        raise DataError(name, expected=expected, got=f"shape {values.shape}{hint}") from None
    return placed


def plain_label(label: Any) -> Any:
    """A label without its array: a number, text, or a list of numbers for a row."""
    if isinstance(label, Tensor):
        label = label.detach().cpu()
        label = (label.float() if label.dtype == torch.bfloat16 else label).numpy()
    if isinstance(label, np.ndarray | np.generic):
        return label.item() if label.size == 1 else label.tolist()
    return label


def values_of(labels: Sequence[Any], *, where: str, names: Sequence[str] | None = None) -> tuple[Values, int | None]:
    """Labels (N,) of one set, and the number of classes where they are one-hot rows. Raises :class:`DataError`."""
    plain = [plain_label(label) for label in labels]
    if any(isinstance(label, list | tuple) for label in plain):
        lengths = {len(label) if isinstance(label, list | tuple) else 0 for label in plain}
        if len(lengths) > 1:
            raise DataError(where, expected="one label for each image", got="lists of several lengths")
        column, width = one_column(np.array(plain), where=where)
        return read_labels(column, where=where, names=names), width
    for place, label in enumerate(plain):
        if label is None or not isinstance(label, str | bytes | bool | int | float):
            got = "none" if label is None else describe(label)
            raise DataError(f"{where}[{place}]", expected="a class number or a class name", got=got)
        if isinstance(label, str | bytes) != isinstance(plain[0], str | bytes):
            raise DataError(f"{where}[{place}]", expected=f"{type(plain[0]).__name__}, as the first", got=repr(label))
    return read_labels(plain, where=where, names=names), None
