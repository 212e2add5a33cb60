"""What fine-tuning changes of a run: smaller steps for earlier layers, and a start with the backbone frozen."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import ModelError
from assay.models.heads import head_parameters
from assay.runtime import device_of, dtype_of
from assay.training.sections import FinetuneOptions

_NUMBER = re.compile(r"(^|_)\d+$")  # of a block in a list: layers.3, encoder_layer_3
_LOOSE_NUMBER = re.compile(r"\d+$")  # where there are no lists: denseblock3


class FineTuning:
    """Which part of a model moves how fast: ``rates``, factors on the learning rate by name of the parameter.

    ``options.layer_decay`` is the factor from one block to the one before it; the head has 1. In the first
    ``options.frozen_epochs`` epochs the head alone is trained, but never in the last of them all, whose number is
    ``last_epoch``. Raises :class:`ModelError` for a model that has no head apart from the rest.
    """

    def __init__(self, model: nn.Module, train: object, options: FinetuneOptions, *, last_epoch: int) -> None:
        self._model, self._epochs = model, min(options.frozen_epochs, last_epoch)
        self.rates: Mapping[str, float] = {}
        self._frozen: list[nn.Parameter] = []
        if options == FinetuneOptions() or not isinstance(train, ImageDataset):
            return
        images = to_unit_range(train.images[:2].to(device_of(model)), dtype_of(model))
        head = head_parameters(model, images)
        self._frozen = [p for name, p in model.named_parameters() if name not in head and p.requires_grad]
        if not self._frozen:
            raise ModelError("model", expected="trainable layers before the last one, to fine-tune", got="none")
        if options.layer_decay < 1:
            depths = layer_depths(model, head=head)
            last = max(depths.values())
            self.rates = {name: options.layer_decay ** (last - depth) for name, depth in depths.items()}

    @contextmanager
    def running(self) -> Iterator[None]:
        """For the length of the run; whatever is frozen is free again after it."""
        try:
            yield
        finally:
            self._freeze(frozen=False)

    def set_mode(self, *, epoch: int) -> None:
        """Before each step of ``epoch``: the model in training mode, its backbone frozen or free.

        While it is frozen its parameters get no gradients and no steps, and its normalisation layers keep their
        running statistics and normalise by them. Dropout goes on.
        """
        self._model.train()
        if self._epochs:
            self._freeze(frozen=epoch < self._epochs)
            if epoch < self._epochs:
                for module in self._model.modules():
                    if isinstance(module, _NormBase):
                        module.eval()

    def _freeze(self, *, frozen: bool) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_(not frozen)


def layer_depths(model: nn.Module, *, head: Collection[str]) -> dict[str, int]:
    """Depth of every parameter: 0 before the first block, n in the n-th, and one more than the last in the ``head``.

    A block is the outermost module of a list: a layer of a transformer, a block of a ResNet, a stage of a Swin or
    ConvNeXt network. The order is that in which the modules are defined; what stands between two blocks, or after the
    last one, belongs to the former.
    """
    names = [name for name, _ in model.named_parameters()]
    composed = {path for path, module in model.named_modules() if any(True for _ in module.children())}
    paths = {path for path, _ in model.named_modules()}
    order: dict[str, int] = {}
    # Lists of modules that have layers in them come first: a stem may be a list of single layers.
    for pattern, those in ((_NUMBER, composed), (_LOOSE_NUMBER, composed), (_NUMBER, paths), (_LOOSE_NUMBER, paths)):
        blocks = {name: _block(name, pattern, those) for name in names}
        order = {block: place for place, block in enumerate(dict.fromkeys(filter(None, blocks.values())), start=1)}
        if len(order) > 1:
            break
    depths, depth = {}, 0
    for name, block in blocks.items():
        depth = order[block] if block else depth
        depths[name] = len(order) + 1 if name in head else depth
    return depths


def _block(name: str, pattern: re.Pattern[str], paths: Collection[str]) -> str | None:
    """The path of a parameter as far as its first part with a number that ends one of ``paths``; None without one."""
    parts = name.split(".")
    prefixes = ((part, ".".join(parts[: place + 1])) for place, part in enumerate(parts[:-1]))
    return next((path for part, path in prefixes if pattern.search(part) and path in paths), None)
