"""How many images and steps the stages of a check take, and how that was fitted into a wall time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from assay.options import Options
from assay.records.accuracy import Z_95
from assay.records.base import Record


class Budget(Options):
    """Sample counts and iterations of the costly stages; None means all samples.

    Attributes:
        name: what the report calls it.
        clean: samples for the accuracy on untouched images.
        attacked: samples for each attack and for the accuracy against ε.
        probed: samples for gradients and for the audits of modes and normalisation.
        steps: iterations of PGD.
        restarts: random starts of PGD.
        gallery: examples in each gallery of pictures.
        sample_gallery: samples shown one by one.
        sanity_samples: samples on which the attacks themselves are checked.
        sanity_queries: queries a sample of the gradient-free search in that check.
        mapped: images of which saliency maps are made and checked.
        samples: by the name of a stage, the samples that it takes instead; 0 leaves the stage out.
    """

    name: str
    clean: int | None
    attacked: int | None
    probed: int
    steps: int
    restarts: int = 1
    gallery: int = 12
    sample_gallery: int = 300
    sanity_samples: int = 64
    sanity_queries: int = 100
    mapped: int = 16
    samples: Mapping[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class PlannedStage(Options):
    """What one stage was planned to take.

    Attributes:
        name: of the stage.
        seconds: expected.
        samples: images, 0 for a stage that is left out; None where their number cannot be chosen.
        usual: images that the standard budget takes.
        interval: whether an accuracy is counted over the images, so that more of them narrow its interval.
    """

    name: str
    seconds: float
    samples: int | None = None
    usual: int | None = None
    interval: bool = False

    @property
    def half_width(self) -> float | None:
        """Of the 95 % interval of an accuracy of one half, the widest; None where there is none."""
        return half_width(self.samples) if self.interval and self.samples else None

    @property
    def usual_half_width(self) -> float | None:
        """The same with as many images as the standard budget takes."""
        return half_width(self.usual) if self.interval and self.usual else None


class CheckPlan(Record):
    """The time that a check is expected to take, stage by stage, and the wall time that it was fitted into.

    Attributes:
        budget: the images and steps that the stages take; a check with this budget takes the same.
        within: seconds that were given; None where the budget decides alone.
        reserved: seconds of them for what is no stage: opening the model and the data, drawing the page.
        before: seconds in which the model and the stages were timed.
        stages: in the order in which they are measured; of a check without a wall time none are kept.

    Example:
        >>> import assay
        >>> from assay.records.budget import CheckPlan, PlannedStage
        >>> attacks = PlannedStage(name="attacks", seconds=40.0, samples=180, usual=1000, interval=True)
        >>> budget = assay.check.BUDGETS["standard"]
        >>> plan = CheckPlan(within=60.0, reserved=5.0, before=10.0, budget=budget, stages=(attacks,))
        >>> plan.seconds, round(attacks.half_width, 3), round(attacks.usual_half_width, 3)
        (55.0, 0.072, 0.031)
    """

    kind: Literal["check_plan"] = "check_plan"
    budget: Budget
    within: float | None = None
    reserved: float = 0.0
    before: float = 0.0
    stages: tuple[PlannedStage, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected of everything together."""
        return self.before + self.reserved + sum(stage.seconds for stage in self.stages)


def half_width(n: int) -> float:
    """Half of the 95 % Wilson interval of a share of one half among ``n``: z / 2√(n + z²)."""
    return Z_95 / (2 * math.sqrt(n + Z_95**2))
