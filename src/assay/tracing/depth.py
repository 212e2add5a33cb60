"""Gradients over the depth of an image classifier, and over the first steps of its training."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from torch import nn

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.diagnostics.batches import example
from assay.diagnostics.batchnorm import audit_normalization
from assay.diagnostics.curvature import measure_curvature
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.recorder import record_gradients
from assay.diagnostics.saliency import measure_input_gradients
from assay.diagnostics.time import is_recurrent, measure_gradients_over_time
from assay.models.calls import calling, copied, notes_on
from assay.records.checkup import Measurement, Subject
from assay.records.gradients import DepthTrace
from assay.runtime import device_of, preserved
from assay.tracing.report import TraceReport
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.sections import ConstantSchedule, Nothing, SGDOptions


@checked
def trace(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    steps: int = 30,
    every: int = 10,
    learning_rate: float = 0.01,
    curvature: bool = False,
    seed: int = 0,
    name: str = "model",
    weights: str | None = None,
) -> TraceReport:
    """Measure where gradients vanish or explode in an image classifier, and whether it is in the mode it should be in.

    Audits the modes and the normalisation of the input, measures the gradient of every layer and of the input, and
    trains a copy for a few steps while gradients, activations and updates of every layer are recorded. A classifier
    that reads images as sequences (``nn.RNN``, ``nn.GRU``, ``nn.LSTM`` or their cells) is traced over time as well.

    Args:
        model: takes images (N, C, H, W) in [0, 1] and returns logits (N, K); left as it was found.
        dataset: the images; batches are drawn from all of them.
        steps: steps of SGD that a copy is trained for, with batches of up to 64; 0: none.
        every: the first step and every ``every``-th after it are recorded.
        learning_rate: of these steps, and held against 2/λmax where ``curvature`` is measured.
        curvature: also measure the largest eigenvalues of the Hessian of the loss.
        seed: of the training and of the eigenvalue iteration.
        name: what records and pages call the model.
        weights: the file its weights are from, named on the page.

    Returns:
        The records, the verdicts on them, and a ``write(folder)`` for the page and the charts.

    Raises:
        ModelError: the model cannot take the images, or has no layer with parameters.
        DivergedError: the loss of the training steps is not finite.

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> report = assay.trace(model, data, steps=2, every=1)
        >>> [record.kind for record in report.records]
        ['mode_audit', 'normalization_audit', 'gradient_flow', 'input_gradients', 'depth_trace']
        >>> report.records[-1].steps
        (1, 2)

    Reference:
        Glorot & Bengio 2010, *Understanding the difficulty of training deep feedforward neural networks*.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    records: list[Measurement] = [
        audit_modes(model, dataset),
        audit_normalization(model, dataset),
        measure_gradient_flow(model, dataset),
        measure_input_gradients(model, dataset),
    ]
    if is_recurrent(model):
        records.append(measure_gradients_over_time(model, dataset, name=name))
    if steps:
        records.append(_train_copy(model, dataset, name, steps, every, learning_rate, seed))
    if curvature:
        records.append(measure_curvature(model, dataset, learning_rate=learning_rate, seed=seed))
    n, device = len(dataset), str(device_of(model))
    subject = Subject(
        model=name, weights=weights, data=dataset.name, split=dataset.split, n=n, available=n,
        classes=dataset.classes, image_shape=dataset.shape,
        notes=notes_on(model, to_unit_range(dataset.images[:2]), classes=dataset.classes),
    )  # fmt: skip
    seconds = time.perf_counter() - clock
    return TraceReport(tuple(records), subject, seed=seed, device=device, started=started, seconds=seconds)


def rows_of_step(model: nn.Module, dataset: ImageDataset) -> int:
    """Images of a training step: fewer where they are large, so that it takes one and a half gigabytes at most."""
    most = min(64, len(dataset))
    with calling(model, example(dataset), classes=dataset.classes) as network:
        return min(most, 3 * network.rows_that_fit(dataset.shape, most=most, gradients=True))


def _train_copy(
    model: nn.Module, dataset: ImageDataset, name: str, steps: int, every: int, learning_rate: float, seed: int
) -> DepthTrace:
    batch_size = rows_of_step(model, dataset)
    recipe = Recipe(
        name="trace",
        epochs=steps * batch_size / len(dataset),
        batch_size=batch_size,
        optimizer=SGDOptions(lr=learning_rate),
        schedule=ConstantSchedule(),
        augment=Nothing(),
    )
    with preserved(model):  # a copy shares what cannot be copied, and draws from the same generators
        trained = copied(model)
        with record_gradients(trained, every=every, label=name) as recorder:
            fit(trained, dataset, recipe=recipe, seed=seed, on_step=lambda _: recorder.step())
    return recorder.summarize()
