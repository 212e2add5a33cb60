"""The columns of a table: which holds the pictures, which the labels and which the split, by their usual names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from assay.data.reading import listing
from assay.errors import DataError

IMAGE_NAMES = ("img", "image", "images", "picture", "photo", "pixels", "pixel_values", "x", "jpg", "png", "bytes")
LABEL_NAMES = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category", "cls", "y")
SPLIT_NAMES = ("split", "subset", "partition", "set", "data_set", "dataset", "phase", "usage")
_OF_PATHS = "path file_name filename filepath file_path file image_path img_path image_file image_filename image_name"
PATH_NAMES = (*_OF_PATHS.split(), *IMAGE_NAMES)
MORE_LABEL_NAMES = (*LABEL_NAMES, "class_name", "label_name", "classname", "species", "diagnosis")


def plain(name: str) -> str:
    """A name without case, spaces and hyphens: ``Image Path`` is ``image_path``."""
    return "_".join(name.strip().lower().replace("-", " ").split())


def pick(candidates: Sequence[str], usual: Sequence[str], *, only_by_name: bool = False) -> str | None:
    """The candidate of the most usual name; failing that the only one, unless ``only_by_name``."""
    by_name = {plain(name): name for name in reversed(candidates)}
    only = candidates[0] if len(candidates) == 1 and not only_by_name else None
    return next((by_name[name] for name in usual if name in by_name), only)


def find_named(columns: Sequence[str], name: str, *, option: str, where: str) -> str:
    """The column that an option names, whatever its case. Raises :class:`DataError` where there is none."""
    if name in columns:
        return name
    alike = [column for column in columns if plain(column) == plain(name)]
    if len(alike) != 1:
        raise DataError(where, expected=f"the column {name!r} of {option}", got=f"columns {listing(columns, most=12)}")
    return alike[0]


def refuse_repeated(columns: Sequence[str], used: Sequence[str], *, where: str) -> None:
    """Raise :class:`DataError` where a column that is used is there twice."""
    times = Counter(columns)
    for name in used:
        if times[name] > 1:
            raise DataError(where, expected="columns of different names", got=f"{times[name]} called {name!r}")
