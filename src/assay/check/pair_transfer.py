"""Whether adversarial images of one model break another one as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from assay.attacks.batch import predictions
from assay.attacks.engine import attack as run_attack
from assay.attacks.measure import attack_inputs
from assay.attacks.methods.gradient import PGD
from assay.attacks.result import AttackResult
from assay.check.pair_samples import PreparedModel, attempt, require_same_pixels
from assay.data.selection import choose_samples
from assay.errors import ModelError
from assay.evaluate import Predictions
from assay.models.calls import calling, rows_that_fit
from assay.models.programs.classifier import in_own_runtime
from assay.records.failure import FailedMeasurement
from assay.records.model_comparison import Transfer

STEPS = 10
EPSILON = 8 / 255


@dataclass(eq=False)
class TransferAttacks:
    """Attacks on up to ``n`` fairly chosen images of the reference and of other models, given to each other.

    The attack on the reference runs once, for all of them.
    """

    reference: PreparedModel
    clean: Predictions
    n: int
    seed: int
    _of_reference: AttackResult | FailedMeasurement | None = field(default=None, init=False)

    def both_ways(self, other: PreparedModel, clean: Predictions) -> tuple[Transfer | FailedMeasurement, ...]:
        """Adversarial images of the reference given to ``other``, and the other way; each or why it failed."""
        name = f"adversarial images of {self.reference.name} for {other.name}"
        same = attempt(partial(require_same_pixels, self.reference, other), name="adversarial images", gives="transfer")
        if isinstance(same, FailedMeasurement):
            return (same,)
        if self._of_reference is None:
            search = partial(self._attack, self.reference, self.clean)
            self._of_reference = attempt(search, name=f"attack on {self.reference.name}", gives="transfer")
        back = attempt(partial(self._attack, other, clean), name=f"attack on {other.name}", gives="transfer")
        forth = self._of_reference
        measure: Callable[[], Transfer]
        results: list[Transfer | FailedMeasurement] = []
        for result, source, target, right in (
            (forth, self.reference, other, clean),
            (back, other, self.reference, self.clean),
        ):
            if isinstance(result, FailedMeasurement):
                results.append(result)
                continue
            name = f"adversarial images of {source.name} for {target.name}"
            measure = partial(self._give, result, source, target, right)
            results.append(attempt(measure, name=name, gives="transfer"))
        return tuple(results)

    def _rows(self) -> Tensor:
        labels = self.reference.dataset.labels.numpy()
        return torch.from_numpy(choose_samples(labels, limit=min(self.n, len(labels))))

    def _attack(self, source: PreparedModel, clean: Predictions) -> AttackResult:
        rows = self._rows()
        result = run_attack(
            source.model,
            **attack_inputs(source.model, source.dataset.subset(rows)),
            attack=PGD(steps=STEPS),
            epsilon=EPSILON,
            seed=self.seed,
            clean_logits=clean.logits[rows],
        )
        gradients, zero = result.counts.gradients, result.counts.zero_gradients
        if not result.counts.differentiable or 0 < gradients == zero:
            got = "gradients that are zero everywhere: PGD searches at random"
            raise ModelError(source.name, expected="a model with gradients", got=got)
        return result

    def _give(self, result: AttackResult, source: PreparedModel, target: PreparedModel, clean: Predictions) -> Transfer:
        rows = self._rows()
        chosen = (result.broken & clean.correct[rows]).nonzero()[:, 0]
        images, labels = result.adversarial[chosen], result.labels[chosen]
        broken = 0
        if len(chosen):
            with (
                in_own_runtime(target.model),
                calling(target.model, images, classes=target.dataset.classes) as network,
                torch.no_grad(),
            ):
                size = rows_that_fit(target.dataset.shape, most=100)
                for part in torch.split(torch.arange(len(chosen)), size):
                    classes = predictions(network(images[part].to(network.device))).cpu()
                    broken += int((classes != labels[part]).sum())
        return Transfer.of(
            broken,
            len(chosen),
            source=source.name,
            target=target.name,
            attack="pgd",
            steps=STEPS,
            epsilon=EPSILON,
            attacked=len(rows),
            robust=int(result.robust.sum()),
        )
