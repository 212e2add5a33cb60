"""The one attack engine: it owns every call of the model, and the last word.

Whatever an attack proposes is clipped, checked against box and ball in float64, and judged again by the untouched
model before it counts. Broken samples leave the batch at once and others take their place.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks.aim import aim
from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, predictions, succeeds, success_margin
from assay.attacks.early_stopping import EarlyStoppingByProgress, EarlyStoppingByYield
from assay.attacks.inputs import check_epsilons, check_images, check_labels, check_target_classes
from assay.attacks.methods import find_attack
from assay.attacks.network import Network, open_network
from assay.attacks.options import AttackOptions, AttackPlan, notes
from assay.attacks.result import AttackResult, BestSoFar, StepTrace
from assay.attacks.threat import Threat
from assay.records.attack import Norm, Precision
from assay.runtime import device_of, pixel_dtype

ATTEMPTS_PER_BLOCK = 64  # attempts between two looks at whether more are worthwhile
MAX_TRACED_STEPS = 500  # steps; a random search of thousands is told by its result alone
PROBE_SUCCESS_RATE = 1 / 3  # below this share of successes a step, asking twice costs more than it spares
PROBE_SUCCESS_RATE_BF16 = 1 / 2  # the same where the question costs float32 and what it spares bfloat16
EXAMPLE_IMAGES = 32  # images on which the fast copy of the model must agree with the original
OnStep = Callable[[str, int, int], None]  # method, rows still under attack or waiting, rows in all


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
) -> AttackResult:
    """Attack ``model`` on ``images`` float (N, C, H, W) in ``bounds`` with ``labels`` int64 (N,).

    ``attack`` is the name of a preset or an options object such as ``PGD(steps=20)``. ``epsilon`` is one number, or
    one a sample (N,), in pixel units. ``ids`` int64 (N,) are what a sample's random numbers hang on (default 0..N−1).
    ``clean_logits`` (N, K) spare the pass over the clean images. ``target_classes`` int64 (N,) are the only classes
    that then count as success. ``source`` is the model to attack instead (a transfer attack). ``eot_samples`` passes
    are averaged for one gradient (EOT, for randomised models). ``precision`` is that of the search, ``auto`` for
    bfloat16 where
    :func:`assay.attacks.surrogate.make_bf16_surrogate` finds it quick and close, while every success is judged in
    float32. ``compiled`` attacks through ``torch.compile``. The models are left as found.

    Raises :class:`DataError` for images outside the box, labels or targets out of range or missing;
    :class:`OptionError` for an epsilon below 0 or an unknown attack; :class:`ModelError` for a model that cannot take
    the images.
    """
    plan_of = find_attack(attack)
    device = device_of(model)
    check_images(images, labels, bounds, batch_size=batch_size, eot_samples=eot_samples)
    epsilons = check_epsilons(epsilon, n=len(images))
    threat = Threat(norm=norm, epsilon=float(epsilons.max()), bounds=bounds, constrained=plan_of.constrained)
    images = images.to(device, pixel_dtype(model))
    started = time.perf_counter()
    with open_network(
        model, images[:EXAMPLE_IMAGES], source=source, compiled=compiled, eot_samples=eot_samples, precision=precision
    ) as network:
        if clean_logits is None:
            clean_logits = torch.cat([network.verify(part) for part in torch.split(images, batch_size)])
        samples = Samples(
            index=torch.arange(len(images), device=device),
            ids=torch.arange(len(images), device=device) if ids is None else ids.to(device),
            images=images,
            labels=check_labels(labels, network.classes).to(device),
            epsilon=epsilons.to(images),
            logits=clean_logits.to(device),
            target_class=check_target_classes(target_classes, labels, network.classes).to(device),
        )
        plan = plan_of.plan(threat, classes=network.classes, seed=seed)
        plan = plan if target_classes is None else aim(plan)
        engine = Engine(network, threat, BestSoFar.open(images, samples.logits), batch_size, on_step)
        trace = engine.run(plan, samples)
        trace = trace if source is None else None  # its losses are the other model's
        best_so_far = engine.best_so_far
        if threat.constrained:  # a search for the nearest image finds some that are too far to count
            reach = epsilons.to(device) + threat.geometry.slack(images[0].numel())
            best_so_far.forget(best_so_far.distances > reach, images, samples.logits)
        right = predictions(samples.logits) == samples.labels
        said = notes(*plan.notes, network.note)
    return AttackResult(
        threat=threat,
        labels=labels.cpu(),
        adversarial=best_so_far.adversarial.float().cpu(),
        broken=(right & succeeds(best_so_far.logits, samples)).cpu(),
        broken_by=best_so_far.broken_by.cpu(),
        steps=best_so_far.steps.cpu(),
        distances=best_so_far.distances.cpu(),
        clean_logits=samples.logits.cpu(),
        logits=best_so_far.logits.float().cpu(),
        methods=tuple(best_so_far.methods),
        trace=trace,
        target_classes=None if target_classes is None else target_classes.cpu(),
        counts=network.counts,
        precision=network.precision,
        notes=said,
        seconds=time.perf_counter() - started,
    )


@dataclass(eq=False)
class Engine:
    """Runs methods over samples: what they may do, whom they ask, what is known so far."""

    network: Network
    threat: Threat
    best_so_far: BestSoFar
    batch_size: int
    on_step: OnStep | None = None
    success_rate: float = 1.0  # the share of rows that the last step broke; hopeful before the first
    early_stopping: bool = False
    pace: EarlyStoppingByProgress | None = None  # of the search that runs, if it may give up

    def run(self, plan: AttackPlan, samples: Samples) -> StepTrace | None:
        """Run each method over the samples that withstood the ones before; return the trace of the first."""
        right = predictions(samples.logits) == samples.labels
        first: StepTrace | None = None
        self.early_stopping = plan.early_stopping
        patience = None if plan.tolerance is None else EarlyStoppingByYield(plan.tolerance, n=len(samples))
        for position, method in enumerate(plan.methods):
            self.best_so_far.methods.append(method.name)
            trace = None
            if position == 0 and method.steps <= MAX_TRACED_STEPS:
                first = trace = StepTrace.open(samples.logits, samples.labels, steps=method.steps)
            chosen = self._entrants(method, right).nonzero()[:, 0]
            if patience is None or position < plan.optional_from:
                self._run_one(method, samples.take(chosen), trace)
            elif not self._run_while_worthwhile(method, samples, chosen, patience):
                break
        return first

    def _run_while_worthwhile(
        self, method: Method[Any], samples: Samples, chosen: Tensor, patience: EarlyStoppingByYield
    ) -> bool:
        """Run over ``chosen`` in blocks, those nearest to the boundary first; False when patience ended."""
        order = chosen[self.best_so_far.best_margin[chosen].argsort(descending=True, stable=True)]
        standing = len(order)
        for block in torch.split(order, ATTEMPTS_PER_BLOCK):
            if patience.should_stop(standing):
                return False
            self._run_one(method, samples.take(block), None)
            broken = int(self.best_so_far.broken[block].sum())
            standing -= broken
            patience.note(attempts=len(block), broken=broken)
        return not patience.should_stop(standing)

    def _entrants(self, method: Method[Any], right: Tensor) -> Tensor:
        """Who a method is worth running on: all for one that shows its every step, else those still right."""
        if method.keeps == "last":
            return torch.ones_like(right)
        return right if method.keeps == "nearest" else right & ~self.best_so_far.broken

    def _run_one(self, method: Method[Any], samples: Samples, trace: StepTrace | None) -> None:
        batch: ActiveBatch | None = None
        self.success_rate = 1.0
        watched = self.early_stopping and method.keeps == "first" and method.stays_inside
        self.pace = EarlyStoppingByProgress.open(self.best_so_far.best_margin, steps=method.steps) if watched else None
        waiting, n = 0, len(samples)
        while waiting < n or (batch is not None and len(batch) > 0):
            free = self.batch_size - (0 if batch is None else len(batch))
            # A quarter of the batch at a time: joining costs a copy of every lane.
            if waiting < n and free >= max(1, self.batch_size // 4):
                arriving = torch.arange(waiting, min(n, waiting + free), device=samples.index.device)
                joining = method.begin(samples.take(arriving), self.threat)
                waiting += len(joining)
                batch = joining if batch is None else batch.join(joining)
            assert batch is not None
            batch = self._step(method, batch, trace)
            if self.on_step is not None:
                self.on_step(method.name, len(batch) + n - waiting, n)

    def _step(self, method: Method[Any], batch: ActiveBatch, trace: StepTrace | None) -> ActiveBatch:
        """Ask, write down, let go of what is finished, move the rest."""
        batch.wants_gradient = batch.wants_gradient & (batch.step < method.steps)
        asked, started = len(batch), bool((batch.step > 0).all())
        worth = PROBE_SUCCESS_RATE if self.network.bf16_surrogate is None else PROBE_SUCCESS_RATE_BF16
        if method.keeps == "first" and started and self.success_rate > worth:
            batch = self._probe(batch, trace)
            self.success_rate = 1 - len(batch) / asked
            if len(batch) == 0:
                return batch
        # The nearest image lies on the boundary, and the last is shown with its loss: neither bears rounding.
        output = self.network.evaluate(batch, method.loss, self.threat, exact=method.keeps != "first")
        if trace is not None:
            trace.note(batch, output.logits)
        misclassified = succeeds(output.logits, batch)
        reached = success_margin(output.logits, batch)
        if method.stays_inside:
            self.best_so_far.update_margins(batch, reached)
            outside = int((misclassified & ~output.broken).sum())
            self.network.counts.outside_ball += outside if self.threat.constrained else 0
        if started and len(batch) == asked:
            self.success_rate = int(output.broken.sum()) / asked
        finished = self._settle(method, batch, output)
        if self.pace is not None:
            finished = finished | self.pace.should_stop(batch.index, batch.step, reached)
        if bool(finished.any()):
            staying = (~finished).nonzero()[:, 0]
            batch, output = batch.take(staying), output.take(staying)
        if len(batch) == 0:
            return batch
        moved: ActiveBatch = method.advance(batch, output, self.threat)
        return moved.take(~moved.done) if bool(moved.done.any()) else moved

    def _probe(self, batch: ActiveBatch, trace: StepTrace | None) -> ActiveBatch:
        """Ask the untouched model alone first, and let go of what it gets wrong; return the rest.

        Where many rows break in a step, this spares them the gradient that they no longer need, and the second opinion.
        """
        batch.iterate = self.threat.clip(batch.iterate) if self.threat.constrained else batch.iterate
        logits = self.network.verify(batch.iterate)
        wrong = succeeds(logits, batch).nonzero()[:, 0]
        inside = self.threat.contains(batch.iterate[wrong], batch.images[wrong], batch.epsilon[wrong])
        broken = torch.zeros_like(batch.done)
        broken[wrong[inside]] = True
        if bool(broken.any()):
            gone, said = batch.take(broken), logits[broken]
            self.best_so_far.enter(gone, logits=said, distances=self.threat.distance(gone.iterate, gone.images))
            if trace is not None:
                trace.note(gone, said)
            batch = batch.take(~broken)
        return batch

    def _settle(self, method: Method[Any], batch: ActiveBatch, output: ModelOutput) -> Tensor:
        """Confirm what was found, write it down, and say which rows are finished, bool (B,)."""
        finished = batch.step >= method.steps
        if method.keeps == "last":
            if bool(finished.any()):
                self._write(batch.take(finished), always=True)
            return finished
        if method.keeps == "nearest":
            distances = self.threat.distance(batch.iterate, batch.images)
            output.broken = output.broken & (distances < self.best_so_far.distances[batch.index])
        if bool(output.broken.any()):
            confirmed = self._write(batch.take(output.broken), always=False)
            if method.keeps == "first":
                broken = output.broken.clone()
                broken[output.broken] = confirmed
                finished = finished | broken
        return finished

    def _write(self, batch: ActiveBatch, *, always: bool) -> Tensor:
        """The last word: into the box, then the untouched model, asked about exactly the image that is written down."""
        batch.iterate = self.threat.clip(batch.iterate)
        distances = self.threat.distance(batch.iterate, batch.images)
        logits = self.network.verify(batch.iterate)
        confirmed = succeeds(logits, batch)
        if always:
            self.best_so_far.enter(batch, logits=logits, distances=distances)
        else:
            if self.network.bf16_surrogate is None:  # which asks to be corrected as a matter of course
                self.network.counts.unconfirmed += int((~confirmed).sum())
            self.best_so_far.enter(batch.take(confirmed), logits=logits[confirmed], distances=distances[confirmed])
        return confirmed
