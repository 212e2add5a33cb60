"""A long attack in blocks: every sample's result is kept as it comes, and a killed run goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from assay.attacks.engine import OnStep, Outcome, attack
from assay.attacks.measure import count_right_after_rounding
from assay.attacks.network import predictions
from assay.attacks.plan import Attack
from assay.attacks.registry import find_attack
from assay.attacks.sequence import confidence_sequence
from assay.attacks.threat import Threat
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import OptionError
from assay.files import make_folder, write_atomically
from assay.records.attack import Norm, RobustAccuracy
from assay.runtime import dtype_of, generator

_SUMS = ("forwards", "backwards", "outside_ball", "unconfirmed", "right_after_rounding", "seconds")
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


@dataclass(frozen=True)
class Campaign:
    """``record`` over the samples attacked, and their ``table``: one row a sample.

    ``low`` and ``high`` are valid although the run may have stopped because they were close; ``stopped`` says so.
    """

    record: RobustAccuracy
    table: pa.Table
    low: float
    high: float
    stopped: bool


def run_campaign(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    folder: Path,
    attack: str | Attack = "standard",
    norm: Norm = "linf",
    epsilon: float = 8 / 255,
    seed: int = 0,
    block: int = 500,
    batch_size: int = 256,
    average: int = 1,
    stop_at: float | None = None,
    resume: bool = False,
    on_step: OnStep | None = None,
) -> Campaign:
    """Attack ``dataset`` block by block in an order drawn from ``seed``; each block is a Parquet part in ``folder``.

    Columns: ``id``, ``label``, ``clean_prediction``, ``prediction`` (after the attack), ``robust``, ``attack`` (the
    method that broke it), ``steps``, ``distance`` (of the nearest image found; null without one), ``losses`` and
    ``right`` (after each step of the first method). ``stop_at`` ends the run when half the width of the 95 %
    confidence sequence of the robust accuracy is at most that. ``resume`` takes over the parts of a run that was
    interrupted; the same record comes out, as a sample's random numbers are its own.

    Raises :class:`OptionError` when ``folder`` holds parts and ``resume`` is not set, or parts of another campaign.
    """
    options = find_attack(attack) if isinstance(attack, str) else attack
    if stop_at is not None and not 0 < stop_at < 0.5:
        raise OptionError("stop_at", expected="a half-width between 0 and 0.5", got=stop_at)
    threat = Threat(norm=norm, epsilon=epsilon, constrained=options.constrained)
    _claim(make_folder(folder), _identity(dataset, options, threat, seed=seed, block=block), resume=resume)
    order = torch.randperm(len(dataset), generator=generator(seed, 0xCA))
    parts: list[pa.Table] = []
    for number, rows in enumerate(torch.split(order, block)):
        path = folder / f"part-{number:05d}.parquet"
        if not path.is_file():
            part = dataset.subset(rows)
            outcome = _attack_block(
                model, part, options, threat, seed=seed, batch_size=batch_size, average=average, on_step=on_step
            )
            rounded = count_right_after_rounding(model, part, outcome, batch_size=batch_size)
            _write(path, part, outcome, rounded=rounded)
        parts.append(pq.read_table(path))
        low, high = _interval(parts)
        if stop_at is not None and (high - low) / 2 <= stop_at:
            break
    table = pa.concat_tables(parts)
    assert len(set(table["id"].to_pylist())) == len(table)  # each sample exactly once
    record = _summarize(parts, options, threat, seed=seed)
    return Campaign(record=record, table=table, low=low, high=high, stopped=len(table) < len(dataset))


def _attack_block(
    model: nn.Module,
    part: ImageDataset,
    options: Attack,
    threat: Threat,
    *,
    seed: int,
    batch_size: int,
    average: int,
    on_step: OnStep | None,
) -> Outcome:
    return attack(
        model,
        to_unit_range(part.images, dtype_of(model)),
        part.labels,
        attack=options,
        norm=threat.norm,
        epsilon=threat.epsilon,
        seed=seed,
        batch_size=batch_size,
        ids=part.ids,
        average=average,
        on_step=on_step,
    )


def _identity(dataset: ImageDataset, options: Attack, threat: Threat, *, seed: int, block: int) -> dict[str, Any]:
    """What two runs must share for one to go on with the other's parts."""
    return {
        "attack": options.name,
        "options": options.model_dump(mode="json"),
        "norm": threat.norm,
        "epsilon": threat.epsilon,
        "seed": seed,
        "block": block,
        "data": dataset.name,
        "n": len(dataset),
        "ids": int(dataset.ids.sum()),
    }


