"""Which columns of a Parquet file hold the images, the labels and the splits, and which are kept beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from assay.data.reading import Reading
from assay.data.sources.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    PATH_NAMES,
    SPLIT_NAMES,
    find_named,
    pick,
    refuse_repeated,
)
from assay.errors import DataError


@dataclass(frozen=True)
class Columns:
    """The names of the columns, the type of the images, and the class names where the file has them.

    ``metadata`` are the columns of scalars that stay with the samples, with the names of their numbers where those
    stand for classes; ``unused`` are all others. ``like_label`` could hold the labels as well.
    """

    image: str
    label: str
    split: str | None
    image_type: pa.DataType
    classes: tuple[str, ...] | None
    metadata: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    like_label: str | None = None

    @property
    def agreeing(self) -> tuple[object, ...]:
        """What has to be the same in every file of a set."""
        return (self.image, self.label, self.split, self.classes)


def find_columns(schema: pa.Schema, *, reading: Reading, where: str) -> Columns:
    """Find the columns: those that ``reading`` names; by the ``huggingface`` metadata, by the usual names, as the only
    one that fits.

    Of several candidates the one with the most usual name is taken (``fine_label`` before ``coarse_label``). Where no
    column holds pictures, one of text of a usual name holds the paths to them. Raises :class:`DataError` listing the
    columns when there is none, or several.
    """
    features, all_names = _features(schema), schema.names
    named = {
        option: find_named(all_names, wanted, option=f"--{option.replace('_', '-')}", where=where)
        for option in ("image_column", "label_column", "split_column")
        if (wanted := getattr(reading, option)) is not None
    }
    free = [each for each in schema if each.name not in named.values()]
    image = named.get("image_column") or _find_image(free, features)
    if image is None:
        expected = f"a column of pictures ({', '.join(IMAGE_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    refuse_repeated(all_names, (image, *named.values()), where=where)
    image_type = schema.field(image).type
    if not (holds_pictures(image_type) or holds_paths(image_type)):
        raise DataError(f"{where}:{image}", expected="pictures, or paths to them", got=f"type {image_type}")
    others = [each.name for each in free if each.name != image]
    split = named.get("split_column") or pick(others, SPLIT_NAMES, only_by_name=True)
    rest = [name for name in others if name != split]
    declared = [name for name in rest if features.get(name, {}).get("_type") == "ClassLabel"]
    label = named.get("label_column") or pick(declared, LABEL_NAMES) or pick(rest, LABEL_NAMES,
                                                                            only_by_name=len(rest) > 1)  # fmt: skip
    if label is None:
        expected = f"a column of labels ({', '.join(LABEL_NAMES[:3])}, …)"
        raise DataError(where, expected=expected, got=_listing(schema))
    roles = (image, label) if split is None else (image, label, split)
    refuse_repeated(all_names, roles, where=where)
    left = [name for name in all_names if name not in roles]
    like_label = pick([name for name in left if name in declared] or left, LABEL_NAMES, only_by_name=True)
    metadata = {name: _class_names(features, name) for name in left if all_names.count(name) == 1}
    metadata = {name: names for name, names in metadata.items() if is_scalar(schema.field(name).type)}
    unused = tuple(name for name in left if name not in metadata)
    return Columns(image, label, split, image_type, _class_names(features, label), metadata, unused, like_label)


def _find_image(fields: list[pa.Field], features: Mapping[str, dict[str, Any]]) -> str | None:
    picturelike = [each.name for each in fields if holds_pictures(each.type)]
    declared = [name for name in picturelike if features.get(name, {}).get("_type") == "Image"]
    image = pick(declared, IMAGE_NAMES) or pick(picturelike, IMAGE_NAMES)
    if image is None and not picturelike:
        image = pick([each.name for each in fields if holds_paths(each.type)], PATH_NAMES, only_by_name=True)
    return image


def _class_names(features: Mapping[str, dict[str, Any]], name: str) -> tuple[str, ...] | None:
    names = features.get(name, {}).get("names")
    return tuple(str(each) for each in names) if isinstance(names, list) and len(names) > 1 else None


def holds_paths(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold the paths of pictures, alone or in the field ``path``."""
    if pa.types.is_struct(kind):
        return any(each.name == "path" and holds_paths(each.type) for each in kind)
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_scalar(kind: pa.DataType) -> bool:
    """Whether a cell of this type is one number, text, truth value or time."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_temporal,
             pa.types.is_null, holds_paths)  # fmt: skip
    return not pa.types.is_nested(kind) and any(test(kind) for test in tests)


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
