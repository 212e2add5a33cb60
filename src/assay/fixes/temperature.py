"""One temperature for the logits, folded into the last layer; it changes no prediction."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.evaluate import Predictions, predict, summarize
from assay.fixes.fix import Change, Fix, RefusedError, Workshop
from assay.records.fixes import Reading
from assay.verdict import judge
from assay.verdict.rule import percent

COLDEST, HOTTEST = 0.05, 20.0


def _cool(shop: Workshop) -> Change:
    """Fit on every other tested image and measure on the rest: a network is surer of what it was trained on."""
    known = predict(shop.model, shop.bench.clean)
    finite = known.logits.isfinite().all(dim=1)
    fitted, held = (
        Predictions(known.logits[rows], known.labels[rows], known.seconds)
        for rows in (finite.nonzero()[0::2, 0], finite.nonzero()[1::2, 0])
    )
    if len(held.labels) < 2:
        raise RefusedError("too few images to fit on one half and measure on the other")
    temperature = fit_temperature(fitted.logits, fitted.labels)
    fixed = _fold(shop, temperature, known.logits)
    classes = shop.bench.clean.classes
    before, after = (
        summarize(Predictions(held.logits / t, held.labels, held.seconds), classes=classes) for t in (1.0, temperature)
    )
    verdict = next(each for each in judge([after]) if each.rule == "A103")
    applied = (
        f"logits divided by {temperature:.2f}, fitted on {len(fitted.labels):,} of the tested images and measured on "
        f"the other {len(held.labels):,}"
    )
    error, worse = after.expected_calibration_error, before.expected_calibration_error
    return Change(
        applied,
        model=fixed,
        readings=(
            Reading(
                name="expected calibration error, other half",
                before=worse,
                after=error,
                unit="share",
            ),
            Reading(name="cross-entropy (nats), other half", before=before.loss, after=after.loss),
        ),
        status=verdict.status,
        measured=f"{percent(error)} on the half it was not fitted on, {percent(worse)} before",
        value=error,
    )


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T in [0.05, 20] that minimises the mean cross-entropy of logits/T, (N, K) and (N,).

    The loss is convex in 1/T, so a ternary search over it ends at the minimum. Reference: Guo et al. 2017,
    arXiv:1706.04599, section 4.2.
    """
    logits = logits.double()

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits * inverse, labels))

    low, high = 1 / HOTTEST, 1 / COLDEST
    while high - low > 1e-5 * high:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def _fold(shop: Workshop, temperature: float, logits: Tensor) -> nn.Module:
    """A copy whose last weighted layer is scaled; refuses where that does not divide the logits."""
    fixed = copy.deepcopy(shop.model)
    layers = [module for module in fixed.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise RefusedError("no last layer to fold a temperature into")
    with torch.no_grad():
        for parameter in layers[-1].parameters(recurse=False):
            parameter.div_(temperature)
    few = min(len(logits), 32)
    found = predict(fixed, shop.bench.clean.subset(torch.arange(few))).logits
    scale = float(logits[:few].abs().max()) or 1.0
    if not math.isclose(float((found * temperature - logits[:few]).abs().max()) / scale, 0.0, abs_tol=1e-4):
        raise RefusedError("scaling the last layer does not scale the logits")
    return fixed


TEMPERATURE = Fix("temperature", "weights", _cool)
