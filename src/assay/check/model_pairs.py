"""Models on the same images, each against the first: did the export, the quantisation or the compression change it?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.check.pair_layers import LAYER_IMAGES, compare_layers
from assay.check.pair_outputs import (
    MOST_FLIPS,
    are_probabilities,
    compare_outputs,
    equal_bits,
    find_flips,
    list_flips,
    mean_confidences,
    to_logits,
)
from assay.check.pair_samples import PreparedModel, attempt, match_samples, require_same_pixels
from assay.check.pair_transfer import TransferAttacks
from assay.comparison.differences import paired_difference
from assay.comparison.equivalence import LEAST_AGREEMENT, LEVEL, MARGIN, judge_equivalence
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import fair_sample
from assay.errors import DataError, ModelError, OptionError
from assay.evaluate import Predictions, predict
from assay.models.calls import ModelCall, calling, notes_on, rows_that_fit
from assay.models.programs.classifier import in_own_runtime
from assay.records.accuracy import Proportion
from assay.records.comparison import Difference
from assay.records.failure import FailedMeasurement
from assay.records.model_comparison import (
    ComparedModel,
    Equivalence,
    LatencyOfBoth,
    LayerDifference,
    ModelComparison,
    ModelPair,
    Transfer,
)
from assay.records.preparation import Preparation
from assay.runtime import describe_environment, device_of
from assay.runtime.latency import measure_latencies
from assay.wording import plural

ATTACKED = 200
BATCHES = (1, 32)  # of which latency is measured
_LATENCY_SECONDS = 5.0  # at most, for all models at one size of batch
OnStage = Callable[[str, int, int], None]  # (what begins, its number from 0, how many there are)


@checked
def compare_models(
    models: Sequence[nn.Module],
    dataset: ImageDataset,
    *,
    names: Sequence[str] = (),
    preparations: Sequence[Preparation | None] = (),
    margin: float = MARGIN,
    least_agreement: float = LEAST_AGREEMENT,
    attacked: int = ATTACKED,
    seed: int = 0,
    on_stage: OnStage | None = None,
) -> ModelComparison:
    """Give the same images to several models, and tell whether each is the same as the first for practical purposes.

    For models that ought to be equal: an export, a quantised, compiled or compressed copy. Equal is what is shown to be
    equal: two one-sided exact tests bound the change of accuracy by ``margin``, and more than ``least_agreement`` of
    the predictions are shown to stay. Too few images give "cannot tell", and how many would settle it.

    Args:
        models: two or more, the first is the reference; each takes images (N, C, H, W) in [0, 1], returns logits (N, K)
            of the same K classes, and is left as it was found.
        dataset: the images and labels.
        names: of the models, the reference first; default: ``reference``, ``model 2``, ….
        preparations: for each model how its pictures are made, the reference first: they are read again from where they
            are stored. None, or none at all: the images as ``dataset`` has them.
        margin: the change of accuracy that makes no difference, as a share in (0, 1): 0.01 is one percentage point.
        least_agreement: the share of predictions that must be unchanged, in (0, 1).
        attacked: images whose adversarial versions (PGD, L∞ 8/255, 10 steps) are given to the other model; 0: none.
        seed: of the attacks.
        on_stage: called before each measurement with its name, its number from 0, and the number of measurements.

    Returns:
        The record: for each pair accuracies, flipped images, differences of outputs and layers, latencies, transfer of
        adversarial images, and the verdict. What could not be measured is among its ``failures``, with the reason.

    Raises:
        ModelError: a model cannot take the images, or does not return logits (N, K).
        DataError: the pictures cannot be read again in a model's preparation.
        OptionError: fewer than two models; names or preparations for another number of models; a margin or a share
            outside (0, 1).

    Example:
        >>> import assay, copy
        >>> data = assay.load_dataset("digits", limit=100)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> compared = assay.compare_models([model, copy.deepcopy(model).bfloat16()], data, attacked=10)
        >>> compared.pairs[0].equivalence.verdict  # 100 images are too few for a margin of one point
        'cannot tell'

    Reference:
        Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680, for the two one-sided tests;
        Hsueh, Liu & Chen 2001, Biometrics 57, 478-483, for the exact ones.
    """
    labels = tuple(names) or ("reference", *(f"model {number}" for number in range(2, len(models) + 1)))
    for option, values in (("names", labels), ("preparations", preparations or models)):
        if len(values) != len(models):
            raise OptionError(option, expected=f"one for each of {len(models)} models", got=len(values))
    prepared = [
        PreparedModel(model, name, _prepare(dataset, preparation, name))
        for model, name, preparation in zip(models, labels, preparations or [None] * len(models), strict=True)
    ]
    return compare_prepared(
        prepared,
        margin=margin,
        least_agreement=least_agreement,
        attacked=attacked,
        seed=seed,
        on_stage=on_stage,
    )


def _prepare(dataset: ImageDataset, preparation: Preparation | None, name: str) -> ImageDataset:
    if preparation is None or preparation == dataset.preparation:
        return dataset
    if dataset.read_again is None:
        expected = "data that can be read again in another preparation, from files"
        raise DataError(f"preparations: {name}", expected=expected, got=f"{dataset.name}, made of tensors")
    return dataset.read_again(preparation, dataset.ids)


def compare_prepared(
    models: Sequence[PreparedModel],
    *,
    margin: float = MARGIN,
    least_agreement: float = LEAST_AGREEMENT,
    attacked: int = ATTACKED,
    seed: int = 0,
    on_stage: OnStage | None = None,
) -> ModelComparison:
    """:func:`assay.compare_models` of models that come with their own images."""
    check_options(margin=margin, least_agreement=least_agreement)
    if len(models) < 2:
        raise OptionError("models", expected="two models or more", got=len(models))
    started, clock = datetime.now(UTC), time.perf_counter()
    begin = _Stages(on_stage, total=len(models) + 1 + 2 * (len(models) - 1)).begin
    reference, *candidates = [_open(each, begin) for each in match_samples(models)]
    begin("latency")
    timed = attempt(partial(_measure_latencies, [reference, *candidates]), name="latency", gives="latencies")
    transfer = TransferAttacks(reference.prepared, reference.predictions, n=attacked, seed=seed)
    judged = judge_equivalence(
        [_difference(reference, each) for each in candidates],
        [int((reference.predictions.classes == each.predictions.classes).sum()) for each in candidates],
        margin=margin,
        least_agreement=least_agreement,
    )
    pairs = []
    for place, (candidate, verdict) in enumerate(zip(candidates, judged, strict=True)):
        begin(f"{candidate.name}: layers")
        layers = attempt(partial(_layers, reference, candidate), name="layers", gives="layers")
        begin(f"{candidate.name}: adversarial images")
        moved = transfer.both_ways(candidate.prepared, candidate.predictions) if attacked else ()
        latencies = timed if isinstance(timed, FailedMeasurement) else timed[place]
        pairs.append(_pair(reference, candidate, verdict, latencies, layers, moved))
    return ModelComparison(
        data=reference.dataset.name,
        split=reference.dataset.split,
        n=len(reference.dataset),
        classes=len(reference.dataset.classes),
        level=LEVEL,
        reference=reference.describe(),
        candidates=tuple(each.describe() for each in candidates),
        pairs=tuple(pairs),
        seed=seed,
        started=started.isoformat(timespec="seconds"),
        seconds=time.perf_counter() - clock,
        environment=describe_environment(device_of(reference.prepared.model)),
    )


def check_options(*, margin: float, least_agreement: float = LEAST_AGREEMENT) -> None:
    """Raise :class:`OptionError` unless both are shares above 0 and below 1."""
    for name, value in (("margin", margin), ("least_agreement", least_agreement)):
        if not 0 < value < 1:
            raise OptionError(name, expected="a share above 0 and below 1", got=value)


class _Stages:
    """Counts what begins, for ``on_stage``."""

    def __init__(self, on_stage: OnStage | None, *, total: int) -> None:
        self.on_stage, self.number, self.total = on_stage, 0, total

    def begin(self, name: str) -> None:
        if self.on_stage is not None:
            self.on_stage(name, self.number, self.total)
        self.number += 1


@dataclass(frozen=True, eq=False)
class _Opened:
    """A model with its predictions; ``softmax``: it puts out probabilities, of which the logits were made."""

    prepared: PreparedModel
    predictions: Predictions
    softmax: bool
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.prepared.name

    @property
    def dataset(self) -> ImageDataset:
        return self.prepared.dataset

    def describe(self) -> ComparedModel:
        correct, data = int(self.predictions.correct.sum()), self.dataset
        return ComparedModel(
            name=self.name,
            accuracy=Proportion.of(correct, len(data)),
            image_shape=data.shape,
            prepared="" if data.preparation is None else data.preparation.spelled,
            non_finite=int((self.predictions.classes < 0).sum()),
            notes=self.notes,
        )


def _open(prepared: PreparedModel, begin: Callable[[str], None]) -> _Opened:
    """The predictions of a model. Raises :class:`ModelError`, which names it, where it cannot be run."""
    begin(f"{prepared.name}: predictions")
    data = prepared.dataset
    try:
        reading = notes_on(prepared.model, to_unit_range(data.images[:2]), classes=data.classes)
        with in_own_runtime(prepared.model) as converted:
            predictions = predict(prepared.model, data)
    except ModelError as error:
        raise ModelError(f"{prepared.name}: {error.where}", expected=error.expected, got=error.got) from error
    notes = dict.fromkeys((*prepared.notes, *reading))
    for each in converted:
        notes["outputs and latency are those of onnxruntime; gradients and layers those of the conversion"] = None
        if each.batch is not None:
            notes[f"onnxruntime is given {plural(each.batch, 'image')} at a time: the program takes no other batch"] = (
                None
            )
    if softmax := are_probabilities(predictions.logits):
        predictions = replace(predictions, logits=to_logits(predictions.logits))
        notes["its outputs are probabilities: their logarithms are taken as logits"] = None
    return _Opened(prepared, predictions, softmax, tuple(notes))


def _difference(reference: _Opened, candidate: _Opened) -> Difference:
    right = (each.predictions.correct.numpy() for each in (reference, candidate))
    return paired_difference("accuracy", *right)


def _pair(
    reference: _Opened,
    candidate: _Opened,
    verdict: tuple[Difference, Equivalence],
    latencies: tuple[LatencyOfBoth, ...] | FailedMeasurement,
    layers: tuple[tuple[LayerDifference, ...], int] | FailedMeasurement,
    transfers: Sequence[Transfer | FailedMeasurement],
) -> ModelPair:
    before, after, data = reference.predictions, candidate.predictions, candidate.dataset
    flipped, counts = find_flips(before, after)
    unchanged = len(data) - len(flipped)
    centred = reference.softmax or candidate.softmax
    outputs, notes = compare_outputs(before, after, centred=centred), []
    if centred:
        notes.append("logits are compared without the mean of each image, which a softmax takes away")
    if outputs and outputs[0].n < len(data):
        notes.append(f"outputs are compared on the {plural(outputs[0].n, 'image')} for which both are finite")
    failures = [each for each in (latencies, layers, *transfers) if isinstance(each, FailedMeasurement)]
    found, images = ((), 0) if isinstance(layers, FailedMeasurement) else layers
    return ModelPair(
        candidate=candidate.name,
        difference=verdict[0],
        equivalence=verdict[1],
        agreement=Proportion.of(unchanged, len(data)),
        identical=equal_bits(before.logits, after.logits),
        flipped=counts,
        flips=tuple(list_flips(before, after, data, flipped[:MOST_FLIPS])),
        mean_confidence_flipped=mean_confidences(before, after, flipped),
        mean_confidence=mean_confidences(before, after, torch.arange(len(data))),
        outputs=outputs,
        layers=found,
        layer_images=images,
        latencies=() if isinstance(latencies, FailedMeasurement) else latencies,
        transfers=tuple(each for each in transfers if isinstance(each, Transfer)),
        failures=tuple(failures),
        notes=tuple(notes),
    )


def _layers(reference: _Opened, candidate: _Opened) -> tuple[tuple[LayerDifference, ...], int]:
    require_same_pixels(reference.prepared, candidate.prepared)
    few = fair_sample(reference.dataset, LAYER_IMAGES)
    return compare_layers(reference.prepared.model, candidate.prepared.model, few)


def _measure_latencies(models: Sequence[_Opened]) -> list[tuple[LatencyOfBoth, ...]]:
    """For each model but the first, seconds of one call beside those of the first, all of them called in turn."""
    measured: list[list[LatencyOfBoth]] = [[] for _ in models[1:]]
    for batch in BATCHES:
        with ExitStack() as stack:
            calls = []
            for each in models:
                data, model = each.dataset, each.prepared.model
                stack.enter_context(in_own_runtime(model))
                rows = torch.arange(rows_that_fit(data.shape, most=batch)) % len(data)
                images = to_unit_range(data.images[rows]).to(device_of(model))
                network = stack.enter_context(calling(model, images, classes=data.classes))
                calls.append(partial(_call, network, images))
            reference, *others = measure_latencies(calls, images, repeats=30, budget=_LATENCY_SECONDS)
        for rows_of, other in zip(measured, others, strict=True):
            rows_of.append(
                LatencyOfBoth(
                    batch=len(rows),
                    reference=reference.median,
                    reference_low=reference.low,
                    reference_high=reference.high,
                    candidate=other.median,
                    candidate_low=other.low,
                    candidate_high=other.high,
                )
            )
    return [tuple(rows_of) for rows_of in measured]


def _call(network: ModelCall, images: Tensor, _inputs: Tensor) -> Tensor:
    return network(images)
