"""The only evaluation loop: a model and a data set in, every sample's output out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.arguments import checked
from assay.comparison.statistics import simultaneous_bounds
from assay.data.dataset import Batch, ImageDataset, keep_right, to_unit_range
from assay.data.sequences import TEST, SequenceTask
from assay.errors import ModelError
from assay.models.calls import calling, refusing
from assay.records.accuracy import CalibrationBin, ClassAccuracy, CleanAccuracy, SequenceAccuracy
from assay.records.samples import SampleBits
from assay.runtime import device_of, pixel_dtype, preserved
from assay.runtime.processes import Processes

BATCH_SIZE = 250
Transform = Callable[[Batch], Tensor]  # a batch of bytes to a batch of bytes of the same shape


@dataclass(frozen=True, eq=False)
class Predictions:
    """``logits`` float32 (N, K) on the CPU, ``labels`` int64 (N,), and the seconds the forward passes took."""

    logits: Tensor
    labels: Tensor
    seconds: float

    @property
    def classes(self) -> Tensor:
        """int64 (N,): the class with the largest logit; −1 where a logit is not finite, so it never counts as right."""
        return torch.where(self.logits.isfinite().all(dim=1), self.logits.argmax(dim=1), -1)

    @property
    def correct(self) -> Tensor:
        """bool (N,)."""
        return self.classes == self.labels

    @property
    def losses(self) -> Tensor:
        """float32 (N,): cross-entropy of each sample, in nats."""
        return F.cross_entropy(self.logits, self.labels, reduction="none")

    @property
    def confidences(self) -> Tensor:
        """float32 (N,): the largest softmax probability."""
        return self.logits.softmax(dim=1).amax(dim=1)


@checked
def predict(
    model: nn.Module, dataset: ImageDataset, *, batch_size: int = BATCH_SIZE, transform: Transform | None = None
) -> Predictions:
    """Run ``model`` in evaluation mode over the whole of ``dataset``, on the model's device and in its dtype.

    ``transform`` changes each batch of bytes first (an image operation, for instance). Batches of large images are
    smaller than ``batch_size``. The model is left as found. Raises :class:`ModelError` when it cannot take the images
    or returns anything but one row of K logits a sample.
    """
    logits, _, seconds = _predict_batches(model, dataset, batch_size=batch_size, transform=transform)
    return Predictions(logits, dataset.labels, seconds)


def predict_shared(model: nn.Module, dataset: ImageDataset, processes: Processes) -> Predictions:
    """:func:`predict` with its batches dealt out to the processes, which all hold ``dataset``; each gets all logits.

    The batches are those of one process, so that the logits are, too.
    """
    if processes.world == 1:
        return predict(model, dataset)
    logits = torch.full((len(dataset), len(dataset.classes)), float("nan"))
    own = _predict_batches(model, dataset, batch_size=BATCH_SIZE, index=processes.rank, count=processes.world)
    parts = processes.gather(own)
    for outputs, rows, _ in parts:
        if len(rows):  # there may be fewer batches than processes
            logits[rows] = outputs
    return Predictions(logits, dataset.labels, max(seconds for _, _, seconds in parts))


def _predict_batches(
    model: nn.Module,
    dataset: ImageDataset,
    *,
    batch_size: int,
    transform: Transform | None = None,
    index: int = 0,
    count: int = 1,
) -> tuple[Tensor, Tensor, float]:
    """The logits (M, K) of every ``count``-th batch, the places of their samples int64 (M,), and the seconds taken."""
    device, dtype = device_of(model), pixel_dtype(model)
    example = to_unit_range(dataset.images[:2].to(device), dtype)
    with calling(model, example, classes=dataset.classes) as network, torch.no_grad():
        batch_size = network.rows_that_fit(dataset.shape, most=batch_size)
        rows = torch.cat([torch.empty(0).long(), *torch.split(torch.arange(len(dataset)), batch_size)[index::count]])
        started = time.perf_counter()
        drawn = dataset.batches(batch_size, index=index, count=count)
        pictures = (batch.images if transform is None else transform(batch) for batch in drawn)
        batches = (to_unit_range(images_u8.to(device), dtype) for images_u8 in pictures)
        logits = _run_over(network, batches, n=len(rows))
        seconds = time.perf_counter() - started
    return logits, rows, seconds


def _run_over(forward: Callable[[Tensor], Tensor], batches: Iterable[Tensor], *, n: int) -> Tensor:
    """The outputs for the ``n`` rows of all batches, float32 on the CPU.

    They are written to one preallocated tensor: many small tensors kept between large batches fragment the heap, and
    memory would grow with the set.
    """
    outputs, filled = torch.empty(0), 0
    for batch in batches:
        rows = forward(batch).float().cpu()
        if filled == 0:
            outputs = rows.new_empty(n, *rows.shape[1:])
        outputs[filled : filled + len(rows)] = rows
        filled += len(rows)
    return outputs


@checked
def measure_sequence_accuracy(
    model: nn.Module, task: SequenceTask, *, n: int = 2000, batch_size: int = 250, label: str = "model"
) -> SequenceAccuracy:
    """Loss and accuracy on ``n`` sequences of the task's test stream, beside the loss of a model without memory."""
    inputs, targets = task.draw(n, TEST, 0)

    def forward(batch: Tensor) -> Tensor:
        with refusing(model, expected=f"a sequence model that takes one tensor {tuple(batch.shape)}"):
            outputs: Tensor = model(batch)
            if len(outputs) != len(batch):  # else rows would be left unwritten
                raise ModelError("model(inputs)", expected=f"{len(batch)} rows of outputs", got=tuple(outputs.shape))
        return outputs

    with preserved(model, training=False), torch.no_grad():
        outputs = _run_over(forward, torch.split(inputs.to(device_of(model)), batch_size), n=n)
    return SequenceAccuracy.of(
        int(task.right(outputs, targets).sum()),
        n,
        label=label,
        task=task.name,
        length=task.length,
        loss=float(task.loss(outputs, targets)),
        loss_unit=task.loss_unit,
        baseline=task.baseline,
        baseline_is=task.baseline_is,
        right_is=task.right_is,
    )


