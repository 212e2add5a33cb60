"""WebDataset shards: tar archives in which the files of one sample share a name (``0001.png``, ``0001.cls``)."""

from __future__ import annotations

import json
import posixpath
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.data.dataset import ImageDataset
from assay.data.decoding import SUFFIXES
from assay.data.labels import Values, assign_classes, read_labels
from assay.data.metadata import Column, make_column, take
from assay.data.pictures import Encoded, decode_pictures
from assay.data.reading import LeftOut, Reading, decode_text, listing, readable
from assay.data.selection import choose_samples
from assay.data.sources.columns import kept_notes
from assay.errors import DataError

LABEL_ENDINGS = ("cls", "class", "label", "json")
LABEL_KEYS = ("label", "cls", "class", "class_id", "target")
NAMES_FILES = ("classnames.txt", "classes.txt")
LONGEST_LABEL = 1 << 20  # bytes


@dataclass
class _ShardSample:
    """``pictures`` and ``labels`` are by their endings, such as ``jpg`` and ``mask.png``.

    ``fields`` are those of its JSON, without the one that is its label.
    """

    shard: Path
    key: str
    pictures: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    labels: dict[str, str | None] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    picture: tarfile.TarInfo | None = None

    @property
    def label(self) -> str | None:
        """The label, in the order of :data:`LABEL_ENDINGS`; one with a plain ending before all others."""
        ranked = sorted(self.labels, key=lambda ending: ("." in ending, LABEL_ENDINGS.index(ending.split(".")[-1])))
        return next((self.labels[ending] for ending in ranked if self.labels[ending] is not None), None)


def load_webdataset(
    shards: Sequence[Path], *, name: str, split: str, reading: Reading, others: Sequence[Path] = ()
) -> ImageDataset:
    """Read shards one after the other; nothing is ever unpacked to disk.

    A sample is the files of a shard whose names agree up to the first dot: an image (``png``, ``jpg``, …) and a label
    (``cls``, ``label``, ``class``, or ``json`` with such a key), a class number or a class name. Of several images, as
    of a photograph and its mask, the one whose ending has no further dot is taken (``0001.jpg``, not
    ``0001.mask.png``). Class names come from a ``classnames.txt`` or ``classes.txt`` beside the shards or one folder
    up, one a line; else from all labels, those of ``others``, the set's other splits, among them. An id is the sample's
    place in the shards.

    Raises :class:`DataError` for damaged or truncated archives, for samples without a label, and for those of which
    several images could be meant.
    """
    left_out = LeftOut()
    samples = [sample for shard in shards for sample in _scan(shard, left_out, label=reading.label_column)]
    if not samples:
        raise DataError(str(shards[0]), expected="samples with a picture and a label", got="none")
    _choose_pictures(samples, left_out, wanted=reading.image_column)
    where, names = f"{name} (labels)", _class_names(shards[0])
    stored = _labels_of(samples, where=where, names=names)
    more = [list(_scan(shard, LeftOut(), label=reading.label_column)) for shard in others if not names]
    stored_of_others = [_labels_of(found, where=f"{name} (labels of other splits)", names=None) for found in more]
    labels, classes, of_labels = assign_classes(stored, names=names, where=where, others=stored_of_others)
    chosen = choose_samples(labels.numpy(), limit=reading.limit, only=reading.only, divide=reading.divide)
    rows = np.sort(chosen)
    pictures = _read([samples[row] for row in rows.tolist()])
    limited = choose_samples(labels.numpy(), limit=reading.limit)
    everything = partial(_read, [samples[row] for row in np.sort(limited).tolist()])
    decoded = decode_pictures(pictures, count=len(rows), reading=reading, where=name, everything=everything)
    ids = torch.from_numpy(rows)[decoded.indices]
    repeated = [key for key, times in Counter(sample.key for sample in samples).items() if times > 1]
    notes = left_out.notes(name)
    if repeated:
        notes += [f"{name}: {len(repeated):,} keys are in several shards, each a sample: {listing(repeated)}"]
    drawn = [samples[row] for row in ids.tolist()]
    keys = tuple(f"{sample.shard.name}:{sample.key}" if repeated else sample.key for sample in drawn)
    metadata, of_metadata = _metadata(samples, where=name)
    all_notes = (*notes, *of_metadata, *of_labels, *decoded.notes)
    dataset = ImageDataset(
        decoded.images, labels[ids], classes, name, split, ids, keys, decoded.skipped, all_notes,
        metadata=take(metadata, ids.numpy()),
    )  # fmt: skip
    return dataset if np.array_equal(rows, chosen) else dataset.arranged(torch.from_numpy(chosen))


