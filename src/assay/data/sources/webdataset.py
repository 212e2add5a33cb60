"""WebDataset shards: tar archives in which the files of one sample share a name (``0001.png``, ``0001.cls``)."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from assay.data.dataset import ImageDataset
from assay.data.labels import derive_classes, number_labels, read_labels
from assay.data.pictures import SUFFIXES, Encoded, decode_pictures
from assay.data.reading import Reading, readable
from assay.data.selection import choose_samples
from assay.errors import DataError

LABEL_ENDINGS = ("cls", "class", "label", "json")
LABEL_KEYS = ("label", "cls", "class", "class_id", "target")
NAMES_FILES = ("classnames.txt", "classes.txt")
LONGEST_LABEL = 1 << 20  # bytes


@dataclass
class _ShardSample:
    shard: Path
    key: str
    picture: tarfile.TarInfo | None = None
    label: str | None = None


def load_webdataset(
    shards: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read shards one after the other; nothing is ever unpacked to disk.

    A sample is a run of files whose names agree up to the first dot: an image (``png``, ``jpg``, …) and a label
    (``cls``, ``label``, ``class``, or ``json`` with such a key), a class number or a class name. Class names come from
    a ``classnames.txt`` or ``classes.txt`` beside the shards or one folder up, one a line; else from all labels. An id
    is the sample's place in the shards.

    Raises :class:`DataError` for damaged or truncated archives and for samples without a label.
    """
    samples = [sample for shard in shards for sample in _scan(shard)]
    if not samples:
        raise DataError(str(shards[0]), expected="samples with a picture and a label", got="none")
    for sample in samples:
        if sample.label is None:
            expected = f"a label ({', '.join(LABEL_ENDINGS)})"
            raise DataError(f"{sample.shard}:{sample.key}", expected=expected, got="none")
    where = f"{name} (labels)"
    stored = read_labels([sample.label for sample in samples], where=where)
    classes = _class_names(shards[0]) or derive_classes(stored, where=where)
    labels = number_labels(stored, classes=classes, where=where)
    chosen = choose_samples(labels.numpy(), limit=reading.limit)
    rows = np.sort(chosen)
    pictures = _read([samples[row] for row in rows.tolist()])
    decoded = decode_pictures(pictures, count=len(rows), reading=reading, where=name)
    ids = torch.from_numpy(rows)[decoded.indices]
    keys = tuple(samples[row].key for row in ids.tolist())
    dataset = ImageDataset(decoded.images, labels[ids], classes, name, split, ids, keys, decoded.skipped)
    return dataset if np.array_equal(rows, chosen) else dataset.arranged(torch.from_numpy(chosen))


@contextmanager
def _opened(shard: Path) -> Iterator[tarfile.TarFile]:
    with readable(shard, "a readable tar archive"), tarfile.open(shard, "r:*") as archive:
        yield archive


def _scan(shard: Path) -> list[_ShardSample]:
    """The samples of one shard, in order, with their labels read and their images only located."""
    samples: list[_ShardSample] = []
    with _opened(shard) as archive:
        for member in archive:
            if not member.isfile():
                continue
            folder, base = posixpath.split(member.name)
            stem, _, endings = base.partition(".")
            if not stem:
                continue
            key = posixpath.join(folder, stem)
            if not samples or samples[-1].key != key:
                samples.append(_ShardSample(shard, key))
            ending = endings.lower().rpartition(".")[2]
            if f".{ending}" in SUFFIXES:
                samples[-1].picture = member
            elif ending in LABEL_ENDINGS and samples[-1].label is None and member.size <= LONGEST_LABEL:
                file = archive.extractfile(member)
                samples[-1].label = _parse_label(file.read() if file else b"", is_json=ending == "json")
        _check_end(archive)
    # Files without image and label, such as a note on the shard, are no samples.
    return [sample for sample in samples if sample.picture is not None or sample.label is not None]


def _check_end(archive: tarfile.TarFile) -> None:
    """Where tarfile stops there must be the block of zeros that ends an archive; else the archive is truncated."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError("no end-of-archive mark: the file is truncated or damaged")


def _parse_label(content: bytes, *, is_json: bool) -> str | None:
    text = content.decode("utf-8", "replace").strip()
    if not is_json:
        return text or None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        value = next((value[key] for key in LABEL_KEYS if key in value), None)
    return None if value is None or isinstance(value, dict | list) else str(value)


def _class_names(shard: Path) -> tuple[str, ...] | None:
    for folder in (shard.parent, shard.parent.parent):
        for file in NAMES_FILES:
            if (folder / file).is_file():
                lines = (folder / file).read_text(encoding="utf-8", errors="replace").splitlines()
                return tuple(line.strip() for line in lines if line.strip())
    return None


def _read(samples: list[_ShardSample]) -> Iterator[Encoded]:
    """Their images; each shard is opened once."""
    for shard, inside in groupby(samples, key=lambda sample: sample.shard):
        with _opened(shard) as archive:
            for sample in inside:
                file = archive.extractfile(sample.picture) if sample.picture else None
                yield Encoded(f"{shard.name}:{sample.key}", file.read() if file else None)
