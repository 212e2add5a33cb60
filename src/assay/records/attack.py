"""Results of adversarial attacks, under a stated threat model, on stated samples."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import Proportion
from assay.records.base import Frozen, Record
from assay.records.samples import SampleBits, SampleLevels

Norm = Literal["linf", "l2", "l1"]
Precision = Literal["auto", "float32", "bfloat16"]  # of convolutions and products in the search, as asked for


class RobustAccuracy(Record, Proportion):
    """Robust accuracy under one attack: samples correct after it, of all ``n``; misclassified before counts as wrong.

    Attributes:
        attack: the method by its name, such as ``pgd``.
        norm: ``linf``, ``l2`` or ``l1``.
        epsilon: radius of the ball in pixel units of [0, 1]; the size of one step where ``constrained`` is False.
        step_size: in pixel units; None for methods without one.
        steps: iterations (queries for black-box methods) of each of the ``restarts``.
        seed: of the random starts.
        constrained: False for methods that do not project onto the ball, such as ``signed-steps``.
        target: the class that adversarial examples must be predicted as; None for untargeted attacks.
        clean_correct: samples that were correct before the attack.
        correct: samples that are correct after it; ``accuracy`` is its share of ``n``, ``low`` and ``high`` the 95 %
            Wilson interval.
        loss_per_step: mean cross-entropy in nats over all samples, before the attack and after each step.
        accuracy_per_step: accuracy likewise; both are empty for methods without steps.
        outside_ball: adversarial examples rejected by the check, in float64, of the ball and the pixel range.
        unconfirmed: adversarial examples that the original model classified correctly when verified.
        correct_after_rounding: samples that are correct after the attack's images were rounded to 8 bits.
        mean_distance: mean norm of the successful perturbations.
        forward_equivalents: cost per image in forward passes; a backward pass counts as two.
        precision: of the search; verification is always in the model's own.
        seconds: wall-clock time.
        per_sample: which samples were correct before and after, None where they were not kept.

    Example:
        >>> import assay
        >>> robust = assay.RobustAccuracy.of(
        ...     25, 100, attack="fgsm", norm="linf", epsilon=8 / 255, step_size=8 / 255, steps=1, restarts=1, seed=0,
        ...     clean_correct=90, seconds=1.0,
        ... )
        >>> robust.accuracy, robust.clean_correct / robust.n
        (0.25, 0.9)

    Reference:
        Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083.
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
    """One adversarial example: PNG files in base64, ``perturbation`` magnified ``magnified`` times about mid-grey."""

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
    "train mode", "randomised", "not logits", "zero gradients", "saturated", "not differentiable",
    "one step beats many", "rises with epsilon", "survives any epsilon", "more steps help", "black box beats white box",
    "far from the ensemble", "depends on the batch", "still climbing", "outside the ball",
]  # fmt: skip


class SanityCheck(Frozen):
    """One reason not to trust an attack's result: ``value`` above ``limit`` raises it; None where it was not run."""

    name: SanityName
    value: float | None
    limit: float
    detail: str

    @property
    def raised(self) -> bool:
        """Whether the check fails; a value that is not a number fails too."""
        return self.value is not None and not self.value <= self.limit


class AttackSanity(Record):
    """Whether attacks on this model can be trusted, from ``n`` samples under one threat model.

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
    """One sample: its class, and the predictions before and after the attack with their confidences.

    Classes are indices into ``SampleGallery.classes``; −1 stands for logits that were not finite. ``steps`` counts the
    iterations until it was misclassified; None where it never was.
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

    ``sheet`` is one PNG or JPEG file in base64: the untouched pictures in rows of ``columns``, each ``tile`` (height,
    width) pixels, in the order of ``samples``. Pictures of at most 64 pixels a side are lossless.
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
