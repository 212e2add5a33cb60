"""What an attacker achieved, under a stated threat, on stated samples."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record

Norm = Literal["linf", "l2", "l1"]


class RobustAccuracy(Record, Proportion):
    """Accuracy after one attack: samples still right, of all ``n`` (samples wrong before count as wrong).

    ``loss_per_step[0]`` is the mean cross-entropy (nats) over all n samples before the attack, ``loss_per_step[k]``
    after step k; empty for attacks without steps. ``epsilon`` and ``step_size`` are in pixel units ([0, 1] scale).
    ``outside_ball`` counts adversarial candidates rejected by the float64 check of the ball or the box;
    ``unconfirmed`` those the untouched model, asked again, still got right. ``constrained`` is False for presets such
    as ``signed-steps`` which do not project: their ``epsilon`` is the size of a step.
    """

    kind: Literal["robust_accuracy"] = "robust_accuracy"
    attack: str
    norm: Norm
    epsilon: float
    step_size: float | None
    steps: int
    restarts: int
    seed: int
    constrained: bool = True
    clean_correct: int
    loss_per_step: tuple[float, ...] = ()
    accuracy_per_step: tuple[float, ...] = ()
    outside_ball: int = 0
    unconfirmed: int = 0
    correct_after_rounding: int | None = None
    mean_distance: float = 0.0
    forward_equivalents: float = 0.0
    seconds: float


class EpsilonPoint(Proportion):
    """Accuracy at one size of the perturbation."""

    epsilon: float


class EpsilonCurve(Record):
    """Accuracy against epsilon under one attack, on the same samples; the first point is epsilon 0."""

    kind: Literal["epsilon_curve"] = "epsilon_curve"
    attack: str
    norm: Norm
    steps: int
    points: tuple[EpsilonPoint, ...]
    median_epsilon: float | None
    seconds: float


class AdversarialExample(Frozen):
    """One broken sample.

    The three pictures are PNG files in base64; ``perturbation`` is magnified ``magnified`` times about mid-grey.
    """

    sample_id: str
    label: str
    clean_prediction: str
    clean_confidence: float
    adversarial_prediction: str
    adversarial_confidence: float
    distance: float
    magnified: float
    image: str
    perturbation: str
    adversarial: str


class AdversarialGallery(Record):
    """The worst examples: right before, most confidently wrong after."""

    kind: Literal["adversarial_gallery"] = "adversarial_gallery"
    attack: str
    norm: Norm
    epsilon: float
    examples: tuple[AdversarialExample, ...]
