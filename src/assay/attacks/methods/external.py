"""Attacks of other libraries, verified by this engine; and transfer attacks from a second model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from torch import Tensor

from assay.attacks.batch import ActiveBatch, Method, ModelOutput, Samples, initial_fields
from assay.attacks.methods.gradient import GradientMethod
from assay.attacks.options import AttackOptions, AttackPlan, Steps, register
from assay.attacks.threat import Threat
from assay.errors import ModelError
from assay.models.calls import refusing

Perturb = Callable[[Tensor, Tensor], Tensor]  # images (B, C, H, W) and labels (B,) to images


@dataclass(frozen=True, kw_only=True)
class ExternalMethod(Method[ActiveBatch]):
    """The attack of another library as a method of no steps: it proposes, the engine checks and verifies."""

    perturb: Perturb
    takes_gradients: bool = False

    def begin(self, samples: Samples, threat: Threat) -> ActiveBatch:
        with refusing(self.perturb, expected="images", where=f"{self.name}(images, labels)"):
            iterate = self.perturb(samples.images.clone(), samples.labels.clone())
        if not isinstance(iterate, Tensor) or iterate.shape != samples.images.shape:
            got = tuple(iterate.shape) if isinstance(iterate, Tensor) else type(iterate).__name__
            raise ModelError(f"{self.name}(images, labels)", expected=f"images {tuple(samples.images.shape)}", got=got)
        return ActiveBatch(**initial_fields(samples, iterate=iterate.detach().to(samples.images), gradient=False))

    def advance(self, batch: ActiveBatch, output: ModelOutput, threat: Threat) -> ActiveBatch:
        raise AssertionError("a method of no steps is never advanced")


class External(AttackOptions):
    """Any callable ``(images, labels) -> images``, such as an attack of torchattacks or Foolbox.

    ``External(perturb=torchattacks.PGD(model, eps=8 / 255), label="torchattacks pgd")``, or with Foolbox
    ``External(perturb=lambda x, y: linf(fb_model, x, y, epsilons=8 / 255)[1])``. It is called with the samples that are
    correct before the attack. Images outside the ball do not count, and their number is in the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
    name: ClassVar[str] = "external"
    perturb: Perturb
    label: str = "external"

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        return AttackPlan((ExternalMethod(name=self.label, steps=0, perturb=self.perturb),))


@register
class Transfer(AttackOptions):
    """Transfer attack: MI-FGSM on a second model, verified on the first.

    Give the second model as ``source`` of :func:`assay.attack`. Every sample takes every step: an image that barely
    fools the source rarely fools another model.

    Reference:
        Dong et al. 2018, arXiv:1710.06081.
    """

    name: ClassVar[str] = "transfer"
    note_without_source: ClassVar[str | None] = "no source model was given: the attack searched the model itself"
    steps: Steps = 10
    momentum: Annotated[float, Field(ge=0, le=1, description="decay factor of the accumulated gradient")] = 1.0

    def plan(self, threat: Threat, *, classes: int, seed: int) -> AttackPlan:
        method = partial(GradientMethod, relative_step=min(1.0, 1.25 / self.steps), momentum=self.momentum)
        return AttackPlan((method(name=self.name, steps=self.steps, keeps="last", seed=seed),))
