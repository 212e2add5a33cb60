"""A long attack in blocks: every sample's result is written as it comes, and an interrupted run can be resumed.

Blocks are independent, so several processes or machines may divide them without communication, and
:func:`merge_campaign` merges the parts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from assay.attacks.batch import predictions
from assay.attacks.engine import OnStep
from assay.attacks.engine import attack as run_attack
from assay.attacks.measure import attack_fields, attack_inputs, count_correct_after_rounding
from assay.attacks.methods import find_attack
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.attacks.shards import check_complete, claim_shard, mark, shards_in
from assay.attacks.threat import Threat
from assay.data.dataset import ImageDataset
from assay.data.division import Part
from assay.errors import DataError, OptionError, one_line
from assay.files import exclusive, make_folder, write_atomically
from assay.records.attack import Norm, Precision, RobustAccuracy
from assay.runtime import generator
from assay.runtime.sharding import ORDER, BlockShard, Shard, blocks_in
from assay.runtime.store import IDENTITY, ResumableStore, check_same_identity, fingerprint, read_identity

_SUMS = ("forwards", "backwards", "outside_ball", "unconfirmed", "right_after_rounding", "seconds")
_PRECISION = "precision"
_SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("label", pa.int64()),
        ("clean_prediction", pa.int64()),
        ("prediction", pa.int64()),
        ("robust", pa.bool_()),
        ("attack", pa.string()),
        ("steps", pa.int64()),
        ("distance", pa.float64()),
        ("losses", pa.list_(pa.float32())),
        ("right", pa.list_(pa.bool_())),
    ]
)


def write_part(path: Path, part: ImageDataset, result: AttackResult, *, correct_after_rounding: int) -> None:
    """The rows of one block, whole or not at all."""
    trace, untraced = result.trace, [None] * len(part)
    table = pa.table(
        {
            "id": part.ids.tolist(),
            "label": part.labels.tolist(),
            "clean_prediction": predictions(result.clean_logits).tolist(),
            "prediction": predictions(result.logits).tolist(),
            "robust": result.robust.tolist(),
            "attack": [result.methods[i] if i >= 0 else None for i in result.broken_by.tolist()],
            "steps": [step if step >= 0 else None for step in result.steps.tolist()],
            "distance": [d if d < float("inf") else None for d in result.distances.tolist()],
            "losses": untraced if trace is None else trace.losses.float().cpu().tolist(),
            "right": untraced if trace is None else trace.correct.cpu().tolist(),
        },
        schema=_SCHEMA,
    )
    sums = {**vars(result.counts), "right_after_rounding": correct_after_rounding, "seconds": result.seconds}
    metadata = {key: str(sums[key]) for key in _SUMS} | {_PRECISION: result.precision}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_part(path: Path) -> pa.Table:
    """A part as it was written; :class:`DataError` for a file that is none."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(str(path), expected="a Parquet part of a campaign", got=one_line(error)) from None
    metadata = table.schema.metadata or {}
    if not table.schema.remove_metadata().equals(_SCHEMA) or any(key.encode() not in metadata for key in _SUMS):
        raise DataError(str(path), expected="a Parquet part of a campaign", got=f"columns {table.schema.names}")
    if any(table[name].null_count for name in ("id", "label", "clean_prediction", "prediction", "robust")):
        raise DataError(str(path), expected="a result for every sample", got="rows without one")
    rows = zip(*(table[name].to_pylist() for name in ("id", "label", "clean_prediction", "robust")), strict=True)
    if impossible := [i for i, label, clean, robust in rows if robust and clean != label]:
        raise DataError(f"{path}: sample {impossible[0]}", expected="right before, if it is robust", got="wrong before")
    return table


def column(parts: Sequence[pa.Table], name: str) -> list[Any]:
    return [value for part in parts for value in part[name].to_pylist()]


