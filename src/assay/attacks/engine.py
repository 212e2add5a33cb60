"""The attack engine: it owns every call of the model, and verifies every success.

Whatever a method proposes is clipped, checked against the pixel bounds and the ball in float64, and evaluated again by
the original model before it counts. Broken samples leave the batch at once and others take their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.arguments import checked_except
from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, predictions, succeeds, success_margin
from assay.attacks.early_stopping import EarlyStoppingByProgress, EarlyStoppingByYield
from assay.attacks.methods import find_attack
from assay.attacks.network import Network, open_network
from assay.attacks.options import AttackOptions, AttackPlan, unique_notes
from assay.attacks.result import AttackResult, BestSoFar, StepTrace
from assay.attacks.threat import Threat
from assay.errors import DataError, OptionError, UnusedOptionError
from assay.models.programs.onnx_session import check_gradients
from assay.records.attack import Norm, Precision
from assay.runtime import device_of, exact_device, pixel_dtype

ATTEMPTS_PER_BLOCK = 64  # between two decisions on stopping early
MAX_TRACED_STEPS = 500  # a random search of thousands of steps has no trace
# Successes a step as a share of the batch: below this success rate an extra forward pass costs more than the backward
# passes it saves.
PROBE_SUCCESS_RATE = 1 / 3
PROBE_SUCCESS_RATE_BF16 = 1 / 2  # the same where that pass is in float32 and what it saves in bfloat16
LONGEST_STEP = 1e30  # of an attack that is not projected: its square must be a number
EXAMPLE_IMAGES = 32  # on which the folded copy of the model must agree with the original
OnStep = Callable[[str, int, int], None]  # method, rows still under attack or waiting, rows in all


@checked_except("labels")
def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    attack: str | AttackOptions = "pgd",
    norm: Norm = "linf",
    epsilon: float | Tensor = 8 / 255,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
    ids: Tensor | None = None,
    clean_logits: Tensor | None = None,
    target_classes: Tensor | None = None,
    source: nn.Module | None = None,
    eot_samples: int = 1,
    precision: Precision | str = "auto",
    compiled: bool = False,
    on_step: OnStep | None = None,
    on_iterate: Callable[[Tensor, Tensor, Tensor], None] | None = None,
) -> AttackResult:
    """Search an adversarial image within ε of each image; every success is verified by the original model.

    Args:
        model: takes images (N, C, H, W) in ``bounds``, returns logits (N, K); left as it was found.
        images: float (N, C, H, W).
        labels: int64 (N,), in the order of the model's logits: no names of classes are matched here.
        attack: a name of :func:`assay.list_attacks`, or options such as ``PGD(steps=20)``.
        norm: of the perturbation: linf, l2 or l1.
        epsilon: radius of the ball in pixel units; one number, or one for each sample (N,).
        bounds: the least and the largest valid pixel value.
        seed: of all random numbers; a sample's own hang on the seed and its id alone.
        batch_size: images under attack at one time, of large images fewer.
        ids: int64 (N,), keys of the samples' random numbers; 0..N−1 by default.
        clean_logits: (N, K), where they are known; saves the pass over the clean images.
        target_classes: int64 (N,), the only class that counts as success for each sample (a targeted attack).
        source: attack this model instead, and verify on ``model`` (a transfer attack).
        eot_samples: passes averaged for one gradient of a randomised model (expectation over transformation).
        precision: of the search: float32, bfloat16, or auto, which takes bfloat16 where it is fast and close; successes
            are verified in float32.
        compiled: run the search through ``torch.compile``.
        on_step: called after each step with the method's name, the rows left, and all rows.
        on_iterate: called with the samples (B,), images (B, C, H, W) and logits (B, K) of every evaluation of the
            search: whatever the attack tried, in the ball or not, verified or not.

    Returns:
        Adversarial images, distances, logits and what broke each sample.

    Raises:
        DataError: images outside the bounds; labels or target classes missing or out of range.
        OptionError: an epsilon below 0, an unknown attack, norm or precision.
        ModelError: a model that cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> result = assay.attack(model, data.images / 255, data.labels, attack=assay.PGD(steps=5), epsilon=0.1)
        >>> bool((result.distances[result.broken] <= 0.1 + 1e-6).all())
        True

    Reference:
        Madry et al. 2018, arXiv:1706.06083, eq. 2; Athalye et al. 2018, arXiv:1707.07397 (EOT).
    """
    options = find_attack(attack).check_effect()
    device = exact_device(device_of(model))
    _check_images(images, labels, bounds, batch_size=batch_size, eot_samples=eot_samples)
    epsilons = _check_epsilons(epsilon, n=len(images))
    threat = Threat(norm=norm, epsilon=float(epsilons.max()), bounds=bounds, constrained=options.constrained)
    pixels = images[0].numel()
    epsilons, limit_note = _limit_epsilons(epsilons, threat, options, pixels)
    images = images.to(device, pixel_dtype(model))
    started = time.perf_counter()
    source_note = options.note_without_source if source is None else None
    examples = images[torch.linspace(0, len(images) - 1, min(len(images), EXAMPLE_IMAGES)).round().long()]
    with open_network(
        model, examples, source=source, compiled=compiled, eot_samples=eot_samples, precision=precision
    ) as network:
        batch_size = network.search.rows_that_fit(images.shape[1:], most=batch_size, gradients=True)
        if clean_logits is None:
            clean_logits = torch.cat([network.verify(part) for part in torch.split(images, batch_size)])
        samples = Samples(
            index=torch.arange(len(images), device=device),
            ids=torch.arange(len(images), device=device) if ids is None else ids.to(device),
            images=images,
            labels=_check_classes("labels", labels, network.classes).to(device),
            epsilon=epsilons.to(images),
            logits=clean_logits.to(device),
            target_class=_check_target_classes(target_classes, labels, network.classes).to(device),
        )
        plan = options.plan(threat, classes=network.classes, seed=seed)
        plan = plan if target_classes is None else plan.targeted(network.classes)
        _check_effects(plan, options, targeted=target_classes is not None, eot_samples=eot_samples)
        if any(method.takes_gradients for method in plan.methods):  # also where no sample is left to attack
            check_gradients(model if source is None else source)
        precision_note = None
        if network.surrogate is not None and all(method.keeps != "first" for method in plan.methods):
            network.surrogate = None  # the nearest and the last image are searched in float32
            precision_note = f"{options.name} is searched in float32" if precision == "bfloat16" else None
        engine = Engine(network, threat, BestSoFar.start(images, samples.logits), batch_size, on_step, on_iterate)
        trace = engine.run(plan, samples)
        best = engine.best_so_far
        if threat.constrained:  # a search for the nearest image finds some that are too far to count
            best.discard(best.distances > threat.limit(epsilons, pixels).to(device), images, samples.logits)
    correct = predictions(samples.logits) == samples.labels
    return AttackResult(
        threat=threat,
        labels=labels.cpu(),
        adversarial=best.adversarial.float().cpu(),
        broken=(correct & succeeds(best.logits, samples)).cpu(),
        broken_by=best.broken_by.cpu(),
        steps=best.steps.cpu(),
        distances=best.distances.cpu(),
        clean_logits=samples.logits.cpu(),
        logits=best.logits.float().cpu(),
        methods=tuple(best.methods),
        trace=trace if source is None else None,  # its losses are the other model's
        target_classes=None if target_classes is None else target_classes.cpu(),
        counts=network.counts,
        precision=network.precision,
        notes=unique_notes(*plan.notes, limit_note, source_note, precision_note, *network.notes),
        seconds=time.perf_counter() - started,
    )


def _check_epsilons(epsilon: float | Tensor, *, n: int) -> Tensor:
    """float64 (N,)."""
    values = torch.as_tensor(epsilon, dtype=torch.float64).detach().cpu()
    if values.ndim > 1 or (values.ndim == 1 and len(values) != n):
        raise OptionError("epsilon", expected=f"one number, or one for each of {n} samples", got=tuple(values.shape))
    for extreme in (values.min(), values.max()):
        Threat(epsilon=float(extreme))  # which refuses what is negative or not finite
    return values.expand(n)


def _limit_epsilons(epsilons: Tensor, threat: Threat, options: AttackOptions, pixels: int) -> tuple[Tensor, str | None]:
    """Radii of which none is wider than all valid images lie apart, and a note where that changed one.

    A wider ball holds no further image, but its radius would overflow in squares and steps.
    """
    if not threat.constrained:
        if options.uses_epsilon and threat.epsilon > LONGEST_STEP:
            raise OptionError("epsilon", expected=f"a step of at most {LONGEST_STEP:g}", got=threat.epsilon)
        return epsilons, None
    diameter = threat.diameter(pixels)
    if threat.epsilon <= diameter:
        return epsilons, None
    note = f"epsilon {threat.epsilon:g} allows every image: as {diameter:g} does, the largest distance of two images"
    return epsilons.clamp_max(diameter), note


def _check_effects(plan: AttackPlan, options: AttackOptions, *, targeted: bool, eot_samples: int) -> None:
    """Raise :class:`OptionError` for what no method of this attack uses, and for a loss that needs target classes."""
    if eot_samples > 1 and not any(method.takes_gradients for method in plan.methods):
        raise UnusedOptionError("eot_samples", reason=f"{options.name} takes no gradients")
    field, loss = "n_target_classes", getattr(options, "loss", "")
    if targeted and getattr(options, field, None) != getattr(type(options).model_fields.get(field), "default", None):
        raise UnusedOptionError(field, reason="each sample's target class is given")
    if not targeted and loss.startswith("target"):  # it would raise the label
        raise OptionError("loss", expected="one that lowers the label, or target classes", got=repr(loss))


def _check_images(
    images: Tensor, labels: Tensor, bounds: tuple[float, float], *, batch_size: int, eot_samples: int
) -> None:
    """Raise :class:`DataError` or :class:`OptionError` unless an attack can start on these."""
    if not isinstance(images, Tensor) or images.ndim != 4 or not images.is_floating_point() or images.numel() == 0:
        got = f"{images.dtype} {tuple(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise DataError("images", expected="at least one image, float (N, C, H, W)", got=got)
    low, high = float(images.min()), float(images.max())
    if not (bounds[0] <= low and high <= bounds[1]):
        raise DataError("images", expected=f"pixels in {list(bounds)}", got=f"{low:.4g}..{high:.4g}")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError("labels", expected=f"int64 ({len(images)},), one for each image", got=got)
    for name, value in (("eot_samples", eot_samples), ("batch_size", batch_size)):
        if value < 1:
            raise OptionError(name, expected="at least 1", got=value)


def _check_classes(name: str, values: Tensor, classes: int, *, other_than: Tensor | None = None) -> Tensor:
    """The classes, or :class:`DataError` naming the first that is out of range, or the label of ``other_than`` (N,)."""
    wrong = (values < 0) | (values >= classes)
    wrong = wrong if other_than is None else wrong | (values == other_than)
    if bool(wrong.any()):
        first, expected = int(wrong.nonzero()[0]), f"0..{classes - 1}"
        if other_than is not None:
            expected = f"a class of {expected} other than the label {int(other_than[first])}"
        raise DataError(f"{name}[{first}]", expected=expected, got=int(values[first]))
    return values


def _check_target_classes(target_classes: Tensor | None, labels: Tensor, classes: int) -> Tensor:
    """int64 (N,), −1 without any; :class:`DataError` for one that is no class, or the label itself."""
    if target_classes is None:
        return torch.full_like(labels, -1)
    if target_classes.shape != labels.shape or target_classes.dtype != torch.int64:
        got = f"{target_classes.dtype} {tuple(target_classes.shape)}"
        raise DataError("target_classes", expected=f"int64 ({len(labels)},)", got=got)
    return _check_classes("target_classes", target_classes, classes, other_than=labels)


@dataclass(eq=False)
class Engine:
    """Runs methods over samples."""

    network: Network
    threat: Threat
    best_so_far: BestSoFar
    batch_size: int
    on_step: OnStep | None = None
    on_iterate: Callable[[Tensor, Tensor, Tensor], None] | None = None
    success_rate: float = 1.0  # the share of the batch that the last step broke; 1 before a method's first
    early_stopping: EarlyStoppingByProgress | None = None  # of the method that runs, if it may stop early

    def run(self, plan: AttackPlan, samples: Samples) -> StepTrace | None:
        """Run each method over the samples that are still correct; return the trace of the first."""
        correct = predictions(samples.logits) == samples.labels
        first: StepTrace | None = None
        by_yield = None if plan.tolerance is None else EarlyStoppingByYield(plan.tolerance, n=len(samples))
        for position, method in enumerate(plan.methods):
            self.best_so_far.methods.append(method.name)
            trace = None
            if position == 0 and method.steps <= MAX_TRACED_STEPS:
                first = trace = StepTrace.start(samples.logits, samples.labels, steps=method.steps)
            stops = plan.early_stopping and method.keeps == "first" and method.stays_inside
            # All of them for a method that keeps its last step, else those that are correct, or still correct.
            still = {"last": torch.ones_like(correct), "nearest": correct, "first": correct & ~self.best_so_far.broken}
            rows = still[method.keeps].nonzero()[:, 0]
            if by_yield is None or position < plan.optional_from:
                self._run_method(method, samples.take(rows), trace, stops=stops)
            elif not self._run_in_blocks(method, samples, rows, by_yield, stops=stops):
                break
        return first

    def _run_in_blocks(
        self, method: Method[Any], samples: Samples, rows: Tensor, by_yield: EarlyStoppingByYield, *, stops: bool
    ) -> bool:
        """Run over ``rows`` in blocks, those nearest to the boundary first; False when the attack is to stop."""
        order = rows[self.best_so_far.best_margin[rows].argsort(descending=True, stable=True)]
        left = len(order)
        for block in torch.split(order, ATTEMPTS_PER_BLOCK):
            if by_yield.should_stop(left):
                return False
            self._run_method(method, samples.take(block), None, stops=stops)
            broken = int(self.best_so_far.broken[block].sum())
            left -= broken
            by_yield.update(attempts=len(block), broken=broken)
        return not by_yield.should_stop(left)

    def _run_method(self, method: Method[Any], samples: Samples, trace: StepTrace | None, *, stops: bool) -> None:
        batch: ActiveBatch | None = None
        joined, n = 0, len(samples)
        self.success_rate = 1.0
        best_margin = self.best_so_far.best_margin
        self.early_stopping = EarlyStoppingByProgress.start(best_margin, steps=method.steps) if stops else None
        while joined < n or (batch is not None and len(batch) > 0):
            free = self.batch_size - (0 if batch is None else len(batch))
            # A quarter of the batch at a time: joining copies every row.
            if joined < n and free >= max(1, self.batch_size // 4):
                arriving = torch.arange(joined, min(n, joined + free), device=samples.index.device)
                fresh = method.begin(samples.take(arriving), self.threat)
                joined += len(fresh)
                batch = fresh if batch is None else batch.join(fresh)
            assert batch is not None
            batch = self._step(method, batch, trace)
            if self.on_step is not None:
                self.on_step(method.name, len(batch) + n - joined, n)

    def _step(self, method: Method[Any], batch: ActiveBatch, trace: StepTrace | None) -> ActiveBatch:
        """Evaluate the iterates, record successes, drop finished rows, and advance the rest."""
        final = batch.step >= method.steps
        if method.keeps == "first" and bool(final.any()):
            self._finish(method, batch.take(final), trace)
            batch = batch.take(~final)
            if len(batch) == 0:
                return batch
        batch.wants_gradient = batch.wants_gradient & (batch.step < method.steps)
        n, started = len(batch), bool((batch.step > 0).all())
        probe_rate = PROBE_SUCCESS_RATE if self.network.surrogate is None else PROBE_SUCCESS_RATE_BF16
        if method.keeps == "first" and started and self.success_rate > probe_rate:
            batch = self._probe(batch, trace)
            self.success_rate = 1 - len(batch) / n
            if len(batch) == 0:
                return batch
        # The nearest image lies on the boundary and the last is shown with its loss: both are searched in float32.
        output = self.network.evaluate(batch, method.loss, self.threat, exact=method.keeps != "first")
        if trace is not None:
            trace.record(batch, output.logits)
        if self.on_iterate is not None:
            self.on_iterate(batch.index, batch.iterate, output.logits)
        misclassified = succeeds(output.logits, batch)
        margins = success_margin(output.logits, batch)
        if method.stays_inside:
            best_margin = self.best_so_far.best_margin
            best_margin[batch.index] = torch.maximum(best_margin[batch.index], margins)
            outside = int((misclassified & ~output.broken).sum())
            self.network.counts.outside_ball += outside if self.threat.constrained else 0
        if started and len(batch) == n:
            self.success_rate = int(output.broken.sum()) / n
        finished = self._record_successes(method, batch, output)
        if self.early_stopping is not None:
            finished = finished | self.early_stopping.should_stop(batch.index, batch.step, margins)
        if bool(finished.any()):
            staying = (~finished).nonzero()[:, 0]
            batch, output = batch.take(staying), output.take(staying)
        if len(batch) == 0:
            return batch
        advanced: ActiveBatch = method.advance(batch, output, self.threat)
        return advanced.take(~advanced.done) if bool(advanced.done.any()) else advanced

    def _finish(self, method: Method[Any], batch: ActiveBatch, trace: StepTrace | None) -> None:
        """The last images of a search, of which no gradient is wanted: the original model alone evaluates them."""
        kept, logits, outside = self._evaluate_original(batch, trace)
        if len(kept) == 0:
            return
        if trace is not None:
            trace.record(kept, logits)
        if method.stays_inside:
            best_margin = self.best_so_far.best_margin
            best_margin[kept.index] = torch.maximum(best_margin[kept.index], success_margin(logits, kept))
            self.network.counts.outside_ball += outside if self.threat.constrained else 0

    def _probe(self, batch: ActiveBatch, trace: StepTrace | None) -> ActiveBatch:
        """Drop what the original model gets wrong, before any gradient is taken; return the rest.

        Where many rows break in a step, this saves them a gradient that they no longer need, and the verification.
        """
        return self._evaluate_original(batch, trace)[0]

    def _evaluate_original(self, batch: ActiveBatch, trace: StepTrace | None) -> tuple[ActiveBatch, Tensor, int]:
        """Evaluate the original model and record its errors; the rest, its logits, and the errors outside the ball."""
        batch.iterate = self.threat.clip(batch.iterate) if self.threat.constrained else batch.iterate
        logits = self.network.verify(batch.iterate)
        if self.on_iterate is not None:
            self.on_iterate(batch.index, batch.iterate, logits)
        changed = (batch.iterate != batch.images).flatten(1).any(dim=1)
        wrong = (succeeds(logits, batch) & changed).nonzero()[:, 0]
        inside = self.threat.contains(batch.iterate[wrong], batch.images[wrong], batch.epsilon[wrong])
        broken = torch.zeros_like(batch.done)
        broken[wrong[inside]] = True
        if bool(broken.any()):
            leaving = batch.take(broken)
            distances = self.threat.distance(leaving.iterate, leaving.images)
            self.best_so_far.update(leaving, logits=logits[broken], distances=distances)
            if trace is not None:
                trace.record(leaving, logits[broken])
            batch, logits = batch.take(~broken), logits[~broken]
        return batch, logits, len(wrong) - int(inside.sum())

    def _record_successes(self, method: Method[Any], batch: ActiveBatch, output: ModelOutput) -> Tensor:
        """Verify and record successes; bool (B,): the rows that are finished."""
        finished = batch.step >= method.steps
        if method.keeps == "last":
            if bool(finished.any()):
                self._verify(batch.take(finished), keep_all=True)
            return finished
        if method.keeps == "nearest":
            distances = self.threat.distance(batch.iterate, batch.images)
            output.broken = output.broken & (distances < self.best_so_far.distances[batch.index])
        if bool(output.broken.any()):
            confirmed = self._verify(batch.take(output.broken), keep_all=False)
            if method.keeps == "first":
                broken = output.broken.clone()
                broken[output.broken] = confirmed
                finished = finished | broken
        return finished

    def _verify(self, batch: ActiveBatch, *, keep_all: bool) -> Tensor:
        """Clip into the bounds, evaluate exactly the recorded image by the original model; bool (B,): confirmed."""
        batch.iterate = self.threat.clip(batch.iterate)
        distances = self.threat.distance(batch.iterate, batch.images)
        # An image that was not changed has the logits it had: another batch may round them to another class.
        logits = torch.where((distances > 0)[:, None], self.network.verify(batch.iterate), batch.logits)
        confirmed = succeeds(logits, batch)
        if keep_all:
            self.best_so_far.update(batch, logits=logits, distances=distances)
            return confirmed
        if self.network.surrogate is None:  # whose doubtful cases are sent here as a matter of course
            self.network.counts.unconfirmed += int((~confirmed).sum())
        self.best_so_far.update(batch.take(confirmed), logits=logits[confirmed], distances=distances[confirmed])
        return confirmed
