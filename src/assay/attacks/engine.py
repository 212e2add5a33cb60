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
from assay.attacks.batch import Answer, Lanes, Method, Samples, nearness, predictions, succeeds
from assay.attacks.early_stopping import Pace, Patience
from assay.attacks.inputs import check_epsilons, check_images, check_labels, check_targets
from assay.attacks.methods import find_attack
from assay.attacks.network import Network, opened
from assay.attacks.options import Attack, Plan, notes
from assay.attacks.result import Ledger, Outcome, Trace
from assay.attacks.threat import Threat
from assay.records.attack import Norm, Precision
from assay.runtime import device_of, pixel_dtype

BLOCK = 64  # attempts between two looks at whether more are worthwhile
LONGEST_TRACE = 500  # steps; a random search of thousands is told by its result alone
WORTH_PROBING = 1 / 3  # below this share of successes a step, asking twice costs more than it spares
WORTH_PROBING_ROUNDED = 1 / 2  # the same where the question costs float32 and what it spares bfloat16
EXAMPLE = 32  # images on which the fast copy of the model must agree with the original
OnStep = Callable[[str, int, int], None]  # method, rows still under attack or waiting, rows in all


def attack(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    attack: str | Attack = "pgd",
    norm: Norm = "linf",
    epsilon: float | Tensor = 8 / 255,
    box: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    batch_size: int = 256,
    ids: Tensor | None = None,
    clean_logits: Tensor | None = None,
    targets: Tensor | None = None,
    source: nn.Module | None = None,
    average: int = 1,
    precision: Precision | str = "auto",
    compiled: bool = False,
    on_step: OnStep | None = None,
) -> Outcome:
    """Attack ``model`` on ``images`` float (N, C, H, W) in ``box`` with ``labels`` int64 (N,).

    ``attack`` is the name of a preset or an options object such as ``Pgd(steps=20)``. ``epsilon`` is one number, or
    one a sample (N,), in pixel units. ``ids`` int64 (N,) are what a sample's random numbers hang on (default 0..N−1).
    ``clean_logits`` (N, K) spare the pass over the clean images. ``targets`` int64 (N,) are classes to be reached, the
    only success that then counts. ``source`` is the model to climb instead (a transfer attack). ``average`` passes make
    one gradient (EOT, for randomised models). ``precision`` is that of the search, ``auto`` for bfloat16 where
    :func:`assay.attacks.surrogate.round_to_bfloat16` finds it quick and close, while every success is judged in
    float32. ``compiled`` attacks through ``torch.compile``. The models are left as found.

    Raises :class:`DataError` for images outside the box, labels or targets out of range or missing;
    :class:`OptionError` for an epsilon below 0 or an unknown attack; :class:`ModelError` for a model that cannot take
    the images.
    """
    plan_of = find_attack(attack)
    device = device_of(model)
    check_images(images, labels, box, batch_size=batch_size, average=average)
    bounds = check_epsilons(epsilon, n=len(images))
    threat = Threat(norm=norm, epsilon=float(bounds.max()), box=box, constrained=plan_of.constrained)
    images = images.to(device, pixel_dtype(model))
    started = time.perf_counter()
    with opened(
        model, images[:EXAMPLE], source=source, compiled=compiled, average=average, precision=precision
    ) as network:
        if clean_logits is None:
            clean_logits = torch.cat([network.judge(part) for part in torch.split(images, batch_size)])
        samples = Samples(
            index=torch.arange(len(images), device=device),
            ids=torch.arange(len(images), device=device) if ids is None else ids.to(device),
            images=images,
            labels=check_labels(labels, network.classes).to(device),
            epsilon=bounds.to(images),
            logits=clean_logits.to(device),
            goal=check_targets(targets, labels, network.classes).to(device),
        )
        plan = plan_of.plan(threat, classes=network.classes, seed=seed)
        plan = plan if targets is None else aim(plan)
        engine = Engine(network, threat, Ledger.open(images, samples.logits), batch_size, on_step)
        trace = engine.run(plan, samples)
        trace = trace if source is None else None  # its losses are the other model's
        ledger = engine.ledger
        if threat.constrained:  # a search for the nearest image finds some that are too far to count
            reach = bounds.to(device) + threat.geometry.slack(images[0].numel())
            ledger.forget(ledger.distances > reach, images, samples.logits)
        right = predictions(samples.logits) == samples.labels
        said = notes(*plan.notes, network.note)
    return Outcome(
        threat=threat,
        labels=labels.cpu(),
        adversarial=ledger.adversarial.float().cpu(),
        broken=(right & succeeds(ledger.logits, samples)).cpu(),
        broken_by=ledger.broken_by.cpu(),
        steps=ledger.steps.cpu(),
        distances=ledger.distances.cpu(),
        clean_logits=samples.logits.cpu(),
        logits=ledger.logits.float().cpu(),
        methods=tuple(ledger.methods),
        trace=trace,
        targets=None if targets is None else targets.cpu(),
        effort=network.effort,
        precision=network.precision,
        notes=said,
        seconds=time.perf_counter() - started,
    )


