"""Gradients back over the steps of a classifier that reads its pictures in sequence."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.diagnostics.batches import spread
from assay.diagnostics.time import measure_time_trace
from assay.records.recurrence import TimeTrace
from assay.runtime import device_of, dtype_of

IMAGES = 32


def is_recurrent(model: nn.Module) -> bool:
    """Whether some module of it is a recurrent one of torch's."""
    return any(isinstance(module, (nn.RNNBase, nn.RNNCellBase)) for module in model.modules())


def measure_gradients_over_time(model: nn.Module, dataset: ImageDataset, *, name: str = "model") -> TimeTrace:
    """The time trace of the cross-entropy of up to 32 images of ``dataset``; see :func:`measure_time_trace`."""
    data = spread(dataset, IMAGES)
    images = to_unit_range(data.images.to(device_of(model)), dtype_of(model))
    labels = data.labels.to(device_of(model))
    return measure_time_trace(model, images, lambda z: F.cross_entropy(z, labels), label=name, task=dataset.name)
