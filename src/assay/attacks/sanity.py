"""Can the answer of an attack be trusted? Each check measures one known way of fooling attacks, or oneself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks.engine import attack
from assay.attacks.methods.apgd import APGDT
from assay.attacks.methods.gradient import FGSM, PGD
from assay.attacks.methods.square import Square
from assay.attacks.network import open_network
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.data.dataset import ImageDataset, to_unit_range
from assay.records.attack import AttackSanity, Norm, SanityCheck
from assay.runtime import device_of, dtype_of, preserved

POINTS = 0.02  # accuracies closer than this, or by one sample, are taken for equal
ENSEMBLE_POINTS = 0.08  # how far PGD may lie above the ensemble
ROUNDING = 1e-4  # of the range of the logits: what float32 and another kernel may change
_PASSES = 4
_STEPS = 20


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
    """Run every check on the first ``n`` samples, a few hundred passes each on those that hold out.

    ``queries`` is the budget of the search without gradients that the gradient attacks must beat.

    The model is left as found. A check that needs samples which are right before the attack is not run without any.
    """
    started = time.perf_counter()
    data = dataset.subset(torch.arange(min(n, len(dataset))))
    bench = _Bench(model, data, norm=norm, epsilon=epsilon, seed=seed, queries=queries, batch_size=batch_size)
    checks = (*_answers(bench), *_gradients(bench), *_attacks(bench))
    return AttackSanity(norm=norm, epsilon=epsilon, n=len(data), checks=checks, seconds=time.perf_counter() - started)


@dataclass(frozen=True, eq=False)
class _Bench:
    model: nn.Module
    data: ImageDataset
    norm: Norm
    epsilon: float
    seed: int
    queries: int
    batch_size: int

    @property
    def images(self) -> Tensor:
        return to_unit_range(self.data.images.to(device_of(self.model)), dtype_of(self.model))

    @property
    def labels(self) -> Tensor:
        return self.data.labels.to(device_of(self.model))

    @property
    def equal(self) -> float:
        """How far two accuracies may lie apart and be taken for equal."""
        return max(POINTS, 1 / len(self.data))

    def run(self, options: AttackOptions, *, epsilon: float | None = None) -> AttackResult:
        return attack(
            self.model,
            self.images,
            self.data.labels,
            attack=options,
            norm=self.norm,
            epsilon=self.epsilon if epsilon is None else epsilon,
            seed=self.seed,
            batch_size=self.batch_size,
            ids=self.data.ids,
        )


def _answers(bench: _Bench) -> Iterator[SanityCheck]:
    """What the outputs are, and whether they are the same twice and in other company."""
    in_training = [name or "the model" for name, module in bench.model.named_modules() if _acts(module)]
    detail = f"{len(in_training)} modules were handed over in training mode, such as {in_training[:1]}"
    yield SanityCheck(
        name="train mode", value=float(len(in_training)), limit=0.0, detail=detail if in_training else "none"
    )
    with preserved(bench.model, training=False), torch.no_grad():
        batches = torch.split(bench.images, 32)[:_PASSES]
        first = [bench.model(part).double() for part in batches]
        spread = max(float(logits.max() - logits.min()) for logits in first) or 1.0
        repeats = max(
            float((bench.model(part).double() - logits).abs().max()) / spread
            for part, logits in zip(batches, first, strict=True)
            for _ in range(2)
        )
        company = [_gap(bench.model, part, logits) / spread for part, logits in zip(batches, first, strict=True)]
    yield SanityCheck(
        name="randomised",
        value=repeats,
        limit=ROUNDING,
        detail=f"{len(batches)} batches asked three times differ by {repeats:.2g} of the range of the logits",
    )
    logits = torch.cat(first)
    kind = _looks_like(logits)
    yield SanityCheck(name="not logits", value=float(kind != "logits"), limit=0.0, detail=f"outputs look like {kind}")
    batch_gap = max(company)
    known = repeats <= ROUNDING  # a randomised model differs from itself in any company
    yield SanityCheck(
        name="depends on the batch",
        value=batch_gap if known else None,
        limit=10 * ROUNDING,
        detail=f"a sample alone and in its batch differ by {batch_gap:.2g} of the range of the logits",
    )


def _acts(module: nn.Module) -> bool:
    """In training mode, and of a kind that the mode changes."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
    return module.training and (isinstance(module, kinds) or (not list(module.children()) and _overrides(module)))


def _overrides(module: nn.Module) -> bool:
    return type(module).train is not nn.Module.train


def _gap(model: nn.Module, images: Tensor, logits: Tensor) -> float:
    """The largest change when samples are asked alone, and in a batch turned round."""
    turned = model(images.flip(0)).double().flip(0)
    try:
        alone = torch.cat([model(images[i : i + 1]) for i in range(min(4, len(images)))]).double()
    except (RuntimeError, ValueError):  # a model that needs more than one image is judged by the turned batch
        alone = logits[:0]
    return max(
        float((turned - logits).abs().max()),
        float((alone - logits[: len(alone)]).abs().max()) if len(alone) else 0.0,
    )


def _looks_like(outputs: Tensor) -> str:
    """What the numbers are: rows that sum to one, logarithms of such rows, or logits."""
    ones = torch.ones(len(outputs), dtype=outputs.dtype, device=outputs.device)
    if bool((outputs >= 0).all()) and torch.allclose(outputs.sum(dim=1), ones, atol=1e-3):
        return "probabilities"
    if bool((outputs <= 1e-6).all()) and torch.allclose(outputs.exp().sum(dim=1), ones, atol=1e-3):
        return "log-probabilities"
    return "logits"


