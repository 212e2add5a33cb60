"""Which column of a table holds the pictures, which the labels, and what the classes are called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from assay.errors import DataError

IMAGE_NAMES = ("img", "image", "images", "picture", "photo", "pixels", "pixel_values", "x", "jpg", "png", "bytes")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category", "cls", "y")


@dataclass(frozen=True)
class Columns:
    """The names of the two columns, the type of the pictures, and the class names where the file tells them."""

    image: str
    label: str
    image_type: pa.DataType
    classes: tuple[str, ...] | None


def find_columns(schema: pa.Schema, *, where: str) -> Columns:
    """Find the columns, in this order: by the ``huggingface`` metadata, by the usual names, as the only one that fits.

    Of several candidates the one with the most usual name is taken (``fine_label`` before ``coarse_label``). Raises
    :class:`DataError` listing the columns when there is none, or no way to tell.
    """
    features = _features(schema)
    picturelike = [field.name for field in schema if holds_pictures(field.type)]
    declared = [name for name in picturelike if features.get(name, {}).get("_type") == "Image"]
    image = _pick(declared, IMAGE_NAMES) or _pick(picturelike, IMAGE_NAMES)
    if image is None:
        expected = f"a column of pictures ({', '.join(IMAGE_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    others = [field.name for field in schema if field.name != image]
    declared = [name for name in others if features.get(name, {}).get("_type") == "ClassLabel"]
    label = _pick(declared, LABEL_NAMES) or _pick(others, LABEL_NAMES, only_by_name=len(others) > 1)
    if label is None:
        expected = f"a column of labels ({', '.join(LABEL_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    names = features.get(label, {}).get("names")
    classes = tuple(str(name) for name in names) if isinstance(names, list) and len(names) > 1 else None
    return Columns(image, label, schema.field(image).type, classes)


def _pick(candidates: Sequence[str], usual: Sequence[str], *, only_by_name: bool = False) -> str | None:
    by_name = {name.lower(): name for name in reversed(candidates)}
    for name in usual:
        if name in by_name:
            return by_name[name]
    return candidates[0] if len(candidates) == 1 and not only_by_name else None


def holds_pictures(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold pictures: encoded files, or lists of pixels."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return True
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return True
    return is_encoded(kind)


def is_encoded(kind: pa.DataType) -> bool:
    """Whether a column of this type holds picture files (PNG, JPEG, …) as bytes."""
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and is_encoded(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The features that the ``huggingface`` metadata declares; none where it is absent or not understood."""
    try:
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(declared, dict):
        return {}
    return {name: feature for name, feature in declared.items() if isinstance(feature, dict)}


def _listing(schema: pa.Schema) -> str:
    return "columns " + ", ".join(f"{field.name} ({field.type})" for field in schema)[:200]
