"""From what a user calls a data set to the set itself."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path

from assay.data.dataset import ImageDataset
from assay.data.reading import SPLIT_WORDS, Reading
from assay.data.sources.paths import FORMATS, find_paths, load_path
from assay.errors import DataError

NAMES = ("digits", "cifar10", "mnist", "fashion-mnist")


def load_dataset(
    spec: str,
    *,
    split: str = "test",
    data_dir: Path | None = None,
    limit: int | None = None,
    max_bad: int = 0,
    image_size: int | None = None,
) -> ImageDataset:
    """Load the ``split`` of the set called ``spec``.

    ``digits``
        built in, needs no network: 1,438 training and 359 test images (1, 32, 32)
    ``cifar10``, ``mnist``, ``fashion-mnist``
        as Parquet or the original files in ``data_dir``, in a folder of $ASSAY_DATA or in the cache, in this order;
        else downloaded into the cache and checked against a SHA-256
    a folder
        of class folders, with ``train/``, ``test/``, ``val/`` above them or not, or with data files in it
    ``*.parquet``, ``*.npz``, IDX files, WebDataset shards ``x-{000..099}.tar``
        one, or several by a pattern or with commas between
    ``hf:owner/name``
        Parquet files of the public hub; needs ``pip install 'assay[hub]'``

    ``split`` is ``train``, ``test`` or ``validation``. A source without splits is used whole and says so: its ``split``
    is ``all``. Where only a validation split is there it stands in for ``test``, under its own name.

    ``limit`` takes the first samples of the split and never decodes the rest. Where a source is laid out class by
    class, as class folders are, they are a fixed spread over the classes instead (:mod:`assay.data.selection`).

    Up to ``max_bad`` broken pictures are left out; ``skipped`` names each, with the reason. ``image_size`` resizes the
    short side and cuts out the centre square; without it, pictures of different sizes are an error.

    Raises :class:`DataError` saying where, expected and got; :class:`assay.errors.OptionError` for an option out of
    range.
    """
    part = SPLIT_WORDS.get(split.lower(), split)
    reading = Reading.parse({"split": part, "limit": limit, "max_bad": max_bad, "image_size": image_size})
    spec = os.fspath(spec)
    name = canonical_name(spec)
    try:
        if name == "digits":
            from assay.data.sources.digits import load_digits

            return load_digits(reading=reading)
        if name is not None:
            from assay.data.sources.published import PUBLISHED, load_published

            return load_published(PUBLISHED[name], data_dir=Path(data_dir) if data_dir else None, reading=reading)
        if spec.startswith("hf:"):
            from assay.data.sources.hub import load_hub

            return load_hub(spec, reading=reading)
        _check_known(spec)
        return load_path(spec, reading=reading)
    except OSError as error:
        place = str(error.filename or spec)
        raise DataError(f"{place:.200}", expected="data that can be read", got=error.strerror or str(error)) from None


def canonical_name(spec: str) -> str | None:
    """The name of a known set, whatever the signs and the case it is written with; None for anything else."""
    plain = re.sub(r"[-_ ]", "", spec.lower())
    return next((name for name in NAMES if name.replace("-", "") == plain), None)


def _check_known(spec: str) -> None:
    """Raise, with all the names there are, for a word that is no path and no name."""
    if not spec.strip():
        raise DataError("data", expected=f"{', '.join(NAMES)}, hf:owner/name, {FORMATS}", got="an empty name")
    looks_like_path = re.search(r"[/\\.*?\[{,~]", spec) is not None
    if looks_like_path or Path(spec).exists():
        find_paths(spec)
        return
    here = [entry.name for entry in Path().iterdir()]
    near = difflib.get_close_matches(spec.lower(), [*NAMES, *here], n=1)
    got = f"{spec!r}; did you mean {near[0]!r}?" if near else repr(spec)
    raise DataError("data", expected=f"{', '.join(NAMES)}, hf:owner/name, {FORMATS}", got=got)
