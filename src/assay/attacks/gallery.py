"""The worst examples of an attack, as pictures."""

from __future__ import annotations

import math

from torch import Tensor

from assay.attacks.measure import RobustnessMeasurement
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.pictures import png_base64, to_bytes
from assay.errors import DataError
from assay.records.attack import AdversarialExample, AdversarialGallery


def pick_gallery(measurement: RobustnessMeasurement, dataset: ImageDataset, *, shown: int = 12) -> AdversarialGallery:
    """The ``shown`` samples that were right before the attack and are most confidently wrong after it.

    ``dataset`` is the one the attack ran on. The perturbation is drawn about mid-grey, magnified by the largest power
    of two (at least 1) that keeps it within the range of the page.
    """
    outcome, record = measurement.outcome, measurement.record
    if len(dataset) != len(outcome.labels):
        raise DataError("dataset", expected=f"the {len(outcome.labels)} samples that were attacked", got=len(dataset))
    after = outcome.logits.softmax(dim=1)
    before = outcome.clean_logits.softmax(dim=1)
    fallen = (outcome.clean_right & ~outcome.robust).nonzero()[:, 0]
    worst = fallen[after[fallen].amax(dim=1).argsort(descending=True, stable=True)][:shown]
    examples = []
    for row in worst.tolist():
        image = to_unit_range(dataset.images[row])
        delta = outcome.adversarial[row] - image
        magnified = magnification(delta)
        was, now = int(before[row].argmax()), int(after[row].argmax())
        examples.append(
            AdversarialExample(
                sample_id=dataset.sample_name(row),
                label=dataset.classes[int(outcome.labels[row])],
                clean_prediction=dataset.classes[was],
                clean_confidence=float(before[row, was]),
                adversarial_prediction=dataset.classes[now],
                adversarial_confidence=float(after[row, now]),
                distance=float(outcome.distances[row]),
                magnified=magnified,
                image=png_base64(dataset.images[row]),
                perturbation=png_base64(to_bytes((0.5 + magnified * delta).clamp(0, 1))),
                adversarial=png_base64(to_bytes(outcome.adversarial[row].clamp(0, 1))),
            )
        )
    return AdversarialGallery(attack=record.attack, norm=record.norm, epsilon=record.epsilon, examples=tuple(examples))


def magnification(delta: Tensor) -> float:
    """The largest power of two, at least 1, by which ``delta`` may be multiplied and stay within ±0.5."""
    largest = float(delta.abs().amax())
    if largest == 0 or not math.isfinite(largest):
        return 1.0
    return float(max(1.0, 2.0 ** math.floor(math.log2(0.5 / largest))))