def _metadata(samples: Sequence[_ShardSample], *, where: str) -> tuple[dict[str, Column], list[str]]:
    """The fields of their JSON as columns, and notes on those that are kept and those that are not."""
    names = dict.fromkeys(name for sample in samples for name in sample.fields)
    columns = {name: make_column([sample.fields.get(name) for sample in samples]) for name in names}
    metadata = {name: column for name, column in columns.items() if column is not None}
    return metadata, kept_notes(list(metadata), [name for name in names if name not in metadata], where=where)


def _labels_of(samples: Sequence[_ShardSample], *, where: str, names: tuple[str, ...] | None) -> Values:
    without = [sample for sample in samples if sample.label is None]
    if without:
        more = f" (nor have {len(without) - 1:,} more)" if len(without) > 1 else ""
        expected = f"a label ({', '.join(LABEL_ENDINGS)})"
        raise DataError(f"{without[0].shard}:{without[0].key}", expected=expected, got=f"none{more}")
    return read_labels([sample.label for sample in samples], where=where, names=names)


def _choose_pictures(samples: Sequence[_ShardSample], left_out: LeftOut, *, wanted: str | None) -> None:
    """The one picture of each sample: that of the ``wanted`` ending; else with a plain ending where any sample has one,
    as beside masks; else the only one.

    Raises :class:`DataError` naming the pictures of a sample of which several could be meant.
    """
    if wanted is not None and not any(wanted in sample.pictures for sample in samples):
        present = listing(list(dict.fromkeys(ending for sample in samples for ending in sample.pictures)))
        raise DataError("--image-column", expected=f"an ending of the pictures ({present})", got=wanted)
    plain = any("." not in ending for sample in samples for ending in sample.pictures)
    for sample in samples:
        endings = [ending for ending in sample.pictures if not plain or "." not in ending]
        endings = endings if wanted is None else [ending for ending in sample.pictures if ending == wanted]
        if len(endings) > 1:
            got = " and ".join(f"{posixpath.basename(sample.key)}.{ending}" for ending in endings[:3])
            got += f" (--image-column {endings[0]} takes the pictures of that ending)"
            raise DataError(f"{sample.shard}:{sample.key}", expected="one picture a sample", got=got)
        sample.picture = sample.pictures[endings[0]] if endings else None
        for ending in sample.pictures:
            if ending not in endings:
                left_out.add("further pictures", f"{sample.key}.{ending}")


@contextmanager
def _opened(shard: Path) -> Iterator[tarfile.TarFile]:
    with readable(shard, "a readable tar archive"), tarfile.open(shard, "r:*") as archive:
        yield archive