def summarize_parts(parts: Sequence[pa.Table], options: AttackOptions, threat: Threat, *, seed: int) -> RobustAccuracy:
    """Count the parts into the record that one run over all of their samples makes."""
    sums = {key: sum(float(part.schema.metadata[key.encode()]) for part in parts) for key in _SUMS}
    bfloat16 = any(part.schema.metadata.get(_PRECISION.encode()) == b"bfloat16" for part in parts)
    robust = column(parts, "robust")
    clean = [a == b for a, b in zip(column(parts, "label"), column(parts, "clean_prediction"), strict=True)]
    broken = [c and not r for c, r in zip(clean, robust, strict=True)]
    distances = [d for d, b in zip(column(parts, "distance"), broken, strict=True) if b and d is not None]
    n = len(robust)
    return RobustAccuracy.of(
        sum(robust),
        n,
        **attack_fields(options, threat, seed=seed),
        clean_correct=sum(clean),
        loss_per_step=_mean_per_step(parts, "losses"),
        accuracy_per_step=_mean_per_step(parts, "right"),
        outside_ball=int(sums["outside_ball"]),
        unconfirmed=int(sums["unconfirmed"]),
        correct_after_rounding=int(sums["right_after_rounding"]),
        mean_distance=math.fsum(distances) / len(distances) if distances else 0.0,
        forward_equivalents=(sums["forwards"] + sums["backwards"]) / n,
        precision="bfloat16" if bfloat16 else "float32",
        seconds=sums["seconds"],
    )


def _mean_per_step(parts: Sequence[pa.Table], name: str) -> tuple[float, ...]:
    rows = [row for row in column(parts, name) if row is not None]
    return tuple(math.fsum(values) / len(rows) for values in zip(*rows, strict=True))  # exact, whatever the order


