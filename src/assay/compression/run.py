"""Compress a network on data: evaluate candidates, choose, fit, fine-tune, and measure before and after."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.arguments import checked, checked_fields
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods import find_attack
from assay.compression import network
from assay.compression.calibration import METRIC_IMAGES, TEMPERATURE, Site, find_sites
from assay.compression.network import KINDS, Candidate, Fitted, LayerCandidates, factors_of
from assay.compression.within import (
    TUNING_PASSES,
    describe_measurement,
    shorten_measurement,
    shorten_search,
    time_pass,
)
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import fair_sample, stratified_split
from assay.errors import DataError, ModelError, OptionError
from assay.evaluate import measure_clean_accuracy, predict
from assay.models.anatomy import measure_anatomy
from assay.models.calls import calling, copied, notes_on
from assay.models.factorized import Kind, LayerFactors
from assay.records.compression import CompressionPoint, CompressionReport, NetworkMeasurement
from assay.runtime import device_of, generator, preserved
from assay.runtime.latency import Latency, measure_latencies
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.step import Distillation
from assay.wording import plural


@contextmanager
def with_running_statistics(model: nn.Module) -> Iterator[None]:
    """A step context: BatchNorm normalises by its running statistics, and does not update them.

    In a trained network the noise of batch statistics costs more than a short training recovers: with them the public
    ResNet-20 changes its prediction on 4 % of its own training images.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    yield


