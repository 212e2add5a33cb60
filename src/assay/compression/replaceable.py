"""Which layers of a network may be replaced by chains, and why the others may not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from assay.errors import ModelError
from assay.lowrank.layers import can_factorize
from assay.models.calls import calling, copied
from assay.models.factorized import find_layer

# What a layer computes must be what its class is known for, or a chain of plain layers would not do the same.
_PLAIN = {nn.Linear: ("forward",), nn.Conv2d: ("forward", "_conv_forward")}


class _Noted(nn.Sequential):
    """A chain that knows whether it was called; a hook would change the path that ``nn.TransformerEncoder`` takes."""

    called = False

    def forward(self, input: Tensor) -> Tensor:
        self.called = True
        return super().forward(input)  # type: ignore[no-any-return, no-untyped-call]


def layers_with_matrices(model: nn.Module) -> dict[str, nn.Module]:
    """The linear and convolutional layers inside of ``model``, by path."""
    return {name: layer for name, layer in model.named_modules() if name and isinstance(layer, nn.Linear | _ConvNd)}


def shared_layers(model: nn.Module) -> dict[str, str]:
    """The layers that are somewhere else in the network as well, whole or by their weight, each with the reason."""
    layers = layers_with_matrices(model)
    places = Counter(layer for _, layer in model.named_modules(remove_duplicate=False))
    owners = Counter(id(weight) for module in model.modules() for weight in module._parameters.values())
    several = {name: "the network has it in more than one place" for name, layer in layers.items() if places[layer] > 1}
    weights = {name: layer._parameters.get("weight") for name, layer in layers.items()}
    tied = {
        name: "another layer shares its weight" for name, w in weights.items() if w is not None and owners[id(w)] > 1
    }
    return several | tied


def why_not(layer: nn.Module) -> str:
    """Why ``layer`` by itself is not replaced; empty where it may be."""
    kind = next((kind for kind in _PLAIN if isinstance(layer, kind)), None)
    if kind is None or any(getattr(type(layer), method) is not getattr(kind, method) for method in _PLAIN[kind]):
        return f"{type(layer).__name__} has no factors here, only Linear and Conv2d have"
    if "weight" not in layer._parameters:
        return "its weight is computed from other parameters"
    if layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks:
        return "it has hooks, which a replacement would lose"
    if isinstance(layer, nn.Conv2d) and layer.groups != 1:
        return f"it has {layer.groups} groups"
    if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
        return f"it pads by {layer.padding_mode}"
    return "" if can_factorize(layer) else "too few channels, or padding that differs by side"


def refuse_replacement(model: nn.Module, names: Sequence[str], images: Tensor) -> dict[str, str]:
    """Of the named layers those that cannot be replaced, each with the reason.

    Each layer of a copy is put into a chain of itself alone: where the network still runs and puts out the same, it
    uses the layer by calling it, and by nothing else, such as its weight.
    """
    copy = copied(model)
    with calling(model, images) as network, torch.no_grad():
        expected = network(images)

    def fault(chosen: Sequence[str]) -> str:
        places = [(*find_layer(copy, name), copy.get_submodule(name)) for name in chosen]
        chains = [_Noted(layer) for *_, layer in places]
        for (parent, name, _), chain in zip(places, chains, strict=True):
            setattr(parent, name, chain)
        try:
            with calling(copy, images) as network, torch.no_grad():
                outputs = network(images)
                called = all(chain.called for chain in chains)  # put back as well when the block ends
        except ModelError as error:
            return f"the network uses more of it than its output ({error.got})"
        finally:
            for parent, name, layer in places:
                setattr(parent, name, layer)
        if not called:
            return "the network reaches it by another way than its name"
        scale = float(expected.abs().max())
        same = torch.allclose(outputs, expected, rtol=0, atol=1e-4 * scale, equal_nan=True)
        return "" if same else "the network puts out something else once it is replaced"

    if not fault(names):
        return {}
    return {name: reason for name in names if (reason := fault([name]))}
