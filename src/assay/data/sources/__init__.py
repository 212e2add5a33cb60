"""From the name of a data set to its samples: :func:`load_dataset`, over a table of sources and one of file formats.

To add a file format, write a module with its reader in this folder, a row in :data:`FILE_FORMATS`, and a test. Readers
are imported when they are first used, so that pyarrow is not loaded for a folder of images.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from assay.arguments import checked
from assay.data.dataset import ImageDataset
from assay.data.decoding import SUFFIXES
from assay.data.division import Division, WholeNeededError
from assay.data.reading import SPLIT_WORDS, TABLE_OPTIONS, Reading
from assay.errors import DataError, UnusedOptionError
from assay.records.preparation import Preparation
from assay.runtime.sharding import Shard

NAMES = ("digits", "cifar10", "mnist", "fashion-mnist")


@dataclass(frozen=True)
class Source:
    """How data is named (in messages), for which specs that applies, and ``module:function`` of a loader.

    It takes ``(spec, *, reading)`` and returns an :class:`ImageDataset`. ``takes`` names the options of tables that
    have an effect; None leaves that to the format of the files.
    """

    spelling: str
    applies: Callable[[str], bool]
    loader: str
    takes: tuple[str, ...] | None = ()


@dataclass(frozen=True)
class FileFormat:
    """A format of data files: what it is called in messages, which file names are of it, and ``module:function``.

    A reader of single files takes ``(files, *, name, split, reading, others)``: the files of one split in order, and
    those of the same set's other splits. One that takes a ``folder`` is called with ``(path, *, name, reading)``, a
    folder with such files or one of them, and finds the split itself. ``takes`` names the options of tables
    that have an effect.
    """

    name: str
    description: str
    file_names: str  # a regular expression, searched for whatever the case
    reader: str
    takes_folder: bool = False
    takes: tuple[str, ...] = ()

    def matches(self, file_name: str) -> bool:
        return re.search(self.file_names, file_name, re.IGNORECASE) is not None


CLASS_FOLDERS = FileFormat(
    "folder",
    "a folder of class folders",
    rf"({'|'.join(map(re.escape, sorted(SUFFIXES)))})$",
    "folder:load_folder",
    takes_folder=True,
)
MANIFEST = FileFormat(
    "manifest",
    "tables of paths and labels (*.csv, *.tsv, *.jsonl)",
    r"\.(csv|tsv|jsonl|ndjson)(\.gz)?$",
    "manifest:load_manifest",
    takes=TABLE_OPTIONS,
)
# In the order in which they are looked for: in a folder with files of several formats the first one is read.
FILE_FORMATS = (
    FileFormat("parquet", "*.parquet", r"\.(parquet|pq)$", "parquet:load_parquet", takes=TABLE_OPTIONS),
    FileFormat(
        "cifar",
        "CIFAR-10 batches",
        r"^(cifar-10-(binary|python)\.tar\.gz|(data_batch_[1-5]|test_batch)(\.bin)?)$",
        "cifar:load_cifar",
        takes_folder=True,
    ),
    FileFormat(
        "idx",
        "IDX files",
        r"^(?!\.).*([-._]idx\d([-._][a-z]+\d*)?|\.idx)(\.gz)?$",  # such as t10k-images-idx3-ubyte.gz
        "idx:load_idx",
        takes_folder=True,
    ),
    FileFormat(
        "webdataset",
        "WebDataset shards x-{000..099}.tar",
        r"\.(tar(\.gz)?|tgz)$",
        "webdataset:load_webdataset",
        takes=("image_column", "label_column"),
    ),
    FileFormat("npz", "*.npz", r"\.npz$", "npz:load_npz", takes=("image_column", "label_column")),
    MANIFEST,
    CLASS_FOLDERS,
)
# In the order in which they are tried; the last one takes everything else.
SOURCES = (
    Source("digits", lambda spec: canonical_name(spec) == "digits", "digits:load_digits"),
    Source("cifar10, mnist, fashion-mnist", lambda spec: canonical_name(spec) is not None, "published:load_named"),
    Source("hf:owner/name", lambda spec: spec.startswith("hf:"), "hub:load_hub", TABLE_OPTIONS[:3]),
    Source(", ".join(each.description for each in reversed(FILE_FORMATS)), lambda _: True, "paths:load_path", None),
)


@checked
def load_dataset(
    spec: str | os.PathLike[str],
    *,
    split: str = "test",
    data_dir: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    max_bad: int = 0,
    image_size: int | None = None,
    prepare: str | Preparation | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    root: str | os.PathLike[str] | None = None,
    shard: tuple[int, int] | Shard | None = None,
) -> ImageDataset:
    """Load one split of a set of labelled images.

    Args:
        spec: What to load.

            ==============================================  =====================================================
            ``digits``                                      built in: 1,438 training, 359 test images (1, 32, 32)
            ``cifar10``, ``mnist``, ``fashion-mnist``       looked for in ``data_dir``, the folders in $ASSAY_DATA
                                                            and the cache, in this order; else downloaded into
                                                            the cache and checked against a SHA-256
            a folder                                        of class folders, below ``train/``, ``test/``,
                                                            ``val/`` or not, or with data files in it
            ``*.parquet``, ``*.npz``, IDX files,            one, or several by a pattern or with commas between
            CIFAR-10 batches, shards ``x-{000..099}.tar``
            ``*.csv``, ``*.tsv``, ``*.jsonl``               tables with a column of paths and one of labels, which are
                                                            known by the usual names, or named as below
            ``hf:owner/name``                               Parquet files of the public hub; needs
                                                            ``pip install 'assay[hub]'``
            ==============================================  =====================================================
        split: ``train``, ``test`` or ``validation``. A source without splits is used entirely, and the ``split`` of the
            result is then ``all``. Where only a validation split exists it takes the place of ``test``, under its own
            name.
        data_dir: a folder in which published sets are looked for first.
        limit: at most this many samples, the first of the split; the rest is never decoded. Where a source is laid out
            class by class, as class folders are, they are a fixed spread over the classes instead.
        max_bad: broken images to leave out before giving up; the ``skipped`` of the result names them.
        image_size: resize the short side to this many pixels and cut out the centre square; without it, images of
            different sizes are an error.
        prepare: where no ``image_size`` is given, how pictures are resized and cropped: a :class:`Preparation`, such as
            that of :func:`open_model`, or a text such as ``"resize=256:bicubic,crop=224"``. Its mean and standard
            deviation are for the model.
        image_column: the column of the pictures, or of the paths to them, in a table where the usual names do not tell;
            the array of an ``.npz``.
        label_column: the column of the labels, likewise.
        split_column: the column that names the split of each row, likewise.
        root: the folder that paths in a table start from. Default: that of the table.
        shard: ``(i, n)`` with i from 0 decodes only the i-th of n shards of the samples. Classes and ids are those of
            the whole set, and every sample is in one of the shards. ``max_bad`` counts for each.

    Returns:
        The samples, as bytes in memory (a set too large for that lies in a temporary file). Its ``notes`` tell what was
        left out or guessed: files that are no pictures, a scale of pixels, labels that count from 1.

    Raises:
        DataError: nothing is there, or it cannot be read; the message says where, what was expected and what is there.
        OptionError: an option out of its range, or without an effect on this source.
        DependencyError: ``hf:`` without the client of the hub.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", split="train", limit=64)
        >>> len(data), data.shape, data.classes[:3]
        (64, (1, 32, 32), ('0', '1', '2'))
    """
    part, folder = SPLIT_WORDS.get(split.lower(), split), None if data_dir is None else Path(data_dir)
    prepared = Preparation.parse(prepare, where="prepare") if isinstance(prepare, str) else prepare
    options = {"split": part, "data_dir": folder, "limit": limit, "max_bad": max_bad, "image_size": image_size}
    options |= {"image_column": image_column, "label_column": label_column, "split_column": split_column}
    options |= {"root": None if root is None else Path(root)}
    reading = Reading.parse(options).model_copy(update={"prepare": prepared})
    return _read(os.fspath(spec), reading, Shard(*shard) if isinstance(shard, tuple) else shard)


def _read(spec: str, reading: Reading, shard: Shard | None) -> ImageDataset:
    """The samples of ``spec``, which can be read again with another preparation."""
    division = None if shard is None else Division(shard)
    reading = reading.model_copy(update={"divide": division})
    source = next(source for source in SOURCES if source.applies(spec))
    if source.takes is not None:
        reading.refuse_unused(source.takes, source=spec)
    try:
        dataset: ImageDataset
        reads_all = False
        try:
            dataset = import_function(source.loader)(spec, reading=reading)
        except WholeNeededError:
            assert division is not None
            everything: ImageDataset = import_function(source.loader)(spec, reading=_whole(reading))
            note = f"{spec}: every shard reads all pixels, since their scale follows from all of them"
            own = everything.arranged(torch.from_numpy(division.own))
            dataset, reads_all = replace(own, notes=(*everything.notes, note)), True
        again = partial(_read_again, spec, reading)  # reads any samples of the whole set
        part = None if division is None else division.part
        if division is not None:
            if part is None:
                raise UnusedOptionError("shard", reason=f"{spec} is not read in shards")
            part = replace(part, pictures=division.pictures, reads_all=reads_all)
        return replace(dataset, preparation=reading.preparation, read_again=again, part=part)
    except OSError as error:
        place = str(error.filename or spec)
        raise DataError(f"{place:.200}", expected="data that can be read", got=error.strerror or str(error)) from None


def _whole(reading: Reading) -> Reading:
    return reading.model_copy(update={"divide": None})


def _read_again(spec: str, reading: Reading, preparation: Preparation, ids: Tensor) -> ImageDataset:
    """The samples with these ids of what ``reading`` led to, in their order, in another preparation."""
    changed = {"image_size": None, "prepare": preparation, "divide": None, "only": frozenset(ids.tolist())}
    return _read(spec, reading.model_copy(update=changed), None).arranged(ids)


def import_function(path: str) -> Callable[..., Any]:
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)  # type: ignore[no-any-return]


def format_of(file_name: str) -> FileFormat | None:
    """The format of a file by its name; None for a file that holds no data."""
    return next((each for each in FILE_FORMATS if each.matches(file_name)), None)


def canonical_name(spec: str) -> str | None:
    """The name of a known set, whatever the punctuation and case it is written with; None for anything else."""
    plain = re.sub(r"[-_ ]", "", spec.lower())
    return next((name for name in NAMES if name.replace("-", "") == plain), None)
