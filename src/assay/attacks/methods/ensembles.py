"""The parameter-free attacks and their ensemble, with the budgets AutoAttack was published with."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from assay.attacks.losses import find_loss, fit_to_classes, targeted_dlr
from assay.attacks.methods.apgd import ApgdMethod
from assay.attacks.methods.apgd_l1 import ApgdL1Method
from assay.attacks.methods.fab import FabMethod
from assay.attacks.methods.minimum_norm import MinimumNormMethod
from assay.attacks.methods.square import SquareLpMethod, SquareMethod
from assay.attacks.options import AttackOptions, AttackPlan, LossName, notes
from assay.attacks.threat import Threat

_L1_RESTARTS, _L1_TARGETS = 5, 5  # of the published ensemble


class APGD(AttackOptions):
    """Auto-PGD on the cross-entropy, untargeted (Croce & Hein 2020)."""

    name: ClassVar[str] = "apgd-ce"
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    loss: LossName = "ce"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        loss, note = fit_to_classes(find_loss(self.loss), classes)
        method = ApgdL1Method if threat.norm == "l1" else ApgdMethod
        return AttackPlan(
            tuple(
                method(name=self.name, steps=self.steps, loss=loss, seed=seed, stream=restart)
                for restart in range(self.restarts)
            ),
            notes(note),
        )


class APGDT(AttackOptions):
    """Auto-PGD on the targeted difference of logits ratio, towards each of the likeliest wrong classes in turn."""

    name: ClassVar[str] = "apgd-t"
    steps: int = Field(default=100, ge=1)
    n_target_classes: int = Field(default=9, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a target."""
        loss, note = fit_to_classes(targeted_dlr, classes)
        method = ApgdL1Method if threat.norm == "l1" else ApgdMethod
        return AttackPlan(
            tuple(
                method(name=self.name, steps=self.steps, loss=loss, rank=rank, seed=seed, stream=1)
                for rank in range(2, 2 + min(self.n_target_classes, classes - 1))
            ),
            notes(note),
        )


class FAB(AttackOptions):
    """The targeted FAB attack, towards each of the likeliest wrong classes in turn (Croce & Hein 2020)."""

    name: ClassVar[str] = "fab-t"
    steps: int = Field(default=100, ge=1)
    n_target_classes: int = Field(default=9, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a target."""
        ranks = range(2, 2 + min(self.n_target_classes, classes - 1))
        return AttackPlan(tuple(FabMethod(name=self.name, steps=self.steps, rank=rank) for rank in ranks))


class Square(AttackOptions):
    """The black-box Square Attack: random search without gradients (Andriushchenko et al. 2020)."""

    name: ClassVar[str] = "square"
    queries: int = Field(default=5000, ge=1)
    restarts: int = Field(default=1, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method a restart."""
        restarts = range(self.restarts)
        method = SquareMethod if threat.norm == "linf" else SquareLpMethod
        return AttackPlan(tuple(method(steps=self.queries - 1, seed=seed, stream=restart) for restart in restarts))

    def describe(self, threat: Threat) -> tuple[int, float | None, int]:
        """(queries, no step size, restarts)."""
        return (self.queries, None, self.restarts)


class StandardAttack(AttackOptions):
    """The AutoAttack ensemble: APGD-CE, APGD-T, FAB-T and Square, each on what withstood the ones before.

    Croce & Hein 2020, with the published budgets: 100 steps, twice 100 towards each of 9 targets, 5,000 queries.
    Under L1 (Croce & Hein 2021) APGD-CE runs from five starts and APGD-T towards five targets.
    """

    name: ClassVar[str] = "standard"
    steps: int = Field(default=100, ge=1)
    n_target_classes: int = Field(default=9, ge=1)
    queries: int = Field(default=5000, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """The four, in the published order."""
        members = (
            APGD(steps=self.steps, restarts=_L1_RESTARTS if threat.norm == "l1" else 1),
            APGDT(
                steps=self.steps,
                n_target_classes=min(self.n_target_classes, _L1_TARGETS)
                if threat.norm == "l1"
                else self.n_target_classes,
            ),
            FAB(steps=self.steps, n_target_classes=self.n_target_classes),
            Square(queries=self.queries),
        )
        plans = [member.plan(threat, classes=classes, seed=seed) for member in members]
        said = notes(*(note for plan in plans for note in plan.notes))
        return AttackPlan(tuple(method for plan in plans for method in plan.methods), said)


class AdaptiveAttack(AttackOptions):
    """The algorithms of :class:`StandardAttack` under a budget that goes where samples still break.

    One round of each always runs on all that stand: APGD-CE, APGD-T and FAB-T towards the likeliest wrong class, and a
    short Square search, which alone sees through masked gradients. The other targets follow, then the long Square
    search; each attacks the samples nearest to the boundary first, and all end when
    :class:`assay.attacks.early_stopping.EarlyStoppingByYield` says so: when one more method is expected, with 95 %
    confidence, to break at most ``tolerance`` of all samples. A search inside the ball leaves a sample when
    :class:`assay.attacks.early_stopping.EarlyStoppingByProgress` says that it will not reach the boundary in time.
    """

    name: ClassVar[str] = "adaptive"
    steps: int = Field(default=100, ge=1)
    n_target_classes: int = Field(default=9, ge=1)
    boundary_steps: int = Field(default=30, ge=1)
    queries: int = Field(default=5000, ge=1)
    short_queries: int = Field(default=300, ge=1)
    tolerance: float = Field(default=0.002, gt=0, lt=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One round of each, then the rest while it is worthwhile."""
        untargeted = APGD(steps=self.steps).plan(threat, classes=classes, seed=seed)
        targeted = APGDT(steps=self.steps, n_target_classes=self.n_target_classes).plan(
            threat, classes=classes, seed=seed
        )
        boundary = FAB(steps=self.boundary_steps, n_target_classes=1).plan(threat, classes=classes, seed=seed)
        short = Square(queries=self.short_queries).plan(threat, classes=classes, seed=seed)
        long = Square(queries=self.queries).plan(threat, classes=classes, seed=seed)
        first = (*untargeted.methods, targeted.methods[0], *short.methods, *boundary.methods)
        return AttackPlan(
            (*first, *targeted.methods[1:], *long.methods),
            notes(*untargeted.notes, *targeted.notes),
            tolerance=self.tolerance,
            optional_from=len(first),
            early_stopping=True,
        )


class MinimumNorm(AttackOptions):
    """The nearest adversarial image of each sample: the whole curve in one run (FMN, Pintor et al. 2021)."""

    name: ClassVar[str] = "min-norm"
    steps: int = Field(default=60, ge=1)

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method."""
        return AttackPlan((MinimumNormMethod(steps=self.steps),))
