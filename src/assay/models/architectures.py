"""The architectures of our own, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from os.path import commonprefix
from types import MappingProxyType
from typing import Protocol

import torch
from torch import nn

from assay.errors import ModelError
from assay.models.plain import build_allcnn, build_mlp
from assay.models.resnet import BasicBlock, BottleneckBlock, build_cifar_resnet, build_resnet
from assay.models.sequence import CELLS, build_image_reader
from assay.models.speednet import build_speednet
from assay.models.wrappers import Normalize, choose_normalization


class Builder(Protocol):
    """Makes one architecture; ``options`` are its own, and a wrong one raises :class:`OptionError`."""

    def __call__(
        self, *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object]
    ) -> nn.Module: ...


ARCHITECTURES: Mapping[str, Builder] = MappingProxyType(
    {
        **{f"resnet{depth}": partial(build_cifar_resnet, depth=depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
        "resnet18": partial(build_resnet, name="resnet18", block=BasicBlock, blocks=(2, 2, 2, 2)),
        "resnet34": partial(build_resnet, name="resnet34", block=BasicBlock, blocks=(3, 4, 6, 3)),
        "resnet50": partial(build_resnet, name="resnet50", block=BottleneckBlock, blocks=(3, 4, 6, 3)),
        "allcnn": build_allcnn,
        "mlp": build_mlp,
        "speednet": build_speednet,
        **{name: partial(build_image_reader, name=name) for name in CELLS},
    }
)


def build(
    name: str,
    *,
    classes: int,
    image_shape: tuple[int, int, int],
    normalization: str | tuple[Sequence[float], Sequence[float]] | None = None,
    options: Mapping[str, object] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A network of random weights, which follow from ``seed`` alone; the global random state is left as found.

    Raises :class:`ModelError` for a name or a size that does not fit, :class:`OptionError` for a wrong option.
    """
    if name not in ARCHITECTURES:
        raise ModelError("architecture", expected=f"one of {', '.join(ARCHITECTURES)}", got=near(name, ARCHITECTURES))
    if classes < 2:
        raise ModelError("classes", expected="at least 2", got=classes)
    if len(image_shape) != 3 or min(image_shape) < 1:
        raise ModelError("image_shape", expected="three sizes (C, H, W) of at least 1", got=image_shape)
    normalize = Normalize(choose_normalization(normalization, channels=image_shape[0]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ARCHITECTURES[name](classes=classes, image_shape=image_shape, normalize=normalize, options=options or {})


def near(name: str, known: Sequence[str] | Mapping[str, object]) -> str:
    """``'resnet21' (did you mean resnet20?)``: an unknown name, with the known one nearest to it."""
    matches = get_close_matches(name, list(known), n=5, cutoff=0.6)
    best = max(matches, key=lambda match: len(commonprefix([name, match])), default=None)  # noqa: RUF071 - by letters
    return repr(name) if best is None else f"{name!r} (did you mean {best}?)"