def confidence_sequence(successes: int, n: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of a proportion after ``n`` samples that covers it at every n at once, with ``confidence``.

    {p : ∫ q^s(1−q)^f dq < p^s(1−p)^f / α}, s successes and f failures, q uniform: the ratio of the mixture to the
    truth is a martingale of mean 1, so by Ville's inequality it ever exceeds 1/α with probability at most α. A Wilson
    interval is valid at one n chosen beforehand; stopping when it happens to be narrow breaks it.

    Reference: Robbins 1970, *Statistical methods related to the law of the iterated logarithm*; Howard et al. 2021.
    """
    if n == 0:
        return (0.0, 1.0)
    failures = n - successes
    log_mixture = math.lgamma(successes + 1) + math.lgamma(failures + 1) - math.lgamma(n + 2)
    limit = log_mixture + math.log(1 - confidence)

    def likelihood(p: float) -> float:
        ones = successes * math.log(p) if successes else 0.0
        return ones + (failures * math.log1p(-p) if failures else 0.0)

    def edge(outside: float) -> float:
        """Where the log-likelihood crosses ``limit`` between ``outside`` and its peak, by bisection."""
        inside = successes / n
        for _ in range(60):
            middle = 0.5 * (outside + inside)
            inside, outside = (middle, outside) if likelihood(middle) > limit else (inside, middle)
        return outside

    return (edge(0.0), edge(1.0))


@dataclass(frozen=True)
class Campaign:
    """``record`` over the samples attacked, and their ``table``."""

    record: RobustAccuracy
    table: pa.Table  # one row a sample
    low: float  # valid, as ``high`` is, although the run may have stopped because they were close
    high: float
    stopped: bool  # before the last sample


def run_campaign(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    folder: Path,
    attack: str | AttackOptions = "standard",
    norm: Norm = "linf",
    epsilon: float = 8 / 255,
    seed: int = 0,
    block: int = 500,
    batch_size: int = 256,
    eot_samples: int = 1,
    precision: Precision | str = "auto",
    stop_at: float | None = None,
    resume: bool = False,
    shard: Shard | None = None,
    on_step: OnStep | None = None,
) -> Campaign:
    """Attack ``dataset`` block by block in an order drawn from ``seed``; each block is a Parquet part in ``folder``.

    Columns: ``id``, ``label``, ``clean_prediction``, ``prediction`` (after the attack), ``robust``, ``attack`` (the
    method that broke it), ``steps``, ``distance`` (of the nearest image found; null without one), ``losses`` and
    ``right`` (after each step of the first method). ``stop_at`` ends the run when half the width of the 95 %
    confidence sequence of the robust accuracy is at most that. ``resume`` goes on with the parts of a run that was
    interrupted; the same record comes out, as a sample's random numbers are its own. A ``shard`` does its own blocks
    only, in a folder of its own or one shared with the others. A ``dataset`` that was read as a shard is attacked
    whole, as one shard of the campaign.

    Raises :class:`OptionError` when ``folder`` holds parts and ``resume`` is not set, or parts of another campaign,
    and :class:`OutputError` when another process writes there.
    """
    options = find_attack(attack)
    if stop_at is not None and not 0 < stop_at < 0.5:
        raise OptionError("stop_at", expected="a half-width between 0 and 0.5", got=stop_at)
    if stop_at is not None and shard is not None:
        raise OptionError("stop_at", expected="a run without shards, as it needs every result", got=stop_at)
    threat = Threat(norm=norm, epsilon=epsilon, constrained=options.constrained)
    own = dataset.part if dataset.part is not None and dataset.part.count > 1 else None
    if own is not None and shard is not None and (own.index, own.count) != (shard.index, shard.count):
        got = f"{shard.index}/{shard.count}"
        raise OptionError("shard", expected=f"{own.index}/{own.count}, as the images were read", got=got)
    blocks = _blocks(dataset, own, shard, block=block, seed=seed)
    settings: dict[str, Any] = {"norm": norm, "epsilon": epsilon, "eot_samples": eot_samples, "seed": seed}
    identity = {
        "attack": options.name,
        "options": options.model_dump(mode="json"),
        **settings,
        "block": block,
        "precision": precision,
        "model": fingerprint(model=model),
        "data": dataset.name,
        **_samples(dataset, own),
        "assay": version("assay"),
    }
    store = ResumableStore(folder, identity, suffix=".parquet")

    make_folder(folder)
    parts: list[pa.Table] = []
    # Shards may share a folder: each writes parts of its own, whole or not at all.
    with exclusive(folder) if shard is None and own is None else nullcontext():
        if not resume and any(_key(number) in store for number in blocks):
            raise OptionError(str(folder), expected="an empty folder, or --resume", got="an earlier campaign")
        store.claim(replace=False)
        if own is not None:
            claim_shard(folder, dataset, own, blocks=sorted(blocks))
        for number, members in blocks.items():
            path = store.path(_key(number))
            if not path.is_file():
                part = dataset.subset(members)
                inputs = {**attack_inputs(model, part), **settings, "precision": precision}
                result = run_attack(model, **inputs, attack=options, batch_size=batch_size, on_step=on_step)
                correct = count_correct_after_rounding(model, part, result, batch_size)
                write_part(path, part, result, correct_after_rounding=correct)
            parts.append(table := read_part(path))
            if table["id"].to_pylist() != dataset.ids[members].tolist():
                raise DataError(str(path), expected=f"the samples of block {number}", got="others")
            if stop_at is not None:
                low, high = _interval(parts)
                if (high - low) / 2 <= stop_at:
                    break
    return _conclude(parts, options, threat, seed=seed, n=len(dataset) if own is None else own.n)


def _blocks(
    dataset: ImageDataset, own: Part | None, shard: Shard | None, *, block: int, seed: int
) -> dict[int, torch.Tensor]:
    """The blocks to attack, by their number in the campaign: places in ``dataset``, int64 (B,).

    Raises :class:`OptionError` for a shard without any.
    """
    if own is not None and own.scattered and isinstance(own.shard, BlockShard):
        own_blocks = {number: torch.from_numpy(own.ids[places]) for number, places in own.shard.blocks(own.n).items()}
        if (own.shard.seed, own.shard.block_size(own.n)) != (seed, block):
            got = f"seed={seed}, block={block}"
            raise OptionError("shard", expected="the seed and the block by which the images were read", got=got)
        place_of = {identity: place for place, identity in enumerate(dataset.ids.tolist())}
        local = {
            number: torch.tensor([place_of[i] for i in ids.tolist() if i in place_of], dtype=torch.int64)
            for number, ids in own_blocks.items()
        }
        return {number: places for number, places in local.items() if len(places)}  # less what could not be read
    if own is not None:
        order = torch.randperm(len(dataset), generator=generator(seed, ORDER, own.index))
        parts = torch.split(order, block)
        return {own.index + own.count * place: places for place, places in enumerate(parts)}
    blocks = blocks_in(len(dataset), block=block, seed=seed)
    mine = range(len(blocks))[slice(None) if shard is None else slice(shard.index, None, shard.count)]
    if shard is not None and not mine:
        raise OptionError("shard", expected=f"at most {len(blocks)}, one a block of {block} samples", got=shard.count)
    return {number: blocks[number] for number in mine}


def _samples(dataset: ImageDataset, own: Part | None) -> dict[str, Any]:
    """Which samples the campaign is about; where ``dataset`` is a shard, what is known of all of them."""
    if own is None:
        return {"samples": fingerprint(dataset=dataset), "n": len(dataset), "ids": mark(dataset.ids.tolist())}
    shape, classes = list(dataset.shape), list(dataset.classes)
    return {"samples": own.digest, "n": own.n, "shards": own.count, "shape": shape, "classes": classes}


def merge_campaign(folders: Sequence[Path]) -> Campaign:
    """The whole campaign from the parts of its shards, each sample exactly once.

    Raises :class:`OptionError` for parts of different campaigns, and :class:`DataError` for a sample that is there
    twice, samples that are not, naming their parts, and a part that cannot be read.
    """
    identities = [_read_job(folder) for folder in folders]
    for folder, identity in zip(folders, identities, strict=True):
        check_same_identity(str(folder / IDENTITY), identities[0], identity, of=str(folders[0]))
    paths = sorted((path for folder in folders for path in folder.glob("part-*.parquet")), key=lambda path: path.name)
    parts = [read_part(path) for path in paths]
    job = identities[0]
    path_of: dict[int, Path] = {}
    for path, part in zip(paths, parts, strict=True):
        for i in part["id"].to_pylist():
            if i in path_of:
                raise DataError(f"sample {i}", expected="in one part", got=f"in several: {path_of[i]} and {path}")
            path_of[i] = path
    n = job["n"]
    if "shards" in job:
        shards = shards_in(folders, job)
        numbers = [int(path.stem.partition("-")[2]) for path in paths]
        ids = {number: part["id"].to_pylist() for number, part in zip(numbers, parts, strict=True)}
        check_complete(shards, job, ids)
        n = len(path_of)
    else:
        _check_whole(path_of, paths, job)
    options = find_attack(job["attack"], job["options"])
    threat = Threat(norm=job["norm"], epsilon=job["epsilon"], constrained=options.constrained)
    return _conclude(parts, options, threat, seed=job["seed"], n=n)


def _check_whole(path_of: Mapping[int, Path], paths: Sequence[Path], job: Mapping[str, Any]) -> None:
    """Raise :class:`DataError` unless the samples are those of the campaign."""
    if len(path_of) != job["n"]:
        names = {path.stem for path in paths}
        missing = [key for key in map(_key, range(-(-job["n"] // job["block"]))) if key not in names]
        got = f"{len(path_of)}: a shard is missing or unfinished"
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        got += f" ({', '.join(missing[:3])}{more} of {len(missing) + len(names)} parts)" if missing else ""
        raise DataError("parts", expected=f"{job['n']} samples", got=got)
    if mark(path_of) != job["ids"]:
        raise DataError("parts", expected="the samples of the campaign", got="others")


def await_parts(folder: Path, *, seconds: float = 0.5) -> None:
    """Wait until every block of the campaign in ``folder`` has its part; other processes are writing them."""
    job = read_identity(folder)
    if "shards" in job:
        while len(shards := shards_in([folder], job)) < job["shards"]:
            time.sleep(seconds)
        blocks = [number for shard in shards.values() for number in shard["blocks"]]
    else:
        blocks = list(range(-(-job["n"] // job["block"])))
    while not all((folder / f"{_key(number)}.parquet").is_file() for number in blocks):
        time.sleep(seconds)


def _read_job(folder: Path) -> dict[str, Any]:
    """The identity of the campaign in ``folder``; :class:`DataError` where it is that of something else."""
    job = read_identity(folder)
    numbers = all(isinstance(job.get(name), int) and job[name] > 0 for name in ("n", "block"))
    known = {"attack", "options", "norm", "epsilon", "seed"} <= job.keys() and {"ids", "shards"} & job.keys()
    if not numbers or not known:
        raise DataError(str(folder / IDENTITY), expected="the identity of an attack", got=f"one with {', '.join(job)}")
    return job


def _key(number: int) -> str:
    return f"part-{number:05d}"


def _conclude(parts: Sequence[pa.Table], options: AttackOptions, threat: Threat, *, seed: int, n: int) -> Campaign:
    table = pa.concat_tables(parts)
    record = summarize_parts(parts, options, threat, seed=seed)
    return Campaign(record, table, *_interval(parts), stopped=len(table) < n)


def _interval(parts: Sequence[pa.Table]) -> tuple[float, float]:
    robust = column(parts, "robust")
    return confidence_sequence(sum(robust), len(robust))
