"""Can the result of an attack be trusted? Each check measures one known way in which attacks are fooled."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from assay.arguments import checked
from assay.attacks.engine import attack
from assay.attacks.losses import AttackLoss, cross_entropy, margin
from assay.attacks.methods.apgd import APGDT
from assay.attacks.methods.gradient import FGSM, PGD
from assay.attacks.methods.square import Square
from assay.attacks.network import open_network
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.attacks.threat import GEOMETRIES
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import fair_sample
from assay.models.calls import ModelCall, calling
from assay.models.probes import gap_alone, output_kind, probe_modes, relative_gap
from assay.records.attack import AttackSanity, Norm, SanityCheck, SanityName
from assay.runtime import device_of, exact_device, pixel_dtype, to_double, uncompiled
from assay.runtime.memory import run_in_memory
from assay.runtime.sharing import unchanged_models
from assay.wording import percent

POINTS = 0.02  # accuracies closer than this, or by one sample, count as equal
ENSEMBLE_POINTS = 0.08  # how far the accuracy under PGD may lie above that under the ensemble
ROUNDING = 1e-4  # of the range of the logits: what float32 and another kernel may change
_BATCHES = 4
_BATCH_SIZE = 32
_STEPS = 20


@checked
@unchanged_models()
def measure_attack_sanity(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    norm: Norm = "linf",
    epsilon: float = 8 / 255,
    seed: int = 0,
    n: int = 100,
    queries: int = 300,
    batch_size: int = 128,
) -> AttackSanity:
    """Check that the results of attacks on a model can be trusted: masked gradients, randomness, weak attacks.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: ``n`` of its samples are attacked, a few hundred passes for each that is not broken: the first, or some
            of every class where the set is ordered by class.
        norm: of the perturbation: linf, l2 or l1.
        epsilon: radius of the ball in pixel units.
        seed: of all random numbers.
        n: how many samples.
        queries: of the black-box search that gradient attacks must beat.
        batch_size: images at one time.

    Returns:
        Up to fifteen checks, each with its value and limit; those that need samples which are correct before the
        attack are left out where there are none.

    Raises:
        ModelError: a model that cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> sanity = assay.measure_attack_sanity(model, data, epsilon=0.1, queries=20)
        >>> sanity.find("not differentiable").raised
        False

    Reference:
        Carlini et al. 2019, arXiv:1902.06705, section 5; Athalye et al. 2018, arXiv:1802.00420.
    """
    started = time.perf_counter()
    data = fair_sample(dataset, n)
    run = _SanityRun(model, data, norm, epsilon, seed, queries, batch_size)
    checks = (*_check_outputs(run), *_check_gradients(run), *_check_attacks(run))
    return AttackSanity(norm=norm, epsilon=epsilon, n=len(data), checks=checks, seconds=time.perf_counter() - started)


@dataclass(eq=False)
class _SanityRun:
    model: nn.Module
    data: ImageDataset
    norm: Norm
    epsilon: float
    seed: int
    queries: int
    batch_size: int
    clean_logits: Tensor | None = None  # once an attack has evaluated the untouched images
    outside: list[int] = field(default_factory=list)  # images outside the ball, of each attack so far

    @property
    def images(self) -> Tensor:
        home = exact_device(device_of(self.model))
        return to_unit_range(self.data.images.to(home), pixel_dtype(self.model))

    def still_robust(self, options: AttackOptions, rows: Tensor) -> Tensor:
        """Which of ``rows``, bool (N,), are robust to this attack as well."""
        if not bool(rows.any()):
            return rows
        data = self.data.subset(rows)
        known = None if self.clean_logits is None else self.clean_logits[rows]
        left = rows.clone()
        left[rows] = replace(self, data=data, clean_logits=known).attack(options).robust
        return left

    def attack(self, options: AttackOptions, *, epsilon: float | None = None) -> AttackResult:
        radius = self.epsilon if epsilon is None else epsilon
        run = partial(attack, norm=self.norm, epsilon=radius, seed=self.seed, batch_size=self.batch_size)
        result = run_in_memory(
            partial(
                run,
                self.model,
                self.images,
                self.data.labels,
                attack=options,
                ids=self.data.ids,
                clean_logits=self.clean_logits,
            )
        )
        self.clean_logits = result.clean_logits
        self.outside.append(result.counts.outside_ball)
        return result


def _check(name: SanityName, value: float | None, limit: float, detail: str) -> SanityCheck:
    return SanityCheck(name=name, value=value, limit=limit, detail=detail)


def _check_outputs(run: _SanityRun) -> Iterator[SanityCheck]:
    """What kind the outputs are, and whether they are the same when repeated and in another batch."""
    model = run.model
    modes = {name: module.training for name, module in model.named_modules()}
    with (
        uncompiled(),
        calling(model, run.images) as network,
        torch.no_grad(),
    ):
        with probe_modes(model) as probe:
            network(run.images[:_BATCH_SIZE])
        batches = torch.split(run.images, _BATCH_SIZE)[:_BATCHES]
        outputs = [to_double(network(batch)) for batch in batches]
        widest = max(outputs, key=lambda logits: float(logits.max() - logits.min()))
        repeats = max(
            relative_gap(to_double(network(batch)), logits, widest)
            for batch, logits in zip(batches, outputs, strict=True)
            for _ in range(2)
        )
        batch_gap = max(_batch_gap(network, *pair, widest) for pair in zip(batches, outputs, strict=True))
    in_training = [name or "the model" for name in modes if name in probe.dependent(model) and modes[name]]
    detail = f"{len(in_training)} modules were in training mode, such as {in_training[0]}" if in_training else "none"
    yield _check("train mode", float(len(in_training)), 0.0, detail)
    detail = f"{len(batches)} batches evaluated three times differ by {repeats:.2g} of the range of the logits"
    finite = not math.isnan(repeats)  # else there is no logit to compare or to tell the kind of
    yield _check("randomised", repeats if finite else None, ROUNDING, detail if finite else "no logit is finite")
    kind = output_kind(torch.cat(outputs))
    yield _check("not logits", float(kind != "logits") if finite else None, 0.0, f"outputs look like {kind}")
    detail = f"a sample alone and in its batch differ by {batch_gap:.2g} of the range of the logits"
    known = repeats <= ROUNDING  # a randomised model differs from itself in any batch
    yield _check("depends on the batch", batch_gap if known else None, 10 * ROUNDING, detail)


def _batch_gap(network: ModelCall, images: Tensor, logits: Tensor, widest: Tensor) -> float:
    """The largest change when samples are evaluated alone, and in a batch in reverse order."""
    reversed_gap = relative_gap(to_double(network(images.flip(0))).flip(0), logits, widest)
    alone, error = gap_alone(lambda image: to_double(network(image)), images, logits, scale=widest)
    return reversed_gap if error else max(reversed_gap, alone)


def _check_gradients(run: _SanityRun) -> Iterator[SanityCheck]:
    """Whether there is a gradient to follow, of the cross-entropy and of the margin."""
    dead_ce, connected = _dead_gradients(run, cross_entropy)
    dead_margin, _ = _dead_gradients(run, margin)
    both, ce_only = _share(dead_ce & dead_margin), _share(dead_ce & ~dead_margin)
    detail = "the graph is connected" if connected else "the outputs do not depend on the input through the graph"
    yield _check("not differentiable", float(not connected), 0.0, detail)
    detail = f"{percent(both)} of the samples have no usable gradient of the cross-entropy nor of the margin"
    yield _check("zero gradients", both, POINTS, detail)
    detail = f"{percent(ce_only)} of the samples have no usable gradient of the cross-entropy, but one of the margin"
    yield _check("saturated", ce_only, POINTS, detail)


def _dead_gradients(run: _SanityRun, loss: AttackLoss) -> tuple[Tensor, bool]:
    """bool (N,): a gradient that is zero or not finite; and whether there was a graph at all."""
    dead: list[Tensor] = []
    connected = True
    labels = run.data.labels.to(run.images.device)
    with open_network(run.model, run.images[:2], fold=False) as network:
        size = network.original.rows_that_fit(run.data.shape, most=run.batch_size, gradients=True)
        parts = (torch.split(tensor, size) for tensor in (run.images, labels))
        for images, classes in zip(*parts, strict=True):
            gradient = network.gradient(images, classes, loss)
            connected = connected and gradient is not None
            flat = torch.zeros_like(images).flatten(1) if gradient is None else gradient.flatten(1)
            dead.append(~flat.isfinite().all(dim=1) | (flat.abs().amax(dim=1) == 0))
    return torch.cat(dead).cpu(), connected


def _check_attacks(run: _SanityRun) -> Iterator[SanityCheck]:
    """Whether attacks behave as they do on a model that masks nothing."""
    equal = max(POINTS, 1 / len(run.data))  # accuracies that lie no further apart count as equal
    one = run.attack(FGSM())
    many = run.attack(PGD(steps=_STEPS))
    if not bool(one.clean_correct.any()):
        return
    left = _share(many.robust)
    detail = f"one step leaves {percent(_share(one.robust))}, {_STEPS} steps leave {percent(left)}"
    yield _check("one step beats many", left - _share(one.robust), equal, detail)
    wider = _share(run.attack(PGD(steps=_STEPS), epsilon=2 * run.epsilon).robust)
    detail = f"{percent(left)} left at epsilon, {percent(wider)} at twice epsilon"
    yield _check("rises with epsilon", wider - left, equal, detail)
    pixels = torch.ones(1, run.data.images[0].numel(), dtype=torch.float64)
    unbounded = run.attack(PGD(steps=_STEPS), epsilon=float(GEOMETRIES[run.norm].distance(pixels)))
    huge, chance = _share(unbounded.robust), 1 / len(run.data.classes)
    detail = f"{percent(huge)} left where any image is allowed; chance is {percent(chance)}"
    yield _check("survives any epsilon", huge, chance, detail)
    # What was broken stays so: the others attack the rest alone.
    newly_broken = left - _share(run.still_robust(PGD(steps=2 * _STEPS, restarts=2), many.robust))
    detail = f"twice the steps and restarts break another {percent(newly_broken)}"
    yield _check("more steps help", newly_broken, 2 * equal, detail)
    black_box = run.still_robust(Square(queries=run.queries), many.robust)
    missed = left - _share(black_box)
    detail = f"a search without gradients breaks {percent(missed)} that {_STEPS} gradient steps do not"
    yield _check("black box beats white box", missed, equal, detail)
    together = _share(run.still_robust(APGDT(steps=50, n_target_classes=3), black_box))
    detail = f"PGD leaves {percent(left)}, all attacks together {percent(together)}"
    yield _check("far from the ensemble", left - together, ENSEMBLE_POINTS, detail)
    yield _check_convergence(many)
    outside = max(run.outside)
    detail = f"{outside} images lay outside the ball or the pixel bounds and were not counted"
    yield _check("outside the ball", float(outside), 0.0, detail)


def _check_convergence(result: AttackResult) -> SanityCheck:
    """How much the mean loss of the samples that are still correct rose over the last fifth of the steps."""
    value, detail = None, "no sample is still correct"
    if result.trace is not None and bool(result.robust.any()):
        losses = result.trace.losses.cpu()[result.robust].double().mean(dim=0)
        late = len(losses) - 1 - max(1, (len(losses) - 1) // 5)
        value = float((losses[-1] - losses[late]) / losses[late].abs().clamp_min(1e-12))
        detail = f"the loss of samples still correct rose by {percent(value)} over the last fifth of the steps"
    return _check("still climbing", value, 0.1, detail)


def _share(rows: Tensor) -> float:
    return int(rows.sum()) / len(rows)