def _claim(folder: Path, identity: dict[str, Any], *, resume: bool) -> None:
    manifest = folder / "campaign.json"
    if not manifest.is_file():
        write_atomically(manifest, json.dumps(identity, indent=1) + "\n")
        return
    if not resume:
        raise OptionError(str(folder), expected="an empty folder, or --resume", got="an earlier campaign")
    found = json.loads(manifest.read_text())
    different = sorted(key for key in identity if found.get(key) != identity[key])
    if different:
        key = different[0]
        raise OptionError(f"{manifest.name}: {key}", expected=f"{identity[key]} to resume", got=found.get(key))


def _write(path: Path, part: ImageDataset, outcome: Outcome, *, rounded: int) -> None:
    after, robust = predictions(outcome.logits), outcome.robust
    trace = outcome.trace
    unknown = [None] * len(part)
    table = pa.table(
        {
            "id": part.ids.tolist(),
            "label": part.labels.tolist(),
            "clean_prediction": predictions(outcome.clean_logits).tolist(),
            "prediction": after.tolist(),
            "robust": robust.tolist(),
            "attack": [outcome.methods[i] if i >= 0 else None for i in outcome.broken_by.tolist()],
            "steps": [step if step >= 0 else None for step in outcome.steps.tolist()],
            "distance": [d if d < float("inf") else None for d in outcome.distances.tolist()],
            "losses": unknown if trace is None else trace.losses.float().cpu().tolist(),
            "right": unknown if trace is None else trace.right.cpu().tolist(),
        },
        schema=_SCHEMA,
    )
    effort = outcome.effort
    sums = (
        effort.forwards,
        effort.backwards,
        effort.outside_ball,
        effort.unconfirmed,
        rounded,
        outcome.seconds,
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(dict(zip(_SUMS, map(str, sums), strict=True))), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def _interval(parts: list[pa.Table]) -> tuple[float, float]:
    robust = [value for part in parts for value in part["robust"].to_pylist()]
    return confidence_sequence(sum(robust), len(robust))


def _rows(parts: list[pa.Table], column: str) -> Iterator[Any]:
    for part in parts:
        yield from part[column].to_pylist()


def _mean_per_step(parts: list[pa.Table], column: str) -> tuple[float, ...]:
    rows = [row for row in _rows(parts, column) if row is not None]
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()) if rows else ()


def _summarize(parts: list[pa.Table], options: Attack, threat: Threat, *, seed: int) -> RobustAccuracy:
    sums = {key: sum(float(part.schema.metadata[key.encode()]) for part in parts) for key in _SUMS}
    robust = list(_rows(parts, "robust"))
    clean = [
        label == found for label, found in zip(_rows(parts, "label"), _rows(parts, "clean_prediction"), strict=True)
    ]
    broken = [c and not r for c, r in zip(clean, robust, strict=True)]
    distances = [d for d, b in zip(_rows(parts, "distance"), broken, strict=True) if b and d is not None]
    steps, step_size, restarts = options.describe(threat)
    n = len(robust)
    return RobustAccuracy.of(
        sum(robust),
        n,
        attack=options.name,
        norm=threat.norm,
        epsilon=threat.epsilon,
        step_size=step_size,
        steps=steps,
        restarts=restarts,
        seed=seed,
        constrained=threat.constrained,
        clean_correct=sum(clean),
        loss_per_step=_mean_per_step(parts, "losses"),
        accuracy_per_step=_mean_per_step(parts, "right"),
        outside_ball=int(sums["outside_ball"]),
        unconfirmed=int(sums["unconfirmed"]),
        correct_after_rounding=int(sums["right_after_rounding"]),
        mean_distance=sum(distances) / len(distances) if distances else 0.0,
        forward_equivalents=(sums["forwards"] + sums["backwards"]) / n,
        seconds=sums["seconds"],
    )
