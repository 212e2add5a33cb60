"""The head of a classifier, the last layer before its logits: its parameters, and a new one for new classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from assay.errors import ModelError
from assay.models.calls import calling

# Nodes of autograd's graph that apply a weight layer: Linear, Conv, matrix products.
_LAYERS = ("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Convolution", "MkldnnConvolution", "CudnnConvolution", "Einsum")


def head_parameters(model: nn.Module, images: Tensor) -> tuple[str, ...]:
    """Names of the parameters that reach the logits of ``images`` (N, C, H, W) without passing another weight layer.

    They are found in autograd's graph, so that the name and the kind of the last layer do not matter: its weight and
    bias, those of several last layers whose results are averaged, and scales applied to the logits. Raises
    :class:`ModelError` for a model without parameters before its logits, or that cannot be run on the images.
    """
    trainable = [each for each in model.parameters() if each.is_floating_point()]
    before = [each.requires_grad for each in trainable]
    try:
        for parameter in trainable:
            parameter.requires_grad_(True)
        with calling(model, images) as network, torch.enable_grad():
            nearest = _nearest(network(images[:2]).grad_fn)
    finally:
        for parameter, wanted in zip(trainable, before, strict=True):
            parameter.requires_grad_(wanted)
    names = tuple(name for name, parameter in model.named_parameters() if id(parameter) in nearest)
    if not names:
        raise ModelError("model", expected="a last layer with parameters before the logits", got="none")
    return names


def _nearest(root: Any) -> set[int]:
    """Ids of the parameters between ``root`` and the inputs of the weight layers nearest to it."""
    nodes = list(_above_layers(root))
    branches = [branch for node in nodes if _is_layer(node) for branch, _ in node.next_functions]
    # Weight and bias of a layer are parameters, or computed from some; its input comes from further layers.
    for below in (list(_above_layers(branch)) for branch in branches):
        nodes += [] if any(map(_is_layer, below)) else below
    return {id(node.variable) for node in nodes if hasattr(node, "variable")}


def _above_layers(root: Any) -> Iterator[Any]:
    """The nodes below ``root``, without those behind a weight layer; the layers are among them."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += [] if _is_layer(node) else [branch for branch, _ in node.next_functions]


def _is_layer(node: Any) -> bool:
    return str(node.name()).startswith(_LAYERS)


def replace_head(model: nn.Module, images: Tensor, *, classes: int) -> tuple[str, ...]:
    """Give ``model`` new last layers, with random weights, for ``classes``; returns the names of their parameters.

    For a network that is not built anew for a number of classes. The last layers must be linear, or convolutions.
    Raises :class:`ModelError` for others.
    """
    owners = dict.fromkeys(name.rpartition(".")[0] for name in head_parameters(model, images))
    with calling(model, images) as network, torch.no_grad():
        before = network(images[:2]).shape[1]
    layers = {path: layer for path in owners if _width(layer := model.get_submodule(path)) == before}
    if not layers:
        got = ", ".join(f"{path or 'model'} ({type(model.get_submodule(path)).__name__})" for path in owners)
        raise ModelError("model", expected=f"a last layer, linear or a convolution, with {before} outputs", got=got)
    names: list[str] = []
    for path, layer in layers.items():
        parent, _, leaf = path.rpartition(".")
        new = _resized(layer, classes)
        setattr(model.get_submodule(parent), leaf, new)
        names += [f"{path}.{name}" for name, _ in new.named_parameters()]
    return tuple(names)


def _width(layer: nn.Module) -> int | None:
    if isinstance(layer, nn.Linear):
        return layer.out_features
    return layer.out_channels if isinstance(layer, nn.Conv2d) and layer.groups == 1 else None


def _resized(layer: nn.Module, classes: int) -> nn.Module:
    """A layer like this one with random weights and another number of outputs."""
    like: dict[str, Any] = {"device": layer.weight.device, "dtype": layer.weight.dtype}
    if isinstance(layer, nn.Conv2d):
        like |= {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
        return nn.Conv2d(layer.in_channels, classes, bias=layer.bias is not None, **like).train(layer.training)
    assert isinstance(layer, nn.Linear)
    return nn.Linear(layer.in_features, classes, bias=layer.bias is not None, **like).train(layer.training)
