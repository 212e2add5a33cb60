"""Models on the same images, each against the first: whether they are the same model for all practical purposes."""

from __future__ import annotations

from typing import Any, Literal, Self

from assay.records.accuracy import Proportion, wilson_interval
from assay.records.base import Environment, Frozen, Record
from assay.records.comparison import Difference
from assay.records.failure import FailedMeasurement

Sameness = Literal["same", "different", "cannot tell"]
FlipKind = Literal["right to wrong", "wrong to right", "wrong to another"]


class ComparedModel(Frozen):
    """One of the models: its accuracy on the images that all were given, and what must be known of it.

    ``prepared`` says how its pictures were prepared, ``image_shape`` is (C, H, W); ``non_finite`` images had an output
    that is no number, and count as wrong.
    """

    name: str
    accuracy: Proportion
    image_shape: tuple[int, int, int]
    prepared: str = ""
    non_finite: int = 0
    notes: tuple[str, ...] = ()


class Flip(Frozen):
    """An image whose predicted class changed: ``before`` by the reference, ``after`` by the other model.

    ``confidence_…`` are the softmax probabilities of these predictions; a class is "not finite" where an output is.
    """

    id: int
    name: str
    label: str
    change: FlipKind
    before: str
    after: str
    confidence_before: float
    confidence_after: float


class OutputDifference(Frozen):
    """Absolute differences of the outputs of both models over all images and classes.

    ``quantiles`` are (share, value): that share of the images has no difference larger than the value. ``scale`` is
    the range from the least to the largest output of the reference, by which the relative numbers are divided. ``n``
    images have finite outputs in both.
    """

    what: Literal["logits", "probabilities"]
    n: int
    largest: float
    mean: float
    quantiles: tuple[tuple[float, float], ...]
    scale: float
    largest_relative: float
    mean_relative: float


class LayerDifference(Frozen):
    """The relative error ‖a − b‖/‖a‖ of the outputs of a layer, or group of layers, that both networks have."""

    name: str
    type: str
    relative_error: float


class LatencyOfBoth(Frozen):
    """Seconds of one call with ``batch`` images, median and quartiles, both models called in turn."""

    batch: int
    reference: float
    reference_low: float
    reference_high: float
    candidate: float
    candidate_low: float
    candidate_high: float


class Transfer(Frozen):
    """Adversarial images of the model ``source`` given to ``target``: ``broken`` of ``n`` break it, too.

    The ``n`` images broke ``source``, and were right in both before. ``attacked`` images were attacked at all, of which
    ``source`` still has ``robust`` right afterwards. ``low`` to ``high`` is the 95 % Wilson interval of ``share``.
    """

    source: str
    target: str
    attack: str
    steps: int
    epsilon: float
    attacked: int
    robust: int
    n: int
    broken: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, broken: int, n: int, **fields: Any) -> Self:
        """``broken`` of ``n``, with the interval."""
        low, high = wilson_interval(broken, n)
        return cls(broken=broken, n=n, share=broken / n if n else 0.0, low=low, high=high, **fields)


class Equivalence(Frozen):
    """Two one-sided exact tests of the paired accuracies, and the share of predictions that stayed.

    ``p_fall`` is the p-value of "the accuracy falls by ``margin`` or more", ``p_rise`` of the other direction; ``p`` is
    the larger one, ``adjusted`` after Holm over all candidates: below ``level``, the accuracies are equal within the
    margin. ``agreement_low`` and ``agreement_high`` are one-sided bounds of the share of unchanged predictions at
    ``level``, shared out over the candidates. ``needed`` images would settle what cannot be told.
    """

    margin: float
    least_agreement: float
    level: float
    p_fall: float
    p_rise: float
    p: float
    adjusted: float
    agreement_low: float
    agreement_high: float
    verdict: Sameness
    because: Literal["accuracy", "predictions", ""] = ""
    needed: int | None = None


class ModelPair(Frozen):
    """One model against the reference.

    ``flips`` lists the images whose predictions changed, the surest first, at most the number that the page can show;
    ``flipped`` counts all of them by kind. ``identical`` is whether all outputs are equal bit by bit.
    """

    candidate: str
    difference: Difference
    agreement: Proportion
    equivalence: Equivalence
    identical: bool
    flipped: dict[FlipKind, int]
    flips: tuple[Flip, ...]
    mean_confidence_flipped: tuple[float, float] | None = None
    mean_confidence: tuple[float, float] | None = None
    outputs: tuple[OutputDifference, ...] = ()
    layers: tuple[LayerDifference, ...] = ()
    layer_images: int = 0
    latencies: tuple[LatencyOfBoth, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    failures: tuple[FailedMeasurement, ...] = ()
    notes: tuple[str, ...] = ()


class ModelComparison(Record):
    """Models compared on the same images: what ``assay.compare_models`` returns.

    Attributes:
        data: the set of images, its ``split``, and their number ``n``.
        level: of every test, after Holm's correction over the candidates.
        reference: the first model.
        candidates: the others.
        pairs: each of them against the first.
        seed: of the attacks.
    """

    kind: Literal["model_comparison"] = "model_comparison"
    schema_version: Literal[1] = 1
    data: str
    split: str
    n: int
    classes: int
    level: float
    reference: ComparedModel
    candidates: tuple[ComparedModel, ...]
    pairs: tuple[ModelPair, ...]
    seed: int
    started: str
    seconds: float
    environment: Environment

    @property
    def complete(self) -> bool:
        """Whether everything could be measured that can be of models of these kinds."""
        return all(failure.refused for pair in self.pairs for failure in pair.failures)
