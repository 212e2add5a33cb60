"""Other people's attacks, run through this engine and judged by its rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict
from torch import Tensor

from assay.attacks.batch import ActiveBatch, Keeps, ModelOutput, Samples, initial_fields
from assay.attacks.losses import AttackLoss, cross_entropy
from assay.attacks.methods.gradient import GradientMethod
from assay.attacks.options import AttackOptions, AttackPlan
from assay.attacks.threat import Threat
from assay.errors import ModelError

Perturb = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W) and labels (B,) to images


@dataclass(frozen=True)
class ExternalMethod:
    """A foreign attack as a method of one answer: it proposes, the engine checks box and ball and asks the model."""

    perturb: Perturb
    name: str = "external"
    steps: int = 0
    loss: AttackLoss = cross_entropy
    keeps: Keeps = "first"
    stays_inside: bool = True

    def begin(self, samples: Samples, threat: Threat) -> ActiveBatch:
        """What the foreign attack makes of the images."""
        iterate = self.perturb(samples.images.clone(), samples.labels.clone())
        if not isinstance(iterate, Tensor) or iterate.shape != samples.images.shape:
            got = tuple(iterate.shape) if isinstance(iterate, Tensor) else type(iterate).__name__
            raise ModelError(f"{self.name}(images, labels)", expected=f"images {tuple(samples.images.shape)}", got=got)
        moved = iterate.detach().to(samples.images)
        return ActiveBatch(**initial_fields(samples, iterate=moved, gradient=False))

    def advance(self, batch: ActiveBatch, output: ModelOutput, threat: Threat) -> ActiveBatch:
        """There is no second answer."""
        raise AssertionError("a method of no steps is never advanced")


class External(AttackOptions):
    """Any callable ``(images, labels) -> images``, in the manner of torchattacks.

    ``External(perturb=torchattacks.PGD(model, eps=8 / 255), label="their pgd")``. A Foolbox attack needs one line:
    ``External(perturb=lambda x, y: linf(fb_model, x, y, epsilons=8 / 255)[1])``. It is called with the samples that are
    right before the attack; candidates outside the ball are counted and do not count.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str] = "external"
    perturb: Perturb
    label: str = "external"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method."""
        return AttackPlan((ExternalMethod(self.perturb, name=self.label),))


class Transfer(AttackOptions):
    """MI-FGSM on a second model, judged by the first: how well an attacker does who has only a relative of the model.

    Give the second model as ``source`` of :func:`assay.attacks.engine.attack` (Dong et al. 2018). Every sample takes
    every step: an image that barely fools the source rarely fools anyone else.
    """

    name: ClassVar[str] = "transfer"
    steps: int = 10
    momentum: float = 1.0

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        """One method."""
        relative = min(1.0, 1.25 / self.steps)
        method = GradientMethod(
            name=self.name, steps=self.steps, relative_step=relative, momentum=self.momentum, keeps="last", seed=seed
        )
        return AttackPlan((method,))
