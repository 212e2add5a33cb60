"""The ensembles: AutoAttack with its published budgets, and the same algorithms under an adaptive budget."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from assay.attacks.methods.apgd import APGD, APGDT
from assay.attacks.methods.fab import FAB
from assay.attacks.methods.square import Square
from assay.attacks.options import AttackOptions, AttackPlan, Queries, Steps, TargetClasses, register, unique_notes
from assay.attacks.threat import Threat

_L1_RESTARTS, _L1_TARGET_CLASSES = 5, 5  # of the published ensemble


@register
class StandardAttack(AttackOptions):
    """AutoAttack: APGD-CE, APGD-T, FAB-T and Square, each on the samples that are still correct after the others.

    The published budgets are the defaults. Under L1, APGD-CE has five restarts and APGD-T five target classes.

    Attributes:
        steps: of each gradient attack, at least 1.
        n_target_classes: of APGD-T and FAB-T, at least 1.
        queries: of the Square Attack, at least 1.

    Example:
        >>> import assay
        >>> plan = assay.StandardAttack(n_target_classes=1).plan(assay.Threat(), classes=10, seed=0)
        >>> [method.name for method in plan.methods]
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']

    Reference:
        Croce & Hein 2020, arXiv:2003.01690; under L1 Croce & Hein 2021, arXiv:2103.01208.
    """

    name: ClassVar[str] = "standard"
    steps: Steps = 100
    n_target_classes: TargetClasses = 9
    queries: Queries = 5000

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        restarts, most = (_L1_RESTARTS, _L1_TARGET_CLASSES) if threat.norm == "l1" else (1, classes)
        members = (
            APGD(steps=self.steps, restarts=restarts),
            APGDT(steps=self.steps, n_target_classes=min(self.n_target_classes, most)),
            FAB(steps=self.steps, n_target_classes=self.n_target_classes),
            Square(queries=self.queries),
        )
        plans = [member.plan(threat, classes=classes, seed=seed) for member in members]
        return AttackPlan(
            tuple(method for plan in plans for method in plan.methods),
            unique_notes(*(note for plan in plans for note in plan.notes)),
        )


@register
class AdaptiveAttack(AttackOptions):
    """The algorithms of AutoAttack under a budget that goes where samples still break.

    One round of each runs on all that are still correct: APGD-CE, APGD-T and FAB-T towards the most likely wrong class,
    and a short Square search, which alone needs no gradients. The other target classes follow, then the long Square
    search; each attacks the samples nearest to the boundary first. They end early when one more method is expected,
    with 95 % confidence, to break at most ``tolerance`` of all samples
    (:class:`assay.attacks.early_stopping.EarlyStoppingByYield`). A search inside the ball leaves a sample that it will
    not bring to the boundary in time (:class:`assay.attacks.early_stopping.EarlyStoppingByProgress`).

    Attributes:
        steps: of APGD-CE and APGD-T, at least 1.
        n_target_classes: of APGD-T, at least 1.
        boundary_steps: of FAB-T, at least 1.
        queries: of the long Square search, at least 1.
        short_queries: of the short one, at least 1.
        tolerance: share of all samples that may be missed, between 0 and 1.

    Example:
        >>> import assay
        >>> plan = assay.AdaptiveAttack().plan(assay.Threat(), classes=10, seed=0)
        >>> [method.name for method in plan.methods[: plan.optional_from]]
        ['apgd-ce', 'apgd-t', 'square', 'fab-t']

    Reference:
        Croce & Hein 2020, arXiv:2003.01690, for the algorithms.
    """

    name: ClassVar[str] = "adaptive"
    steps: Steps = 100
    n_target_classes: TargetClasses = 9
    boundary_steps: Annotated[int, Field(ge=1, description="steps of FAB-T")] = 30
    queries: Queries = 5000
    short_queries: Annotated[int, Field(ge=1, description="forward passes of the first, short Square search")] = 300
    tolerance: Annotated[float, Field(gt=0, lt=1, description="share of all samples that may be missed")] = 0.002

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        members = (
            APGD(steps=self.steps),
            APGDT(steps=self.steps, n_target_classes=self.n_target_classes),
            FAB(steps=self.boundary_steps, n_target_classes=1),
            Square(queries=self.short_queries),
            Square(queries=self.queries),
        )
        plans = (member.plan(threat, classes=classes, seed=seed) for member in members)
        untargeted, targeted, boundary, short, long = plans
        first = (*untargeted.methods, targeted.methods[0], *short.methods, *boundary.methods)
        return AttackPlan(
            (*first, *targeted.methods[1:], *long.methods),
            unique_notes(*untargeted.notes, *targeted.notes),
            tolerance=self.tolerance,
            optional_from=len(first),
            early_stopping=True,
        )