@checked
def measure_clean_accuracy(model: nn.Module, dataset: ImageDataset, *, batch_size: int = BATCH_SIZE) -> CleanAccuracy:
    """Accuracy, loss, confusion matrix, recall of each class and calibration on unmodified images.

    A sample counts as correct when the class of its largest logit is its label; one with a logit that is not finite
    never does, and is counted in ``non_finite``.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); run in evaluation mode, left as it was found.
        dataset: images and labels of K classes.
        batch_size: images in one forward pass; it changes no result but by floating-point rounding.

    Returns:
        The record: ``accuracy`` = ``correct`` / ``n`` with its 95 % Wilson interval ``low`` to ``high``, ``loss`` (mean
        cross-entropy in nats), ``confusion`` (K rows of true classes), ``per_class``, the expected calibration error
        over 15 bins of equal width, and the bit of every sample.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=64)
        >>> model = assay.load_model("mlp", classes=10, image_shape=data.shape)
        >>> accuracy = assay.measure_clean_accuracy(model, data)
        >>> accuracy.n, accuracy.low <= accuracy.accuracy <= accuracy.high
        (64, True)

    Reference:
        Wilson 1927, JASA 22(158), for the interval; Guo et al. 2017, arXiv:1706.04599, for the calibration error.
    """
    predictions = predict(model, dataset, batch_size=batch_size)
    return summarize(predictions, classes=dataset.classes, per_sample=keep_right(dataset, predictions.correct))


def summarize(
    predictions: Predictions, *, classes: tuple[str, ...], per_sample: SampleBits | None = None
) -> CleanAccuracy:
    """Count predictions into a :class:`CleanAccuracy`; samples with a non-finite logit are wrong, and counted."""
    labels, predicted, correct = predictions.labels, predictions.classes, predictions.correct
    k, n = len(classes), len(labels)
    finite = predicted >= 0
    confusion = torch.bincount(labels[finite] * k + predicted[finite], minlength=k * k).reshape(k, k)
    per_class = torch.bincount(labels, minlength=k)
    bins = _calibrate(predictions.confidences[finite], correct[finite])
    total = max(1, int(finite.sum()))
    top5 = predictions.logits.topk(min(5, k), dim=1).indices.eq(labels[:, None]).any(dim=1) & finite
    return CleanAccuracy.of(
        int(correct.sum()),
        n,
        loss=float(predictions.losses[finite].double().mean()) if bool(finite.any()) else float("nan"),
        per_class=_summarize_classes(classes, confusion.diagonal().tolist(), per_class.tolist()),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        expected_calibration_error=sum(b.n / total * abs(b.accuracy - b.confidence) for b in bins),
        calibration=bins,
        mean_confidence=float(predictions.confidences[finite].mean()) if bool(finite.any()) else float("nan"),
        top5_accuracy=int(top5.sum()) / n if k > 10 else None,
        non_finite=int((~finite).sum()),
        images_per_second=n / max(predictions.seconds, 1e-9),
        per_sample=per_sample,
    )


def _summarize_classes(classes: tuple[str, ...], correct: Sequence[int], n: Sequence[int]) -> tuple[ClassAccuracy, ...]:
    seen = [i for i, images in enumerate(n) if images]
    bounds = simultaneous_bounds([correct[i] for i in seen], [n[i] for i in seen])
    together = {
        i: {"simultaneous_low": low, "simultaneous_high": high} for i, (low, high) in zip(seen, bounds, strict=True)
    }
    return tuple(ClassAccuracy.of(correct[i], n[i], name=name, **together.get(i, {})) for i, name in enumerate(classes))


def summarize_classes(
    predicted: Tensor, labels: Tensor, *, classes: tuple[str, ...], per_sample: SampleBits | None = None
) -> CleanAccuracy:
    """The same from the predicted class int64 (N,) alone, −1 where there is none: no loss, calibration or top-5."""
    certain = F.one_hot(predicted.clamp_min(0), len(classes)).float()
    certain[predicted < 0] = float("nan")
    counted = summarize(Predictions(certain, labels, seconds=0.0), classes=classes, per_sample=per_sample)
    unknown = dict.fromkeys(("loss", "mean_confidence", "expected_calibration_error"), float("nan"))
    return counted.model_copy(update={**unknown, "calibration": (), "top5_accuracy": None, "scored": False})


def _calibrate(confidences: Tensor, correct: Tensor, *, bins: int = 15) -> tuple[CalibrationBin, ...]:
    """Equal-width bins (low, high]; empty ones are left out."""
    index = (confidences.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
    filled = []
    for b in sorted(set(index.tolist())):
        inside = index == b
        n, low, high = int(inside.sum()), b / bins, (b + 1) / bins
        confidence, accuracy = (float(values[inside].double().mean()) for values in (confidences, correct))
        filled.append(CalibrationBin(low=low, high=high, n=n, confidence=confidence, accuracy=accuracy))
    return tuple(filled)
