"""Compress a network on data: weigh, choose, fit, fine-tune, and measure before and after."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods import find_attack
from assay.compression.calibration import SEEN, Site, find_sites
from assay.compression.description import describe_layer
from assay.compression.network import (
    KINDS,
    Candidate,
    Fitted,
    Latency,
    Weighed,
    check_sites,
    choose,
    compress_network,
    factors_of,
    measure_latencies,
    uniform,
    weigh_network,
)
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import stratified_split
from assay.errors import OptionError
from assay.evaluate import measure_clean_accuracy, predict
from assay.files import write_atomically
from assay.models.anatomy import measure_anatomy
from assay.models.factorized import Kind, LayerFactors, write_structure
from assay.models.sources.named import parse_architecture
from assay.models.sources.run_folder import CONFIG, WEIGHTS, is_run_folder
from assay.records.compression import CompressionPoint, CompressionReport, Standing
from assay.runtime import device_of, dtype_of, generator
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.step import Distillation

TEMPERATURE = 4.0


@contextmanager
def with_running_statistics(model: nn.Module) -> Iterator[None]:
    """Inside, BatchNorm normalises as it will when the network is used, and learns no other statistics.

    A network near its end loses more by the noise of a batch's statistics than a short training wins back: the public
    ResNet-20 answers 4 % of its own training images otherwise when it goes by the batch.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    yield


def fine_tune(
    model: nn.Module, original: nn.Module, train: ImageDataset, *, epochs: float, lr: float, seed: int
) -> None:
    """Train ``model``, in place, to answer as ``original`` does to pictures moved and mirrored, whatever their labels.

    Softened, the answers tell more than the labels do: which wrong classes a picture resembles, and how much.
    """
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
    loss = Distillation(copy.deepcopy(original).eval(), TEMPERATURE)
    fit(model, train, recipe=recipe, seed=seed, loss=loss, step_context=with_running_statistics)


SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.2)
CURVE = (0.25, 0.5, 0.75)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to aim for and how much to spend.

    Either ``share`` of the FLOPs, or ``max_drop``: the fewest FLOPs that cost at most so many points of accuracy on
    images held out of the training set, before fine-tuning. ``epochs`` of fine-tuning (0: none) at ``lr``, on the
    original network's answers.
    """

    share: float | None = None
    max_drop: float | None = None
    kinds: tuple[Kind, ...] = KINDS
    calibration: int = 256
    validation: int = 2000
    epochs: float = 0.0
    lr: float = 3e-4
    batch: int = 64
    attack: str | None = "pgd"
    epsilon: float = 8 / 255
    robust_images: int = 500
    curve: tuple[float, ...] = CURVE
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.share is None) == (self.max_drop is None):
            raise OptionError("target", expected="a share of the FLOPs, or max_drop", got="both or neither")
        if self.share is not None and not 0 < self.share < 1:
            raise OptionError("target", expected="a share of the FLOPs between 0 and 1, such as 0.5x", got=self.share)
        if self.max_drop is not None and not 0 <= self.max_drop < 100:
            raise OptionError("max_drop", expected="points of accuracy, 0 to 100", got=self.max_drop)
        if self.attack is not None:
            find_attack(self.attack)  # a wrong name shall not be found out after the fine-tuning


@dataclass(frozen=True, eq=False)
class Compressed:
    """The smaller network, its structure, and what was measured."""

    model: nn.Module
    factorization: tuple[LayerFactors, ...]
    report: CompressionReport


def compress(
    model: nn.Module,
    train: ImageDataset,
    test: ImageDataset,
    plan: Plan,
    *,
    name: str = "model",
    say: Say = lambda _: None,
) -> Compressed:
    """Replace layers of ``model`` by thinner chains fitted to data, within a budget; ``model`` is left as it was.

    Everything is chosen on ``train`` (calibration images, and others held out of it); ``test`` is read at the end,
    once for each of the networks. Raises :class:`ModelError` for a network without a layer to factorise, and
    :class:`OptionError` for a target that layers which get faster cannot reach.
    """
    started = time.perf_counter()
    held_out = min(0.5, plan.validation / len(train))
    kept, validation = stratified_split(train, fraction=held_out, seed=plan.seed)
    order = torch.randperm(len(kept), generator=generator(plan.seed, 0x90))
    calibration = kept.subset(order[: plan.calibration])
    total = measure_anatomy(model, image_shape=train.shape).flops
    sites = find_sites(model, kept.subset(order[:SEEN]))
    check_sites(sites, name)
    say(f"weighing {len(sites)} layers")
    weighed = weigh_network(model, sites, calibration, kinds=plan.kinds, batch=plan.batch)
    chosen, fitted = _reach(model, sites, weighed, calibration, validation, plan, total=total, say=say)
    curve = _sweep(model, sites, calibration, validation, plan, say=say)
    untuned = measure_clean_accuracy(fitted.model, test)
    smaller, seconds = fitted.model, 0.0
    if plan.epochs:
        say(f"fine-tuning for {plan.epochs:g} epochs")
        began = time.perf_counter()
        fine_tune(smaller, model, train, epochs=plan.epochs, lr=plan.lr, seed=plan.seed)
        seconds = time.perf_counter() - began
    say("measuring before and after")
    latencies, ratio = _time_both(model, smaller, test, batch=plan.batch)
    report = CompressionReport(
        model=name,
        data=test.name,
        target=f"{plan.share:g}x" if plan.share is not None else f"at most {plan.max_drop:g} points",
        calibration_images=len(calibration),
        fine_tuning_seconds=seconds,
        fine_tuning_epochs=plan.epochs,
        seconds=time.perf_counter() - started,
        before=_stand(model, test, plan, latencies[0]),
        compressed=untuned,
        after=_stand(smaller, test, plan, latencies[1]),
        latency_ratio=ratio,
        layers=tuple(describe_layer(model, smaller, w, c, fitted) for w, c in zip(weighed, chosen, strict=True)),
        curve=curve,
        curve_top=_accuracy(model, validation),
    )
    return Compressed(smaller, fitted.factorization, report)


def _reach(
    model: nn.Module,
    sites: Sequence[Site],
    weighed: Sequence[Weighed],
    calibration: ImageDataset,
    validation: ImageDataset,
    plan: Plan,
    *,
    total: int,
    say: Say,
) -> tuple[tuple[Candidate, ...], Fitted]:
    """What was chosen, fitted: at one share, or by bisection over shares for the largest drop that is allowed."""
    if plan.share is not None:
        chosen = choose(weighed, total_flops=total, share=plan.share)
        say(f"fitting {len(factors_of(chosen))} layers")
        return chosen, compress_network(model, factors_of(chosen), calibration, sites=sites)
    assert plan.max_drop is not None
    base = _accuracy(model, validation)
    nothing = tuple(layer.candidates[0] for layer in weighed)
    best = (nothing, Fitted(copy.deepcopy(model), (), {}))
    low, high = 0, len(SHARES) - 1
    while low <= high:
        middle = (low + high) // 2
        try:
            chosen = choose(weighed, total_flops=total, share=SHARES[middle])
        except OptionError:
            high = middle - 1
            continue
        fitted = compress_network(model, factors_of(chosen), calibration, sites=sites)
        drop = 100 * (base - _accuracy(fitted.model, validation))
        say(f"{SHARES[middle]:g}x of the FLOPs: {drop:.2f} points lost on held-out training images")
        if drop <= plan.max_drop:
            best, low = (chosen, fitted), middle + 1
        else:
            high = middle - 1
    return best


def _sweep(
    model: nn.Module,
    sites: Sequence[Site],
    calibration: ImageDataset,
    validation: ImageDataset,
    plan: Plan,
    *,
    say: Say,
) -> tuple[CompressionPoint, ...]:
    """Accuracy against a uniform share of the ranks, with the data and from the weights alone, without fine-tuning."""
    points = []
    for share in plan.curve:
        say(f"all layers at {100 * share:.0f} % of their rank")
        for use_data in (True, False):
            fitted = compress_network(
                model, uniform(model, sites, share=share), calibration, sites=sites, use_data=use_data
            )
            points.append(
                CompressionPoint(
                    method="data-aware" if use_data else "weight SVD",
                    share=share,
                    flops=measure_anatomy(fitted.model, image_shape=validation.shape).flops,
                    accuracy=_accuracy(fitted.model, validation),
                    n=len(validation),
                )
            )
    return tuple(points)


def _time_both(
    before: nn.Module, after: nn.Module, test: ImageDataset, *, batch: int
) -> tuple[tuple[Latency, Latency], float]:
    copies = [copy.deepcopy(m).eval().to(memory_format=torch.channels_last) for m in (before, after)]
    images = to_unit_range(test.images[:batch].to(device_of(before)), dtype_of(before))
    first, second = measure_latencies(
        copies, images.contiguous(memory_format=torch.channels_last), repeats=30, budget=20
    )
    return (first, second), second.fastest / first.fastest


def _stand(model: nn.Module, test: ImageDataset, plan: Plan, latency: Latency) -> Standing:
    anatomy = measure_anatomy(model, image_shape=test.shape)
    robust = None
    if plan.attack is not None:
        few = test.subset(torch.arange(min(plan.robust_images, len(test))))
        robust = measure_robust_accuracy(model, few, attack=plan.attack, epsilon=plan.epsilon, seed=plan.seed).record
    return Standing(
        parameters=anatomy.parameters,
        flops=anatomy.flops,
        latency=latency.fastest,
        latency_low=latency.low,
        latency_high=latency.high,
        batch=plan.batch,
        clean=measure_clean_accuracy(model, test),
        robust=robust,
    )


def _accuracy(model: nn.Module, dataset: ImageDataset) -> float:
    return float(predict(model, dataset).correct.double().mean())


def save_compressed(
    out: Path,
    model: nn.Module,
    factorization: Sequence[LayerFactors],
    *,
    spec: str,
    classes: tuple[str, ...],
    image_shape: tuple[int, int, int],
    options: Mapping[str, object] | None = None,
) -> None:
    """Write ``model.safetensors``, its structure in the header, and ``config.json`` where the model has a name.

    A model that a user's own code makes gets no config, for a folder names no code to run:
    ``file.py:factory --weights OUT/model.safetensors`` loads it. ``options`` are those of the architecture that
    ``spec`` does not spell.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    write_atomically(out / WEIGHTS, save(tensors, metadata=write_structure(factorization) or None))
    if is_run_folder(Path(spec)):
        described = json.loads((Path(spec) / CONFIG).read_text(encoding="utf-8"))["model"]
    else:
        named = parse_architecture(spec)
        if named is None:
            return
        name, spelled = named
        described = {
            "name": name,
            "classes": list(classes),
            "image_shape": list(image_shape),
            **_normalization(model),
            "options": {**spelled, **(options or {})},
        }
    config = {"schema_version": 1, "model": described}
    write_atomically(out / CONFIG, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _normalization(model: nn.Module) -> dict[str, list[float]]:
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if {"mean", "std"} <= buffers.keys():
            return {name: buffers[name].flatten().tolist() for name in ("mean", "std")}
    return {}
