"""Assertions for a project's own tests: a model holds what is asked of it, beyond the noise of the images at hand.

>>> from assay.testing import assert_accurate, assert_robust
>>> def test_the_model_still_holds(model):
...     data = assay.load_dataset("digits", limit=300)
...     assert_accurate(model, data, at_least=0.90)
...     assert_robust(model, data, epsilon=2 / 255, at_least=0.60)

Each passes only where the whole 95 % interval lies at or above ``at_least``. An assertion fails therefore in two ways,
and says in which: what was asked for is refuted, or the images are too few to tell, and about how many would do.
"""

from __future__ import annotations

import math

from torch import nn

from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.options import AttackOptions
from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.evaluate import measure_clean_accuracy
from assay.records.accuracy import CleanAccuracy, Proportion, wilson_interval
from assay.records.attack import Norm, RobustAccuracy
from assay.wording import ball

MOST_IMAGES = 100_000_000


def assert_accurate(model: nn.Module, data: ImageDataset, *, at_least: float) -> CleanAccuracy:
    """Assert that the accuracy on untouched images is ``at_least`` so much: the low end of its Wilson interval is.

    Returns what was measured. Raises :class:`AssertionError` with a readable sentence, and :class:`OptionError` for an
    ``at_least`` outside (0, 1).
    """
    __tracebackhide__ = True
    _check(at_least)
    record = measure_clean_accuracy(model, data)
    _demand(record, at_least=at_least, what=f"accuracy on {data.name}")
    return record


def assert_robust(
    model: nn.Module,
    data: ImageDataset,
    *,
    epsilon: float,
    at_least: float,
    attack: str | AttackOptions = "pgd",
    norm: Norm = "linf",
    seed: int = 0,
) -> RobustAccuracy:
    """Assert that after ``attack`` within ``epsilon`` (pixel units) ``at_least`` so much of ``data`` is still right.

    Samples wrong before the attack count as wrong. The low end of the 95 % Wilson interval must reach ``at_least``. An
    attack only bounds robustness from above: what passes withstood this attack, a stronger one may break it; use
    ``attack="standard"`` where that matters.

    Returns what was measured. Raises :class:`AssertionError` with a readable sentence; :class:`OptionError` for an
    ``at_least`` outside (0, 1), and what the attack raises.
    """
    __tracebackhide__ = True
    _check(at_least)
    record = measure_robust_accuracy(model, data, attack=attack, norm=norm, epsilon=epsilon, seed=seed).record
    _demand(record, at_least=at_least, what=f"accuracy on {data.name} after {record.attack} within {ball(record)}")
    return record


def _check(at_least: float) -> None:
    if not 0 < at_least < 1:
        raise OptionError("at_least", expected="a share between 0 and 1", got=at_least)


def _demand(found: Proportion, *, at_least: float, what: str) -> None:
    __tracebackhide__ = True
    if found.low >= at_least:
        return
    measured = (
        f"{what}: {_percent(found.accuracy)} "
        f"(95 % interval {_percent(found.low)} to {_percent(found.high)}, n = {found.n:,})"
    )
    asked = f"asked for at least {_percent(at_least)}"
    if found.high < at_least:
        raise AssertionError(f"{measured}; {asked}: it does not hold")
    enough = images_needed(found.accuracy, at_least=at_least)
    advice = (
        "no number of images would show it if it is as good as this" if enough is None else f"about {enough:,} would"
    )
    raise AssertionError(f"{measured}; {asked}: {found.n:,} images cannot tell, {advice}")


def images_needed(accuracy: float, *, at_least: float) -> int | None:
    """The least n at which ``accuracy``, seen again, has a 95 % Wilson interval that lies at or above ``at_least``.

    None where ``accuracy`` is not above ``at_least``: then more images show nothing.
    """
    if accuracy <= at_least:
        return None
    few, many = 1, 2
    while _low(accuracy, many) < at_least:
        many *= 2
        if many > MOST_IMAGES:
            return None
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if _low(accuracy, middle) >= at_least else (middle + 1, many)
    return many


def _low(accuracy: float, n: int) -> float:
    return wilson_interval(math.floor(accuracy * n), n)[0]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
