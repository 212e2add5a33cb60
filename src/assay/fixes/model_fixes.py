"""Fixes of weights, mode and optimizer: temperature, factorisation, evaluation mode, parameter groups, statistics."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.comparison.differences import paired_difference
from assay.compression.run import CompressionPlan, compress
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import AssayError
from assay.evaluate import Predictions, predict, summarize
from assay.fixes.fix import Change, Fix, FixContext, RefusedError
from assay.models.calls import calling, copied
from assay.records.comparison import Reading
from assay.runtime import generator
from assay.training.averaging import refresh_batchnorm
from assay.training.param_groups import audit_optimizer, split_parameters
from assay.verdict import judge
from assay.wording import percent

LOWEST, HIGHEST = 0.05, 20.0  # temperatures
FACTORIZATION_IMAGES, MAX_DROP = 2_000, 1.0  # percentage points of accuracy
BATCH = 250
DECAY = 5e-4
STATISTICS_IMAGES = 5_000
HALVES_STREAM, BATCH_STREAM = 0xF2, 0xF3


def _scale_by_temperature(context: FixContext) -> Change:
    """Fit on half of the tested images, measure on the rest: on training images a network is overconfident."""
    predictions = predict(context.model, context.check.clean)
    finite = predictions.logits.isfinite().all(dim=1).nonzero()[:, 0]
    finite = finite[torch.randperm(len(finite), generator=generator(context.check.seed, HALVES_STREAM))]
    fitted, held = (
        Predictions(predictions.logits[rows], predictions.labels[rows], predictions.seconds)
        for rows in (finite[0::2], finite[1::2])
    )
    if len(held.labels) < 2:
        raise RefusedError("too few images to fit on one half and measure on the other")
    temperature = fit_temperature(fitted.logits, fitted.labels)
    fixed = _fold(context, temperature, predictions.logits)
    classes = context.check.clean.classes
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
            Reading(name="expected calibration error, other half", before=worse, after=error, unit="share"),
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

    low, high = 1 / HIGHEST, 1 / LOWEST
    while high - low > 1e-5 * high:
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return 2 / (low + high)


def _fold(context: FixContext, temperature: float, logits: Tensor) -> nn.Module:
    """A copy whose last weighted layer is scaled; refuses where that does not divide the logits."""
    fixed = copied(context.model)
    layers = [module for module in fixed.modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise RefusedError("no last layer to fold a temperature into")
    with torch.no_grad():
        for parameter in layers[-1].parameters(recurse=False):
            parameter.div_(temperature)
    few = min(len(logits), 32)  # enough to see whether anything after the layer is not linear
    scaled = predict(fixed, context.check.clean.subset(torch.arange(few))).logits
    scale = float(logits[:few].abs().max()) or 1.0
    if not float((scaled * temperature - logits[:few]).abs().max()) / scale <= 1e-4:
        raise RefusedError("scaling the last layer does not scale the logits")
    return fixed


def _compress(context: FixContext) -> Change:
    images = context.training_images(FACTORIZATION_IMAGES)
    plan = CompressionPlan(
        max_drop=MAX_DROP, validation=len(images) // 2, attack=None, curve=(), seed=context.check.seed
    )
    try:
        done = compress(context.model, images, context.check.probed, plan, name=context.check.name)
    except AssayError as error:
        raise RefusedError(str(error)) from None
    if not done.factorization:
        raise RefusedError("no layer became both thinner and faster within one point of accuracy")
    before, after = done.report.before, done.report.after
    applied = (
        f"{len(done.factorization)} layers factorised on {done.report.calibration_images} of {len(images):,} images of "
        f"{images.name}, {images.split}, none of them tested; at most {MAX_DROP:g} point lost on others of these"
    )
    return Change(
        applied,
        model=done.model,
        factorization=done.factorization,
        readings=(
            Reading(name="parameters", before=before.parameters, after=after.parameters),
            Reading(name="operations an image", before=before.flops, after=after.flops),
            Reading(name="time, after over before", before=1.0, after=done.report.latency_ratio),
        ),
    )


def _evaluate(context: FixContext) -> Change:
    fixed = copied(context.model).eval()
    data = context.check.clean
    before = _correct_as_given(context.model, data, seed=context.check.seed)
    after = _correct_as_given(fixed, data, seed=context.check.seed)
    effect = paired_difference("accuracy as handed over", before.numpy(), after.numpy())
    return Change(
        f"model.eval(); as handed over it was evaluated in batches of {BATCH}", model=fixed, effects=(effect,)
    )


def _correct_as_given(model: nn.Module, data: ImageDataset, *, seed: int) -> torch.Tensor:
    """bool (N,): which samples are correct with every module in its present mode, in batches of all classes."""
    correct = torch.zeros(len(data), dtype=torch.bool)
    order = torch.randperm(len(data), generator=generator(seed, BATCH_STREAM))
    with calling(model, to_unit_range(data.images[:2]), training=None) as network, torch.no_grad():
        torch.manual_seed(seed)
        for rows in torch.tensor_split(order, math.ceil(len(data) / BATCH)):
            logits = network(to_unit_range(data.images[rows]))
            correct[rows] = logits.argmax(dim=1).cpu() == data.labels[rows]
    return correct


def _regroup(context: FixContext) -> Change:
    model = copied(context.model)
    by_name = audit_optimizer(model, torch.optim.SGD(_groups_by_name(model), lr=0.1))
    by_type = audit_optimizer(model, torch.optim.SGD(split_parameters(model).optimizer_groups(DECAY), lr=0.1))
    left = len(by_type.decayed_norms)
    return Change(
        "an optimizer built with groups by module type, and audited beside one grouped by names; nothing was trained",
        readings=(
            Reading(name="normalisation tensors that decay", before=len(by_name.decayed_norms), after=left),
            Reading(name="parameters grouped wrongly", before=by_name.faults, after=by_type.faults),
        ),
        status="warn" if by_type.faults else "pass",
        measured=f"{left} normalisation tensors decay, {len(by_name.decayed_norms)} when grouped by name",
        value=float(left),
    )


def _groups_by_name(model: nn.Module) -> list[dict[str, object]]:
    """As many training scripts do: parameters with ``bn`` or ``bias`` in their names are exempt."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    exempt = [parameter for name, parameter in named if "bn" in name or "bias" in name]
    rest = [parameter for name, parameter in named if not ("bn" in name or "bias" in name)]
    return [{"params": exempt, "weight_decay": 0.0}, {"params": rest, "weight_decay": DECAY}]


def _reestimate(context: FixContext) -> Change:
    images = context.training_images(STATISTICS_IMAGES)
    fixed = copied(context.model)
    layers = refresh_batchnorm(fixed, images, samples=len(images))
    if layers == 0:
        raise RefusedError("no normalisation layer whose running statistics training would update")
    source = f"{len(images):,} images of {images.name}, {images.split}, none of them tested"
    return Change(f"the running statistics of {layers} layers measured anew on {source}", model=fixed)


TEMPERATURE = Fix("temperature", "weights", _scale_by_temperature)
COMPRESSION = Fix("compression", "weights", _compress, stages=("anatomy", "singular spectra"))
EVALUATION_MODE = Fix("evaluation mode", "mode", _evaluate, stages=("mode audit",))
PARAMETER_GROUPS = Fix("parameter groups", "training", _regroup)
STATISTICS = Fix("statistics", "weights", _reestimate, stages=("normalisation audit",))
