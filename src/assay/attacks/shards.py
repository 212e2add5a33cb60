"""What each process writes of its shard, where every process reads its own part of the set: which samples it has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.data.dataset import ImageDataset
from assay.data.division import Part
from assay.errors import DataError, one_line
from assay.files import write_atomically
from assay.runtime.store import check_same_identity, fingerprint


def mark(ids: Iterable[int]) -> str:
    """Which samples there are, whatever their order."""
    return fingerprint(ids=sorted(ids))


def claim_shard(folder: Path, dataset: ImageDataset, part: Part, *, blocks: Sequence[int]) -> None:
    """Write which samples the shard has, in which blocks.

    Raises :class:`OptionError` where others were written there before.
    """
    path = _path(folder, part.index)
    samples = {
        "n": len(dataset),
        "left_out": len(dataset.skipped),
        "blocks": list(blocks),
        "ids": mark(dataset.ids.tolist()),
        "samples": fingerprint(dataset=dataset),
    }
    if path.is_file():
        check_same_identity(str(path), _read(path), samples)
    else:
        write_atomically(path, json.dumps(samples, indent=1) + "\n")


def shards_in(folders: Sequence[Path], job: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """What the shards of a campaign wrote, by their number; raises :class:`DataError` for one that is there twice."""
    shards: dict[int, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        for index in range(job["shards"]):
            path = _path(folder, index)
            if path.is_file():
                if index in shards:
                    got = f"in several: {shards[index][0]} and {path}"
                    raise DataError(f"shard {index}", expected="in one folder", got=got)
                shards[index] = (path, _read(path))
    return {index: shard for index, (_, shard) in shards.items()}


def check_complete(
    shards: Mapping[int, Mapping[str, Any]], job: Mapping[str, Any], ids: Mapping[int, list[int]]
) -> None:
    """Raise :class:`DataError` unless every shard is there with all of its samples; ``ids`` are by block."""
    count = job["shards"]
    missing = [index for index in range(count) if index not in shards]
    if missing:
        listed = ", ".join(f"{index}/{count}" for index in missing[:3])
        raise DataError("shards", expected=f"all {count}", got=f"{len(shards)}: without {listed}")
    for index, shard in sorted(shards.items()):
        numbers = shard["blocks"]
        absent = [number for number in numbers if number not in ids]
        if absent:
            got = f"{len(numbers) - len(absent)}: it is unfinished"
            raise DataError(f"shard {index}/{count}", expected=f"{len(numbers)} parts", got=got)
        if mark(identity for number in numbers for identity in ids[number]) != shard["ids"]:
            raise DataError(f"shard {index}/{count}", expected="the samples of the shard", got="others")
    total = sum(shard["n"] + shard["left_out"] for shard in shards.values())
    if total != job["n"]:
        raise DataError("shards", expected=f"{job['n']} samples, with those left out", got=total)


def _path(folder: Path, index: int) -> Path:
    return folder / f"shard-{index:05d}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        shard = dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(str(path), expected="the samples of a shard", got=one_line(error)) from None
    if not {"n", "left_out", "blocks", "ids", "samples"} <= shard.keys():
        raise DataError(str(path), expected="the samples of a shard", got=f"one with {', '.join(shard)}")
    return shard
