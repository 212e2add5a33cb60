"""What an attacker achieved, under a stated threat, on stated samples."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record
from assay.records.samples import SampleBits, SampleLevels

Norm = Literal["linf", "l2", "l1"]
Precision = Literal["auto", "float32", "bfloat16"]  # of convolutions and products in the search, as asked for


class RobustAccuracy(Record, Proportion):
    """Accuracy after one attack: samples still right, of all ``n`` (samples wrong before count as wrong).

    ``loss_per_step[0]`` is the mean cross-entropy (nats) over all n samples before the attack, ``loss_per_step[k]``
    after step k; empty for attacks without steps. ``epsilon`` and ``step_size`` are in pixel units ([0, 1] scale).
    ``outside_ball`` counts adversarial candidates rejected by the float64 check of the ball or the box;
    ``unconfirmed`` those the untouched model, asked again, still got right. ``constrained`` is False for presets such
    as ``signed-steps`` which do not project: their ``epsilon`` is the size of a step. ``precision`` is what the search
    multiplied in; the verdicts are those of the model's own. ``per_sample`` tells which samples were right before and
    after. With a ``target`` only images turned into that class count as broken.
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
    target: str | None = None
    clean_correct: int
    loss_per_step: tuple[float, ...] = ()
    accuracy_per_step: tuple[float, ...] = ()
    outside_ball: int = 0
    unconfirmed: int = 0
    correct_after_rounding: int | None = None
    mean_distance: float = 0.0
    forward_equivalents: float = 0.0
    precision: Literal["float32", "bfloat16"] = "float32"
    seconds: float
    per_sample: SampleBits | None = None


class EpsilonPoint(Proportion):
    """Accuracy at one size of the perturbation."""

    epsilon: float


class EpsilonCurve(Record):
    """Accuracy against epsilon under one attack, on the same samples; the first point is epsilon 0.

    ``median_epsilon`` is where the curve, straight between its points, falls to one half; None when it does not.
    ``per_sample`` counts for each sample the points at which it was right: 0 when it was wrong before, k when point k
    (from 0) was the first to break it; None beyond 255 points.
    """

    kind: Literal["epsilon_curve"] = "epsilon_curve"
    attack: str
    norm: Norm
    steps: int
    points: tuple[EpsilonPoint, ...]
    median_epsilon: float | None
    seconds: float
    per_sample: SampleLevels | None = None


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


SanityName = Literal[
    "train mode",
    "randomised",
    "not logits",
    "zero gradients",
    "saturated",
    "not differentiable",
    "one step beats many",
    "rises with epsilon",
    "survives any epsilon",
    "more steps help",
    "black box beats white box",
    "far from the ensemble",
    "depends on the batch",
    "still climbing",
    "outside the ball",
]


class SanityCheck(Frozen):
    """One reason not to trust an attack's answer: ``value`` above ``limit`` raises it; None where it was not run."""

    name: SanityName
    value: float | None
    limit: float
    detail: str

    @property
    def raised(self) -> bool:
        """Whether the doubt stands; a value that is no number raises it too."""
        return self.value is not None and not self.value <= self.limit


class AttackSanity(Record):
    """Whether the answers of attacks on this model can be trusted, from ``n`` samples under one threat.

    Reference: Carlini et al. 2019, *On evaluating adversarial robustness*, section 5; Athalye et al. 2018.
    """

    kind: Literal["attack_sanity"] = "attack_sanity"
    norm: Norm
    epsilon: float
    n: int
    checks: tuple[SanityCheck, ...]
    seconds: float

    def find(self, name: SanityName) -> SanityCheck | None:
        """The check of that name, None where it is missing."""
        return next((check for check in self.checks if check.name == name), None)


class Transition(Frozen):
    """How many samples of one class were turned into another."""

    before: str
    after: str
    count: int


class AttackAnatomy(Record):
    """What an attack did to the ``broken`` samples, beyond how many they are.

    ``loss_quantiles[k]`` are the quantiles of the cross-entropy over all samples after step k, at ``quantile_levels``.
    ``median_psnr`` is in dB; ``median_ssim`` and ``lowest_ssim`` are structural similarities, 1 for identical images.
    All three are None where nothing broke.
    """

    kind: Literal["attack_anatomy"] = "attack_anatomy"
    attack: str
    norm: Norm
    epsilon: float
    broken: int
    quantile_levels: tuple[float, ...]
    loss_quantiles: tuple[tuple[float, ...], ...]
    transitions: tuple[Transition, ...]
    median_psnr: float | None
    median_ssim: float | None
    lowest_ssim: float | None


class PicturedSample(Frozen):
    """One sample: its class, and the answers before and after the attack with their confidences.

    Classes are places in ``SampleGallery.classes``; −1 is an output that was not finite. ``steps`` counts the moves
    that broke it; None where nothing did.
    """

    sample_id: str
    label: int
    before: int
    confidence_before: float
    after: int
    confidence_after: float
    steps: int | None


class SampleGallery(Record):
    """Some of the ``n`` samples of one attack: ``wrong`` before it, ``broken`` by it, or ``held``.

    ``sheet`` is one PNG file in base64: the untouched pictures in rows of ``columns``, each ``tile`` (height, width)
    pixels, in the order of ``samples``. Pictures larger than a tile were made smaller; others are lossless.
    """

    kind: Literal["sample_gallery"] = "sample_gallery"
    attack: str
    norm: Norm
    epsilon: float
    n: int
    wrong: int
    broken: int
    held: int
    classes: tuple[str, ...]
    tile: tuple[int, int]
    columns: int
    sheet: str
    samples: tuple[PicturedSample, ...]
