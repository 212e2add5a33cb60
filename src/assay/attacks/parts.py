"""What a campaign keeps: one Parquet part a block, one row a sample, and the sums that rows do not hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from assay.attacks.outcome import Outcome
from assay.attacks.plan import Attack
from assay.attacks.success import predictions
from assay.attacks.threat import Threat
from assay.data.dataset import ImageDataset
from assay.errors import DataError
from assay.files import write_atomically
from assay.records.attack import RobustAccuracy

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


def write_part(path: Path, part: ImageDataset, outcome: Outcome, *, right_after_rounding: int) -> None:
    """The rows of one block, whole or not at all."""
    trace = outcome.trace
    unknown = [None] * len(part)
    table = pa.table(
        {
            "id": part.ids.tolist(),
            "label": part.labels.tolist(),
            "clean_prediction": predictions(outcome.clean_logits).tolist(),
            "prediction": predictions(outcome.logits).tolist(),
            "robust": outcome.robust.tolist(),
            "attack": [outcome.methods[i] if i >= 0 else None for i in outcome.broken_by.tolist()],
            "steps": [step if step >= 0 else None for step in outcome.steps.tolist()],
            "distance": [d if d < float("inf") else None for d in outcome.distances.tolist()],
            "losses": unknown if trace is None else trace.losses.float().cpu().tolist(),
            "right": unknown if trace is None else trace.right.cpu().tolist(),
        },
        schema=_SCHEMA,
    )
    effort = outcome.effort
    counted = (effort.forwards, effort.backwards, effort.outside_ball, effort.unconfirmed)
    sums = (*counted, right_after_rounding, outcome.seconds)
    kept = {**dict(zip(_SUMS, map(str, sums), strict=True)), _PRECISION: outcome.precision}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(kept), sink)
    write_atomically(path, sink.getvalue().to_pybytes())


def read_part(path: Path) -> pa.Table:
    """A part as it was written; :class:`DataError` for a file that is none."""
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(str(path), expected="a Parquet part of a campaign", got=str(error).splitlines()[0]) from None
    if not set(_SCHEMA.names) <= set(table.schema.names) or table.schema.metadata is None:
        raise DataError(str(path), expected="a Parquet part of a campaign", got=f"columns {table.schema.names}")
    return table


def column(parts: Sequence[pa.Table], name: str) -> list[Any]:
    """One column of all parts."""
    return [value for part in parts for value in part[name].to_pylist()]


def summarize_parts(parts: Sequence[pa.Table], options: Attack, threat: Threat, *, seed: int) -> RobustAccuracy:
    """Count the parts into the record that one run over all of their samples makes."""
    sums = {key: sum(float(part.schema.metadata[key.encode()]) for part in parts) for key in _SUMS}
    rounded = any(part.schema.metadata.get(_PRECISION.encode()) == b"bfloat16" for part in parts)
    robust = column(parts, "robust")
    clean = [
        label == found for label, found in zip(column(parts, "label"), column(parts, "clean_prediction"), strict=True)
    ]
    broken = [c and not r for c, r in zip(clean, robust, strict=True)]
    distances = [d for d, b in zip(column(parts, "distance"), broken, strict=True) if b and d is not None]
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
        precision="bfloat16" if rounded else "float32",
        seconds=sums["seconds"],
    )


def _mean_per_step(parts: Sequence[pa.Table], name: str) -> tuple[float, ...]:
    rows = [row for row in column(parts, name) if row is not None]
    return tuple(torch.tensor(rows, dtype=torch.float64).mean(dim=0).tolist()) if rows else ()
