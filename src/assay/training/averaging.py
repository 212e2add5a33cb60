"""An exponential moving average of the weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import random_sample
from assay.errors import OptionError
from assay.models.running_statistics import measure_running_statistics, updated_norms, write_statistics
from assay.runtime import device_of, dtype_of
from assay.training.sections import AverageOptions


def is_averaged(value: object) -> bool:
    """A state dict also holds counters, and what modules keep beside tensors."""
    return isinstance(value, Tensor) and value.is_floating_point()


class WeightAverage:
    """ā ← d·ā + (1 − d)·w for every floating parameter and buffer, with d = min(decay, (1 + t)/(10 + t)).

    The bound on d lets the average forget its random start (Abadi et al., TensorFlow's ExponentialMovingAverage).
    ``tensors`` maps names of the state dict to averages; with a decay of 0 there are none and nothing happens.
    Raises :class:`OptionError` where none of ``steps`` steps would be taken in: the average would stay the start.
    """

    def __init__(self, model: nn.Module, options: AverageOptions, *, steps: int = sys.maxsize) -> None:
        self._options, self._model = options, model
        self.tensors: dict[str, Tensor] = {}
        if options.decay > 0:
            if options.every > steps:
                raise OptionError("average.every", expected=f"at most the {steps} steps of the run", got=options.every)
            state = model.state_dict()
            self.tensors = {name: state[name].detach().clone() for name in state if is_averaged(state[name])}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after ``step`` steps, if this is one of every ``every``."""
        if not self.tensors or step % self._options.every:
            return
        updates = step // self._options.every
        decay = min(self._options.decay, (1 + updates) / (10 + updates))
        current = self._model.state_dict()
        for name, average in self.tensors.items():
            average.lerp_(current[name].to(average.dtype), 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model carries the averages inside the block, and its own weights again after it."""
        current = self._model.state_dict()
        own = {name: current[name].detach().clone() for name in self.tensors}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in own.items():
                    current[name].copy_(tensor)

    @torch.no_grad()
    def apply(self) -> None:
        """The averages become the model's weights."""
        current = self._model.state_dict()
        for name, average in self.tensors.items():
            current[name].copy_(average)


SAMPLE_STREAM = 0xBA7
FEW = 500  # images: beside the training on a small set, further passes cost less than a second


def refresh_batchnorm(model: nn.Module, dataset: ImageDataset, *, samples: int = 5000, batch_size: int = 250) -> int:
    """Replace running means and variances by those over ``samples`` of ``dataset``, drawn at random.

    Running statistics lag behind weights that still move, or were averaged; this makes them exact for the weights as
    they are. Of more than 500 images one pass is made, in which each batch is normalised by its own statistics: in deep
    layers that is off by about a hundredth of a standard deviation. Layers that the model keeps in evaluation mode
    while it trains, and everything else, are left as they were. Returns how many layers were refreshed; where it raises
    :class:`ModelError` none was.
    """
    norms = updated_norms(model)
    chosen = random_sample(dataset, samples, key=(0, SAMPLE_STREAM))
    device, dtype = device_of(model), dtype_of(model)
    statistics = measure_running_statistics(
        model,
        norms.values(),
        chosen.images,
        convert=lambda images: to_unit_range(images.to(device), dtype),
        batch_size=batch_size,
        passes=None if len(chosen) <= FEW else 1,
    )
    for norm, moments in statistics.items():
        write_statistics(norm, moments)
    return len(statistics)