def _scan(shard: Path, left_out: LeftOut, *, label: str | None) -> list[_ShardSample]:
    """The samples of one shard, in order, with their labels read and their images only located."""
    samples: dict[str, _ShardSample] = {}
    with _opened(shard) as archive:
        for member in archive:
            folder, base = posixpath.split(member.name)
            stem, _, endings = base.lower().partition(".")
            if member.isdir():
                continue
            if not stem or "__MACOSX" in folder.split("/"):
                left_out.add("hidden", member.name)
                continue
            ending = endings.rpartition(".")[2]
            if reason := _unread(member, ending=ending, label=label):
                left_out.add(reason, member.name)
            else:
                key = posixpath.join(folder, base[: len(stem)])
                sample = samples.setdefault(key, _ShardSample(shard, key))
                if endings in sample.pictures or endings in sample.labels:
                    raise DataError(f"{shard}:{key}", expected=f"one .{endings} a sample", got="several")
                if f".{ending}" in SUFFIXES:
                    sample.pictures[endings] = member
                else:
                    _read_label(archive, member, sample, endings=endings, label=label)
        _check_end(archive)
    # Files without image and label, such as a note on the shard, are no samples.
    for key, sample in list(samples.items()):
        if not sample.pictures and sample.label is None:
            left_out.add("neither picture nor label", f"{key}.{next(iter(sample.labels))}")
            del samples[key]
    return list(samples.values())


def _unread(member: tarfile.TarInfo, *, ending: str, label: str | None) -> str | None:
    """Why a member is neither the picture nor the label of a sample; None for one that is."""
    if not member.isfile():
        return "links"
    if f".{ending}" not in SUFFIXES and ending not in LABEL_ENDINGS:
        return "neither picture nor label"
    if ending in LABEL_ENDINGS and member.size > LONGEST_LABEL:
        return "too long for a label"
    beside = label is not None and ending in LABEL_ENDINGS[:-1]
    return "with labels beside those of the named field" if beside else None


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member, read in one piece: a file object for each of many small ones takes longer than they do."""
    if member.issparse():
        file = archive.extractfile(member)
        return file.read() if file else b""
    assert archive.fileobj is not None
    archive.fileobj.seek(member.offset_data)
    content = archive.fileobj.read(member.size)
    if len(content) < member.size:
        raise tarfile.ReadError("unexpected end of data")
    return content


def _read_label(
    archive: tarfile.TarFile, member: tarfile.TarInfo, sample: _ShardSample, *, endings: str, label: str | None
) -> None:
    text = decode_text(_content(archive, member), where=f"{sample.shard}:{member.name}").strip()
    if endings.rpartition(".")[2] != "json":
        sample.labels[endings] = text or None
        return
    sample.labels[endings], fields = _parse_fields(text, label=label)
    sample.fields |= fields


def _check_end(archive: tarfile.TarFile) -> None:
    """Where tarfile stops there must be the block of zeros that ends an archive; else the archive is truncated."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    block = archive.fileobj.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise tarfile.ReadError("no end-of-archive mark: the file is truncated or damaged")


def _parse_fields(text: str, *, label: str | None) -> tuple[str | None, dict[str, Any]]:
    """The label in JSON, in the field ``label`` or one of the usual names, and all other fields."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, {}
    fields = value if isinstance(value, dict) else {}
    if isinstance(value, dict):
        used = label if label is not None else next((key for key in LABEL_KEYS if key in value), None)
        fields = {name: each for name, each in fields.items() if name != used}
        value = None if used is None else value.get(used)
    return None if value is None or isinstance(value, dict | list) else str(value), fields


def _class_names(shard: Path) -> tuple[str, ...] | None:
    for folder in (shard.parent, shard.parent.parent):
        for file in (folder / name for name in NAMES_FILES):
            if file.is_file():
                text = decode_text(file.read_bytes(), where=str(file)).rstrip()
                lines = [line.strip() for line in text.split("\n")]
                if "" in lines and len(lines) > 1:
                    got = f"an empty line {lines.index('') + 1}"
                    raise DataError(str(file), expected="the name of a class in every line", got=got)
                return tuple(lines) if text else None
    return None


def _read(samples: list[_ShardSample]) -> Iterator[Encoded]:
    """Their images; each shard is opened once."""
    for shard, inside in groupby(samples, key=lambda sample: sample.shard):
        with _opened(shard) as archive:
            for sample in inside:
                content = _content(archive, sample.picture) if sample.picture else None
                yield Encoded(f"{shard.name}:{sample.key}", content)