def _gradients(bench: _Bench) -> Iterator[SanityCheck]:
    """Whether there is a gradient to climb, of the cross-entropy and of the margin."""
    dead_ce, connected = _dead(bench, _cross_entropy)
    dead_margin, _ = _dead(bench, _margin)
    both, ce = float((dead_ce & dead_margin).float().mean()), float((dead_ce & ~dead_margin).float().mean())
    yield SanityCheck(
        name="not differentiable",
        value=float(not connected),
        limit=0.0,
        detail="the graph is connected" if connected else "the outputs do not depend on the input through the graph",
    )
    yield SanityCheck(
        name="zero gradients",
        value=both,
        limit=POINTS,
        detail=f"{100 * both:.0f} % of the samples have no usable gradient of the cross-entropy nor of the margin",
    )
    yield SanityCheck(
        name="saturated",
        value=ce,
        limit=POINTS,
        detail=f"{100 * ce:.0f} % of the samples have no usable gradient of the cross-entropy, but one of the margin",
    )


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    others = logits.masked_fill(F.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return (others.amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]).sum()


def _dead(bench: _Bench, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, bool]:
    """bool (N,): a gradient that is zero or not finite; and whether there was a graph at all."""
    dead: list[Tensor] = []
    connected = True
    with open_network(bench.model, bench.images[:2], fold=False) as network, torch.enable_grad():
        for images, labels in zip(
            torch.split(bench.images, bench.batch_size), torch.split(bench.labels, bench.batch_size), strict=True
        ):
            asked = images.detach().requires_grad_()
            value = loss(network.original(asked).float(), labels)
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, asked, allow_unused=True)
            if gradient is None:
                connected = False
                gradient = torch.zeros_like(asked)
            flat = gradient.flatten(1)
            dead.append(~flat.isfinite().all(dim=1) | (flat.abs().amax(dim=1) == 0))
    return torch.cat(dead).cpu(), connected


def _attacks(bench: _Bench) -> Iterator[SanityCheck]:
    """Whether attacks behave as attacks do on a model that hides nothing."""
    chance = 1 / len(bench.data.classes)
    one = bench.run(FGSM())
    many = bench.run(PGD(steps=_STEPS))
    right = one.clean_correct
    if not bool(right.any()):
        return
    excess = _share(many.robust) - _share(one.robust)
    yield SanityCheck(
        name="one step beats many",
        value=excess,
        limit=bench.equal,
        detail=f"one step leaves {_percent(_share(one.robust))}, {_STEPS} steps leave {_percent(_share(many.robust))}",
    )
    wider = bench.run(PGD(steps=_STEPS), epsilon=2 * bench.epsilon)
    rise = _share(wider.robust) - _share(many.robust)
    yield SanityCheck(
        name="rises with epsilon",
        value=rise,
        limit=bench.equal,
        detail=f"{_percent(_share(many.robust))} left at epsilon, {_percent(_share(wider.robust))} at twice epsilon",
    )
    huge = _share(bench.run(PGD(steps=_STEPS), epsilon=_unbounded(bench)).robust)
    yield SanityCheck(
        name="survives any epsilon",
        value=huge,
        limit=chance,
        detail=f"{_percent(huge)} left where any image is allowed; chance is {_percent(chance)}",
    )
    more = bench.run(PGD(steps=2 * _STEPS, restarts=2))
    gained = _share(many.robust) - _share(more.robust)
    yield SanityCheck(
        name="more steps help",
        value=gained,
        limit=2 * bench.equal,
        detail=f"twice the steps and restarts break another {_percent(gained)}",
    )
    blind = bench.run(Square(queries=bench.queries))
    missed = _share(~blind.robust & many.robust & right)
    yield SanityCheck(
        name="black box beats white box",
        value=missed,
        limit=bench.equal,
        detail=f"a search without gradients breaks {_percent(missed)} that {_STEPS} gradient steps do not",
    )
    strong = bench.run(APGDT(steps=50, n_target_classes=3))
    together = _share(many.robust & blind.robust & strong.robust)
    distance = _share(many.robust) - together
    yield SanityCheck(
        name="far from the ensemble",
        value=distance,
        limit=ENSEMBLE_POINTS,
        detail=f"PGD leaves {_percent(_share(many.robust))}, all attacks together {_percent(together)}",
    )
    yield _still_climbing(many)
    outside = max(result.counts.outside_ball for result in (one, many, wider, blind, strong))
    yield SanityCheck(
        name="outside the ball",
        value=float(outside),
        limit=0.0,
        detail=f"{outside} candidates lay outside the ball or the box and were not counted",
    )


def _still_climbing(result: AttackResult) -> SanityCheck:
    """How much the mean loss of the samples that still stand rose over the last fifth of the steps."""
    trace, standing = result.trace, result.robust
    value, detail = None, "nothing stands"
    if trace is not None and bool(standing.any()):
        losses = trace.losses.cpu()[standing].double().mean(dim=0)
        late = len(losses) - 1 - max(1, (len(losses) - 1) // 5)
        value = float((losses[-1] - losses[late]) / losses[late].abs().clamp_min(1e-12))
        detail = f"the loss of what stands rose by {_percent(value)} over the last fifth of the steps"
    return SanityCheck(name="still climbing", value=value, limit=0.1, detail=detail)


def _unbounded(bench: _Bench) -> float:
    """An epsilon that allows every image of the box."""
    pixels = bench.data.images[0].numel()
    return float({"linf": 1.0, "l2": pixels**0.5, "l1": pixels}[bench.norm])


def _share(rows: Tensor) -> float:
    """The share of rows that are True."""
    return int(rows.sum()) / len(rows)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"
