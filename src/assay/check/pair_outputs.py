"""What two models say of the same images: how far their outputs lie apart, and whose predicted class changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from assay.data.dataset import ImageDataset
from assay.evaluate import Predictions
from assay.records.model_comparison import Flip, FlipKind, OutputDifference

MOST_FLIPS = 300  # listed; all are counted
QUANTILES = (0.5, 0.9, 0.99, 1.0)
_ROWS = 1 << 22  # values of both outputs that are compared at once
_FLIPS: tuple[FlipKind, ...] = ("right to wrong", "wrong to right", "wrong to another")


def are_probabilities(logits: Tensor) -> bool:
    """Whether each row (N, K) with numbers alone is of shares that sum to 1, as after a softmax."""
    rows = logits[logits.isfinite().all(dim=1)]
    if not len(rows) or bool((rows < 0).any()) or bool((rows > 1).any()):
        return False
    return bool(((rows.double().sum(dim=1) - 1).abs() < 1e-2).all())


def to_logits(probabilities: Tensor) -> Tensor:
    """Logits (N, K) with this softmax; 0 becomes the logarithm of the smallest float32."""
    return probabilities.clamp_min(torch.finfo(torch.float32).tiny).log()


def equal_bits(one: Tensor, other: Tensor) -> bool:
    """Whether all outputs are equal bit by bit, also those that are no numbers."""
    return one.shape == other.shape and torch.equal(one.view(torch.int32), other.view(torch.int32))


def compare_outputs(before: Predictions, after: Predictions, *, centred: bool = False) -> tuple[OutputDifference, ...]:
    """Differences of logits and of probabilities, over the images with finite outputs in both; empty without any.

    ``centred`` takes the mean of each image's logits away first: they mean the same with any number added.
    """
    finite = (before.logits.isfinite() & after.logits.isfinite()).all(dim=1).nonzero()[:, 0]
    if not len(finite):
        return ()
    whats: tuple[Literal["logits", "probabilities"], ...] = ("logits", "probabilities")
    return tuple(_compare(before.logits, after.logits, finite, what=what, centred=centred) for what in whats)


def _compare(
    before: Tensor, after: Tensor, rows: Tensor, *, what: Literal["logits", "probabilities"], centred: bool
) -> OutputDifference:
    total, least, most, largest_of_image = 0.0, float("inf"), float("-inf"), []
    for part in torch.split(rows, max(1, _ROWS // before.shape[1])):
        a, b = (_values(logits[part], what=what, centred=centred) for logits in (before, after))
        apart = (a - b).abs()
        total += float(apart.sum())
        least, most = min(least, float(a.min())), max(most, float(a.max()))
        largest_of_image.append(apart.amax(dim=1))
    largest = torch.cat(largest_of_image)
    mean, scale = total / (len(rows) * before.shape[1]), 1.0 if what == "probabilities" else most - least
    # The value that at least that share of the images does not exceed: an observed one, none in between.
    ordered = largest.sort().values
    places = [max(0, -(-round(share * 1000) * len(ordered) // 1000) - 1) for share in QUANTILES]
    return OutputDifference(
        what=what,
        n=len(rows),
        largest=float(ordered[-1]),
        mean=mean,
        quantiles=tuple((share, float(ordered[place])) for share, place in zip(QUANTILES, places, strict=True)),
        scale=scale,
        largest_relative=_relative(float(ordered[-1]), scale),
        mean_relative=_relative(mean, scale),
    )


def _values(logits: Tensor, *, what: str, centred: bool) -> Tensor:
    values = logits.double()
    if what == "probabilities":
        return values.softmax(dim=1)
    return values - values.mean(dim=1, keepdim=True) if centred else values


def _relative(value: float, scale: float) -> float:
    return 0.0 if value == 0 else value / scale if scale > 0 else float("inf")


def find_flips(before: Predictions, after: Predictions) -> tuple[Tensor, dict[FlipKind, int]]:
    """The rows (M,) of the images with another predicted class, the surest first, and their number by kind."""
    rows = (before.classes != after.classes).nonzero()[:, 0]
    counts = Counter(_kind(before, after, row) for row in rows.tolist())
    sure = torch.minimum(before.confidences, after.confidences)[rows].nan_to_num(nan=2.0)
    rows = rows[sure.argsort(descending=True, stable=True)]
    return rows, {kind: counts[kind] for kind in _FLIPS}


def _kind(before: Predictions, after: Predictions, row: int) -> FlipKind:
    if bool(before.correct[row]):
        return "right to wrong"
    return "wrong to right" if bool(after.correct[row]) else "wrong to another"


def list_flips(before: Predictions, after: Predictions, dataset: ImageDataset, rows: Tensor) -> Iterator[Flip]:
    """The records of these rows."""
    names, files = dataset.classes, dataset.filenames
    for row in rows.tolist():
        was, now = int(before.classes[row]), int(after.classes[row])
        yield Flip(
            id=int(dataset.ids[row]),
            name="" if files is None else files[row],
            label=names[int(dataset.labels[row])],
            change=_kind(before, after, row),
            before=_name(names, was),
            after=_name(names, now),
            confidence_before=float(before.confidences[row]),
            confidence_after=float(after.confidences[row]),
        )


def _name(names: Sequence[str], place: int) -> str:
    return names[place] if place >= 0 else "not finite"


def mean_confidences(before: Predictions, after: Predictions, rows: Tensor) -> tuple[float, float] | None:
    """The mean confidence of both in their predictions for these rows, of those that are finite; None for none."""
    pair = torch.stack([before.confidences[rows], after.confidences[rows]]).double()
    pair = pair[:, pair.isfinite().all(dim=0)]
    return (float(pair[0].mean()), float(pair[1].mean())) if pair.shape[1] else None
