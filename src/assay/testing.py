"""Assertions for a project's own tests: accuracy and robust accuracy, beyond the sampling noise of the images at hand.

Each passes only where the whole 95 % interval lies at or above ``at_least``. It fails in two ways, and the message
tells which: the claim is refuted, or there are too few images to tell, and about how many would do.

Example:
    >>> import assay
    >>> from assay.testing import assert_accurate
    >>> data = assay.load_dataset("digits", limit=32)
    >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)  # untrained
    >>> assert_accurate(model, data, at_least=0.9)
    Traceback (most recent call last):
    AssertionError: accuracy on digits: ...
"""

from __future__ import annotations

import math

from torch import nn

from assay.arguments import checked
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.options import AttackOptions
from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.evaluate import measure_clean_accuracy
from assay.records.accuracy import CleanAccuracy, Proportion, wilson_interval
from assay.records.attack import Norm, RobustAccuracy
from assay.wording import ball

MOST_IMAGES = 100_000_000


@checked
def assert_accurate(model: nn.Module, data: ImageDataset, *, at_least: float) -> CleanAccuracy:
    """Assert that the clean accuracy is at least ``at_least``, at the lower end of its 95 % Wilson interval.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        data: the test images.
        at_least: an accuracy in (0, 1).
    Returns:
        The record that was measured.
    Raises:
        AssertionError: the accuracy is lower, or there are too few images to tell.
        OptionError: ``at_least`` lies outside (0, 1).
    """
    __tracebackhide__ = True
    _check_share(at_least)
    record = measure_clean_accuracy(model, data)
    _assert_share(record, at_least=at_least, what=f"accuracy on {data.name}")
    return record


@checked
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
    """Assert that the robust accuracy is at least ``at_least``, at the lower end of its 95 % Wilson interval.

    Samples misclassified before the attack count as misclassified. An attack bounds robustness from above only: what
    withstands this one may fall to a stronger one; use ``attack="standard"`` where that matters.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        data: the test images.
        epsilon: radius of the ball in pixel units, such as 8/255.
        at_least: an accuracy in (0, 1).
        attack: a name of ``assay.list_attacks()``, or an attack with its options.
        norm: of the ball.
        seed: of the attack's random starts.
    Returns:
        The record that was measured.
    Raises:
        AssertionError: the robust accuracy is lower, or there are too few images to tell.
        OptionError: ``at_least`` lies outside (0, 1), or an option of the attack is wrong.
    """
    __tracebackhide__ = True
    _check_share(at_least)
    record = measure_robust_accuracy(model, data, attack=attack, norm=norm, epsilon=epsilon, seed=seed).record
    _assert_share(
        record, at_least=at_least, what=f"accuracy on {data.name} after {record.attack} within {ball(record)}"
    )
    return record


def _check_share(at_least: float) -> None:
    if not 0 < at_least < 1:
        raise OptionError("at_least", expected="a share between 0 and 1", got=at_least)


def _assert_share(measured: Proportion, *, at_least: float, what: str) -> None:
    __tracebackhide__ = True
    if measured.low >= at_least:
        return
    interval = f"95 % interval {_percent(measured.low)} to {_percent(measured.high)}, n = {measured.n:,}"
    message = f"{what}: {_percent(measured.accuracy)} ({interval}); expected at least {_percent(at_least)}"
    if measured.high < at_least:
        raise AssertionError(f"{message}: refuted")
    needed = images_needed(measured.accuracy, at_least=at_least)
    advice = "more would not help at this accuracy" if needed is None else f"about {needed:,} would be enough"
    raise AssertionError(f"{message}: {measured.n:,} images are too few to tell, {advice}")


@checked
def images_needed(accuracy: float, *, at_least: float) -> int | None:
    """The least n at which a measured ``accuracy`` has a 95 % Wilson interval that lies at or above ``at_least``.

    None where ``accuracy`` is not above ``at_least``: no n is enough.
    """
    if accuracy <= at_least:
        return None
    low, high = 1, 2
    while _lower_end(accuracy, high) < at_least:
        high *= 2
        if high > MOST_IMAGES:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _lower_end(accuracy, middle) >= at_least else (middle + 1, high)
    return high


def _lower_end(accuracy: float, n: int) -> float:
    return wilson_interval(math.floor(accuracy * n), n)[0]


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
