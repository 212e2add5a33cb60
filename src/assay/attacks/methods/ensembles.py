"""The parameter-free attacks and their ensemble, with the budgets AutoAttack was published with."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from assay.attacks.losses import find_loss, fit_to_classes, targeted_dlr
from assay.attacks.methods.apgd import Apgd
from assay.attacks.methods.apgd_l1 import ApgdL1
from assay.attacks.methods.fab import Fab
from assay.attacks.methods.minimum_norm import FastMinimumNorm
from assay.attacks.methods.square import Square, SquareLp
from assay.attacks.options import Attack, LossName, Plan, notes
from assay.attacks.threat import Threat

_L1_RESTARTS, _L1_TARGETS = 5, 5  # of the published ensemble


class ApgdCe(Attack):
    """Auto-PGD on the cross-entropy, untargeted (Croce & Hein 2020)."""

    name: ClassVar[str] = "apgd-ce"
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    loss: LossName = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        method = ApgdL1 if threat.norm == "l1" else Apgd
        return Plan(
            tuple(
                method(name=self.name, steps=self.steps, loss=loss, seed=seed, stream=restart)
                for restart in range(self.restarts)
            ),
            notes(note),
        )


class ApgdT(Attack):
    """Auto-PGD on the targeted difference of logits ratio, towards each of the likeliest wrong classes in turn."""

    name: ClassVar[str] = "apgd-t"
    steps: int = Field(default=100, ge=1)
    targets: int = Field(default=9, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a target."""
        loss, note = fit_to_classes(targeted_dlr, classes)
        method = ApgdL1 if threat.norm == "l1" else Apgd
        return Plan(
            tuple(
                method(name=self.name, steps=self.steps, loss=loss, rank=rank, seed=seed, stream=1)
                for rank in range(2, 2 + min(self.targets, classes - 1))
            ),
            notes(note),
        )


class FabT(Attack):
    """The targeted FAB attack, towards each of the likeliest wrong classes in turn (Croce & Hein 2020)."""

    name: ClassVar[str] = "fab-t"
    steps: int = Field(default=100, ge=1)
    targets: int = Field(default=9, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a target."""
        ranks = range(2, 2 + min(self.targets, classes - 1))
        return Plan(tuple(Fab(name=self.name, steps=self.steps, rank=rank) for rank in ranks))


class SquareSearch(Attack):
    """The black-box Square Attack: random search without gradients (Andriushchenko et al. 2020)."""

    name: ClassVar[str] = "square"
    queries: int = Field(default=5000, ge=1)
    restarts: int = Field(default=1, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method a restart."""
        restarts = range(self.restarts)
        method = Square if threat.norm == "linf" else SquareLp
        return Plan(tuple(method(steps=self.queries - 1, seed=seed, stream=restart) for restart in restarts))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(queries, no step size, restarts)."""
        return (self.queries, None, self.restarts)


class Standard(Attack):
    """The AutoAttack ensemble: APGD-CE, APGD-T, FAB-T and Square, each on what withstood the ones before.

    Croce & Hein 2020, with the published budgets: 100 steps, twice 100 towards each of 9 targets, 5,000 queries.
    Under L1 (Croce & Hein 2021) APGD-CE runs from five starts and APGD-T towards five targets.
    """

    name: ClassVar[str] = "standard"
    steps: int = Field(default=100, ge=1)
    targets: int = Field(default=9, ge=1)
    queries: int = Field(default=5000, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """The four, in the published order."""
        members = (
            ApgdCe(steps=self.steps, restarts=_L1_RESTARTS if threat.norm == "l1" else 1),
            ApgdT(steps=self.steps, targets=min(self.targets, _L1_TARGETS) if threat.norm == "l1" else self.targets),
            FabT(steps=self.steps, targets=self.targets),
            SquareSearch(queries=self.queries),
        )
        plans = [member.plan(threat, classes=classes, seed=seed) for member in members]
        said = notes(*(note for plan in plans for note in plan.notes))
        return Plan(tuple(method for plan in plans for method in plan.methods), said)


class Adaptive(Attack):
    """The algorithms of :class:`Standard` under a budget that goes where samples still break.

    One round of each always runs on all that stand: APGD-CE, APGD-T and FAB-T towards the likeliest wrong class, and a
    short Square search, which alone sees through masked gradients. The other targets follow, then the long Square
    search; each attacks the samples nearest to the boundary first, and all end when
    :class:`assay.attacks.early_stopping.Patience` says so: when one more method is expected, with 95 % confidence, to
    break at most ``tolerance`` of all samples. A search inside the ball leaves a sample when
    :class:`assay.attacks.early_stopping.Pace` says that it will not reach the boundary in time.
    """

    name: ClassVar[str] = "adaptive"
    steps: int = Field(default=100, ge=1)
    targets: int = Field(default=9, ge=1)
    boundary_steps: int = Field(default=30, ge=1)
    queries: int = Field(default=5000, ge=1)
    short_queries: int = Field(default=300, ge=1)
    tolerance: float = Field(default=0.002, gt=0, lt=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One round of each, then the rest while it is worthwhile."""
        untargeted = ApgdCe(steps=self.steps).plan(threat, classes=classes, seed=seed)
        targeted = ApgdT(steps=self.steps, targets=self.targets).plan(threat, classes=classes, seed=seed)
        boundary = FabT(steps=self.boundary_steps, targets=1).plan(threat, classes=classes, seed=seed)
        short = SquareSearch(queries=self.short_queries).plan(threat, classes=classes, seed=seed)
        long = SquareSearch(queries=self.queries).plan(threat, classes=classes, seed=seed)
        first = (*untargeted.methods, targeted.methods[0], *short.methods, *boundary.methods)
        return Plan(
            (*first, *targeted.methods[1:], *long.methods),
            notes(*untargeted.notes, *targeted.notes),
            tolerance=self.tolerance,
            optional_from=len(first),
            gives_up=True,
        )


class MinimumNorm(Attack):
    """The nearest adversarial image of each sample: the whole curve in one run (FMN, Pintor et al. 2021)."""

    name: ClassVar[str] = "min-norm"
    steps: int = Field(default=60, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> Plan:
        """One method."""
        return Plan((FastMinimumNorm(steps=self.steps),))