@dataclass(eq=False)
class Engine:
    """Runs methods over samples: what they may do, whom they ask, what is known so far."""

    network: Network
    threat: Threat
    ledger: Ledger
    batch_size: int
    on_step: OnStep | None = None
    yielding: float = 1.0  # the share of rows that the last step broke; hopeful before the first
    gives_up: bool = False
    pace: Pace | None = None  # of the search that runs, if it may give up

    def run(self, plan: Plan, samples: Samples) -> Trace | None:
        """Run each method over the samples that withstood the ones before; return the trace of the first."""
        right = predictions(samples.logits) == samples.labels
        first: Trace | None = None
        self.gives_up = plan.gives_up
        patience = None if plan.tolerance is None else Patience(plan.tolerance, n=len(samples))
        for position, method in enumerate(plan.methods):
            self.ledger.methods.append(method.name)
            trace = None
            if position == 0 and method.steps <= LONGEST_TRACE:
                first = trace = Trace.open(samples.logits, samples.labels, steps=method.steps)
            chosen = self._entrants(method, right).nonzero()[:, 0]
            if patience is None or position < plan.optional_from:
                self._run_one(method, samples.take(chosen), trace)
            elif not self._run_while_worthwhile(method, samples, chosen, patience):
                break
        return first

    def _run_while_worthwhile(self, method: Method[Any], samples: Samples, chosen: Tensor, patience: Patience) -> bool:
        """Run over ``chosen`` in blocks, those nearest to the boundary first; False when patience ended."""
        order = chosen[self.ledger.closest[chosen].argsort(descending=True, stable=True)]
        standing = len(order)
        for block in torch.split(order, BLOCK):
            if patience.exhausted(standing):
                return False
            self._run_one(method, samples.take(block), None)
            broken = int(self.ledger.broken[block].sum())
            standing -= broken
            patience.note(attempts=len(block), broken=broken)
        return not patience.exhausted(standing)

    def _entrants(self, method: Method[Any], right: Tensor) -> Tensor:
        """Who a method is worth running on: all for one that shows its every step, else those still right."""
        if method.keeps == "last":
            return torch.ones_like(right)
        return right if method.keeps == "nearest" else right & ~self.ledger.broken

    def _run_one(self, method: Method[Any], samples: Samples, trace: Trace | None) -> None:
        lanes: Lanes | None = None
        self.yielding = 1.0
        watched = self.gives_up and method.keeps == "first" and method.stays_inside
        self.pace = Pace.open(self.ledger.closest, steps=method.steps) if watched else None
        waiting, n = 0, len(samples)
        while waiting < n or (lanes is not None and len(lanes) > 0):
            free = self.batch_size - (0 if lanes is None else len(lanes))
            # A quarter of the batch at a time: joining costs a copy of every lane.
            if waiting < n and free >= max(1, self.batch_size // 4):
                arriving = torch.arange(waiting, min(n, waiting + free), device=samples.index.device)
                joining = method.begin(samples.take(arriving), self.threat)
                waiting += len(joining)
                lanes = joining if lanes is None else lanes.join(joining)
            assert lanes is not None
            lanes = self._step(method, lanes, trace)
            if self.on_step is not None:
                self.on_step(method.name, len(lanes) + n - waiting, n)

    def _step(self, method: Method[Any], lanes: Lanes, trace: Trace | None) -> Lanes:
        """Ask, write down, let go of what is finished, move the rest."""
        lanes.wants_gradient = lanes.wants_gradient & (lanes.step < method.steps)
        asked, started = len(lanes), bool((lanes.step > 0).all())
        worth = WORTH_PROBING if self.network.rounded is None else WORTH_PROBING_ROUNDED
        if method.keeps == "first" and started and self.yielding > worth:
            lanes = self._probe(lanes, trace)
            self.yielding = 1 - len(lanes) / asked
            if len(lanes) == 0:
                return lanes
        # The nearest image lies on the boundary, and the last is shown with its loss: neither bears rounding.
        answer = self.network.ask(lanes, method.loss, self.threat, exact=method.keeps != "first")
        if trace is not None:
            trace.note(lanes, answer.logits)
        misclassified = succeeds(answer.logits, lanes)
        reached = nearness(answer.logits, lanes)
        if method.stays_inside:
            self.ledger.note_margin(lanes, reached)
            outside = int((misclassified & ~answer.broken).sum())
            self.network.effort.outside_ball += outside if self.threat.constrained else 0
        if started and len(lanes) == asked:
            self.yielding = int(answer.broken.sum()) / asked
        finished = self._settle(method, lanes, answer)
        if self.pace is not None:
            finished = finished | self.pace.hopeless(lanes.index, lanes.step, reached)
        if bool(finished.any()):
            staying = (~finished).nonzero()[:, 0]
            lanes, answer = lanes.take(staying), answer.take(staying)
        if len(lanes) == 0:
            return lanes
        moved: Lanes = method.advance(lanes, answer, self.threat)
        return moved.take(~moved.done) if bool(moved.done.any()) else moved

    def _probe(self, lanes: Lanes, trace: Trace | None) -> Lanes:
        """Ask the untouched model alone first, and let go of what it gets wrong; return the rest.

        Where many rows break in a step, this spares them the gradient that they no longer need, and the second opinion.
        """
        lanes.candidate = self.threat.clip(lanes.candidate) if self.threat.constrained else lanes.candidate
        logits = self.network.judge(lanes.candidate)
        wrong = succeeds(logits, lanes).nonzero()[:, 0]
        inside = self.threat.contains(lanes.candidate[wrong], lanes.images[wrong], lanes.epsilon[wrong])
        broken = torch.zeros_like(lanes.done)
        broken[wrong[inside]] = True
        if bool(broken.any()):
            gone, said = lanes.take(broken), logits[broken]
            self.ledger.enter(gone, logits=said, distances=self.threat.distance(gone.candidate, gone.images))
            if trace is not None:
                trace.note(gone, said)
            lanes = lanes.take(~broken)
        return lanes

    def _settle(self, method: Method[Any], lanes: Lanes, answer: Answer) -> Tensor:
        """Confirm what was found, write it down, and say which rows are finished, bool (B,)."""
        finished = lanes.step >= method.steps
        if method.keeps == "last":
            if bool(finished.any()):
                self._write(lanes.take(finished), always=True)
            return finished
        if method.keeps == "nearest":
            distances = self.threat.distance(lanes.candidate, lanes.images)
            answer.broken = answer.broken & (distances < self.ledger.distances[lanes.index])
        if bool(answer.broken.any()):
            confirmed = self._write(lanes.take(answer.broken), always=False)
            if method.keeps == "first":
                broken = answer.broken.clone()
                broken[answer.broken] = confirmed
                finished = finished | broken
        return finished

    def _write(self, lanes: Lanes, *, always: bool) -> Tensor:
        """The last word: into the box, then the untouched model, asked about exactly the image that is written down."""
        lanes.candidate = self.threat.clip(lanes.candidate)
        distances = self.threat.distance(lanes.candidate, lanes.images)
        logits = self.network.judge(lanes.candidate)
        confirmed = succeeds(logits, lanes)
        if always:
            self.ledger.enter(lanes, logits=logits, distances=distances)
        else:
            if self.network.rounded is None:  # which asks to be corrected as a matter of course
                self.network.effort.unconfirmed += int((~confirmed).sum())
            self.ledger.enter(lanes.take(confirmed), logits=logits[confirmed], distances=distances[confirmed])
        return confirmed