def fine_tune(
    model: nn.Module, original: nn.Module, train: ImageDataset, *, epochs: float, lr: float, seed: int
) -> None:
    """Train ``model``, in place, by knowledge distillation from ``original`` on augmented images, without labels."""
    recipe = Recipe.parse(
        {
            "name": "fine-tuning",
            "epochs": epochs,
            "batch_size": 128,
            "precision": "auto",
            "optimizer": {"name": "adamw", "lr": lr, "weight_decay": 1e-4},  # factors differ in scale, steps should not
            "schedule": {"name": "triangular", "peak": 0.1, "start": 0.2},
            "clip": {"name": "norm", "limit": 1.0},
            "augment": {"name": "flip-crop", "padding": max(1, train.shape[1] // 8), "flip": train.shape[0] == 3},
        },
        where="fine-tuning",
    )
    loss = Distillation(copied(original).eval(), TEMPERATURE)
    fit(model, train, recipe=recipe, seed=seed, loss=loss, step_context=with_running_statistics)


FLOP_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2)
OnProgress = Callable[[str], None]


@checked_fields
@dataclass(frozen=True)
class CompressionPlan:
    """The budget of a compression, ``share`` or ``max_drop``, and the effort."""

    share: float | None = None  # of the FLOPs to keep, in (0, 1)
    max_drop: float | None = None  # points of accuracy that may be lost on ``validation``, before fine-tuning
    kinds: tuple[Kind, ...] = KINDS  # the forms that a layer may take
    calibration: int = 256  # training images that layers are fitted on
    validation: int = 2000  # training images held out
    epochs: float = 0.0  # of fine-tuning on the original network's softened outputs; 0: none
    lr: float = 3e-4  # of the fine-tuning (AdamW)
    batch: int = 64  # images in a batch when latency is measured
    attack: str | None = "pgd"  # for robust accuracy before and after; None: not measured
    epsilon: float = 8 / 255
    robust_images: int = 500
    curve: tuple[float, ...] = (0.25, 0.5, 0.75)  # uniform shares of the ranks to measure accuracy at
    seed: int = 0  # of the split, the calibration images and the fine-tuning

    def __post_init__(self) -> None:
        if (self.share is None) == (self.max_drop is None):
            raise OptionError("target", expected="a share of the FLOPs, or max_drop", got="both or neither")
        if self.share is not None and not 0 < self.share < 1:
            raise OptionError("target", expected="a share of the FLOPs between 0 and 1, such as 0.5x", got=self.share)
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise OptionError("max_drop", expected="points of accuracy, 0 to 100", got=self.max_drop)
        for field in ("calibration", "validation", "batch", "robust_images"):
            if getattr(self, field) < 1:
                raise OptionError(field, expected="at least 1", got=getattr(self, field))
        if not 0 <= self.epochs < math.inf:
            raise OptionError("epochs", expected="at least 0", got=self.epochs)
        if not 0 < self.lr < math.inf:
            raise OptionError("lr", expected="a number above 0", got=self.lr)
        if not all(0 < share <= 1 for share in self.curve):
            raise OptionError("curve", expected="shares in (0, 1]", got=self.curve)
        if not self.kinds:
            raise OptionError("kinds", expected=f"some of {', '.join(KINDS)}", got="none")
        if self.attack is not None:
            find_attack(self.attack)  # a wrong name must not surface only after the fine-tuning


@dataclass(frozen=True, eq=False)
class Compressed:
    """The smaller network, its structure, and what was measured."""

    model: nn.Module
    factorization: tuple[LayerFactors, ...]
    report: CompressionReport


@checked
def compress(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    plan: CompressionPlan,
    *,
    name: str = "model",
    within: float | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Compressed:
    """Replace layers of ``model`` by chains of thinner ones fitted to data, within a budget of FLOPs or accuracy.

    Only layers whose measured latency falls are replaced. Everything is chosen on ``train``; ``test`` is evaluated at
    the end, once for each network.

    Args:
        model: Takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was.
        train: Calibration images, and others held out of it to choose by.
        test: What the report's accuracies are measured on.
        plan: The budget and the effort; see :class:`CompressionPlan`.
        name: What the report calls the model.
        within: Seconds that it is to take: networks are compared on as many images as that leaves. The layers are
            searched and fitted whatever the time.
        on_progress: Called with a line of text as the work goes on.

    Returns:
        The smaller network, its structure, and the report with parameters, FLOPs, latency and accuracies of both.

    Raises:
        ModelError: The model cannot be run on such images, or no layer can be factorised; it says why.
        DataError: ``train`` and ``test`` differ in shape or classes.
        OptionError: The target cannot be met by replacing layers that get faster, or is not met in the end.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> plan = assay.compression.CompressionPlan(max_drop=99, calibration=32, validation=16, attack=None, curve=())
        >>> compressed = assay.compress(model, data, data, plan)
        >>> compressed.report.after.flops <= compressed.report.before.flops
        True

    Reference:
        Zhang, Zou, He & Sun, *Accelerating very deep convolutional networks for classification and detection*,
        IEEE TPAMI 38 (2016).
    """
    started = time.perf_counter()
    _check_alike(train, test)
    if within is not None and not within > 0:
        raise OptionError("within", expected="a number of seconds above 0", got=within)
    available = test
    with preserved(model):
        pass_seconds = time_pass(model, test) if within is not None else 0.0
        if within is not None:
            evaluations = 1 + 2 * len(plan.curve) + (0 if plan.max_drop is None else 1 + len(FLOP_SHARES).bit_length())
            plan = shorten_search(plan, evaluations * pass_seconds, seconds=within)
        held_out = min(0.5, plan.validation / len(train))
        remaining, validation = stratified_split(train, fraction=held_out, seed=plan.seed)
        order = torch.randperm(len(remaining), generator=generator(plan.seed, 0x90))
        calibration = remaining.subset(order[: plan.calibration])
        left_out: dict[str, str] = {}
        sites = find_sites(model, remaining.subset(order[:METRIC_IMAGES]), left_out=left_out)
        if not sites:
            reasons = "; ".join(f"{layer}: {reason}" for layer, reason in list(left_out.items())[:3])
            raise ModelError(
                name,
                expected="linear or convolutional layers that can be factorised",
                got=f"none ({reasons or 'it has none'})",
            )
        total = measure_anatomy(model, image_shape=train.shape).flops
        on_progress(f"evaluating candidates for {plural(len(sites), 'layer')}")
        candidates = network.evaluate_network(model, sites, calibration, kinds=plan.kinds, batch=plan.batch)
        search = _Search(model, sites, calibration, validation, plan, on_progress)
        chosen, fitted = search.choose(candidates, total=total)
        curve = search.sweep()
        wanted = plan
        if within is not None:
            left = within - (time.perf_counter() - started) - plan.epochs * len(train) * TUNING_PASSES * pass_seconds
            plan, test = shorten_measurement(plan, model, test, pass_seconds, seconds=left)
            on_progress(describe_measurement(plan, wanted, test, available))
        untuned = measure_clean_accuracy(fitted.model, test)
        smaller, seconds = fitted.model, 0.0
        if plan.epochs:
            on_progress(f"fine-tuning for {plan.epochs:g} epochs")
            began = time.perf_counter()
            fine_tune(smaller, model, train, epochs=plan.epochs, lr=plan.lr, seed=plan.seed)
            seconds = time.perf_counter() - began
        on_progress("measuring before and after")
        latencies = _measure_latencies((model, smaller), test, batch=plan.batch)
        before, after = (_measure(each, test, plan, t) for each, t in zip((model, smaller), latencies, strict=True))
        if plan.share is not None and after.flops > plan.share * before.flops:
            got = f"{after.flops / before.flops:.3f}x, as measured"
            raise OptionError("target", expected=f"a network whose FLOPs come to {plan.share:g}x", got=got)
        report = CompressionReport(
            model=name,
            data=test.name,
            target=f"{plan.share:g}x" if plan.share is not None else f"at most {plan.max_drop:g} points",
            calibration_images=len(calibration),
            fine_tuning_seconds=seconds,
            fine_tuning_epochs=plan.epochs,
            seconds=time.perf_counter() - started,
            before=before,
            compressed=untuned,
            after=after,
            latency_ratio=after.latency / before.latency,
            layers=tuple(
                network.describe_layer(model, smaller, fitted, *pair) for pair in zip(candidates, chosen, strict=True)
            ),
            curve=curve,
            curve_top=_accuracy(model, validation),
            left_out=tuple(left_out.items()),
            notes=(
                *notes_on(model, to_unit_range(test.images[:2]), classes=test.classes),
                *_notes(plan, before, after, replaced=len(fitted.factorization)),
                *([] if within is None else [describe_measurement(plan, wanted, test, available)]),
            ),
        )
    return Compressed(smaller, fitted.factorization, report)


@dataclass(frozen=True, eq=False)
class _Search:
    """The network, its replaceable layers, and the images that candidates are fitted on and compared by."""

    model: nn.Module
    sites: Sequence[Site]
    calibration: ImageDataset
    validation: ImageDataset
    plan: CompressionPlan
    on_progress: OnProgress

    def fit(self, factors: Sequence[LayerFactors], *, use_data: bool = True) -> Fitted:
        return network.compress_network(self.model, factors, self.calibration, sites=self.sites, use_data=use_data)

    def choose(self, candidates: Sequence[LayerCandidates], *, total: int) -> tuple[tuple[Candidate, ...], Fitted]:
        """The chosen candidates, fitted: at one share, or by bisection over shares for the largest drop allowed."""
        if self.plan.share is not None:
            chosen = network.choose(candidates, total_flops=total, share=self.plan.share)
            self.on_progress(f"fitting {len(factors_of(chosen))} layers")
            return chosen, self.fit(factors_of(chosen))
        assert self.plan.max_drop is not None
        base = _accuracy(self.model, self.validation)
        nothing = tuple(layer.candidates[0] for layer in candidates)
        best = (nothing, Fitted(copied(self.model), (), {}))
        low, high = 0, len(FLOP_SHARES) - 1
        while low <= high:
            middle = (low + high) // 2
            try:
                chosen = network.choose(candidates, total_flops=total, share=FLOP_SHARES[middle])
            except OptionError:
                high = middle - 1
                continue
            fitted = self.fit(factors_of(chosen))
            drop = 100 * (base - _accuracy(fitted.model, self.validation))
            self.on_progress(f"{FLOP_SHARES[middle]:g}x of the FLOPs: {drop:.2f} points lost on held-out images")
            if drop <= self.plan.max_drop:
                best, low = (chosen, fitted), middle + 1
            else:
                high = middle - 1
        return best

    def sweep(self) -> tuple[CompressionPoint, ...]:
        """Accuracy against a uniform share of the ranks, fitted to data and from the weights alone."""
        points = []
        for share in self.plan.curve:
            self.on_progress(f"all layers at {100 * share:.0f} % of their rank")
            for use_data in (True, False):
                fitted = self.fit(network.uniform(self.model, self.sites, share=share), use_data=use_data)
                points.append(
                    CompressionPoint(
                        method="data-aware" if use_data else "weight SVD",
                        share=share,
                        flops=measure_anatomy(fitted.model, image_shape=self.validation.shape).flops,
                        accuracy=_accuracy(fitted.model, self.validation),
                        n=len(self.validation),
                    )
                )
        return tuple(points)


def _measure(model: nn.Module, test: ImageDataset, plan: CompressionPlan, latency: Latency) -> NetworkMeasurement:
    anatomy = measure_anatomy(model, image_shape=test.shape)
    robust = None
    if plan.attack is not None:
        few = fair_sample(test, plan.robust_images)
        robust = measure_robust_accuracy(model, few, attack=plan.attack, epsilon=plan.epsilon, seed=plan.seed).record
    return NetworkMeasurement(
        parameters=anatomy.parameters,
        flops=anatomy.flops,
        latency=latency.fastest,
        latency_low=latency.low,
        latency_high=latency.high,
        batch=plan.batch,
        clean=measure_clean_accuracy(model, test),
        robust=robust,
    )


def _measure_latencies(models: Sequence[nn.Module], test: ImageDataset, *, batch: int) -> tuple[Latency, ...]:
    """One batch of exactly ``batch`` images through a copy of each; the images repeat where ``test`` has fewer."""
    copies = [copied(model).eval() for model in models]
    for parameter in (parameter for each in copies for parameter in each.parameters() if parameter.ndim == 4):
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    images = to_unit_range(test.images[torch.arange(batch) % len(test)]).to(device_of(models[0]))
    with ExitStack() as stack:
        networks = [stack.enter_context(calling(each, images)) for each in copies]
        return measure_latencies(networks, images, repeats=30, budget=20)


def _check_alike(train: ImageDataset, test: ImageDataset) -> None:
    if train.shape != test.shape:
        raise DataError("test", expected=f"images of the shape of train, {train.shape}", got=test.shape)
    if train.classes != test.classes:
        got = f"{len(test.classes)}: {', '.join(test.classes[:4])}, …"
        expected = f"the {len(train.classes)} classes of train, in their order: {', '.join(train.classes[:4])}, …"
        raise DataError("test: classes", expected=expected, got=got)


def _notes(
    plan: CompressionPlan, before: NetworkMeasurement, after: NetworkMeasurement, *, replaced: int
) -> Iterator[str]:
    if not replaced:
        yield "no layer was replaced: the network is the one that was handed in"
    elif after.latency >= before.latency:
        yield "the network as a whole did not get faster, though each replaced layer did"
    drop = 100 * (before.clean.accuracy - after.clean.accuracy)
    if plan.max_drop is not None and drop > plan.max_drop:
        allowed = f"{plan.max_drop:g} were allowed on images held out of the training set"
        yield f"{drop:.2f} points are lost on the test images; {allowed}"


def _accuracy(model: nn.Module, dataset: ImageDataset) -> float:
    return float(predict(model, dataset).correct.double().mean())
