"""Layers in factors: the structure of a compressed network, and how to give it back to a network built afresh."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError
from torch import nn

from assay.errors import ModelError
from assay.options import Options, option_error

METADATA_KEY = "assay.factorization"
Kind = Literal["linear", "channel", "spatial", "tucker"]


class LayerFactors(Options):
    """One layer, by its path in the model, as a chain of thinner ones; none of the first has a bias.

    ``linear``   (in → r), (r → out)
    ``channel``  k×k (in → r), 1×1 (r → out): the matrix (out, in·k²) of rank r
    ``spatial``  k×1 (in → r), 1×k (r → out): the matrix (in·k, k·out) of rank r (Jaderberg et al. 2014)
    ``tucker``   1×1 (in → s), k×k (s → r), 1×1 (r → out) with ranks (r, s) (Kim et al. 2016)
    """

    layer: str
    kind: Kind
    rank: Annotated[int, Field(ge=1)]
    inner: Annotated[int, Field(ge=1)] | None = None


_LIST = TypeAdapter(tuple[LayerFactors, ...])


def chain_for(layer: nn.Module, factors: LayerFactors) -> nn.Sequential:
    """The empty chain that takes the place of ``layer``. Raises :class:`ModelError` where the kind does not fit it."""
    where, rank = factors.layer, factors.rank
    if isinstance(layer, nn.Linear) and factors.kind == "linear":
        thin = nn.Linear(layer.in_features, rank, bias=False)
        return nn.Sequential(thin, nn.Linear(rank, layer.out_features)).to(layer.weight)
    if not isinstance(layer, nn.Conv2d) or factors.kind == "linear" or layer.groups != 1:
        raise ModelError(where, expected=f"a layer that can be factorised as {factors.kind}", got=repr(layer))
    into, out = layer.in_channels, layer.out_channels
    if factors.kind == "channel":
        return nn.Sequential(_convolution(layer, into, rank), nn.Conv2d(rank, out, 1)).to(layer.weight)
    if factors.kind == "tucker":
        if factors.inner is None:
            raise ModelError(where, expected="an inner rank for tucker", got="none")
        first, middle = nn.Conv2d(into, factors.inner, 1, bias=False), _convolution(layer, factors.inner, rank)
        return nn.Sequential(first, middle, nn.Conv2d(rank, out, 1)).to(layer.weight)
    down = _convolution(layer, into, rank, axis=0)
    return nn.Sequential(down, _convolution(layer, rank, out, axis=1, bias=True)).to(layer.weight)


def install(model: nn.Module, factorization: Sequence[LayerFactors]) -> nn.Module:
    """Put empty chains in the places of the named layers of ``model``, in place; weights are loaded afterwards.

    Raises :class:`ModelError` naming a layer that the model does not have.
    """
    for factors in factorization:
        parent, name = find_layer(model, factors.layer)
        setattr(parent, name, chain_for(getattr(parent, name), factors))
    return model


def find_layer(model: nn.Module, path: str) -> tuple[nn.Module, str]:
    above, _, name = path.rpartition(".")
    try:
        parent = model.get_submodule(above)
        parent.get_submodule(name)
    except AttributeError:
        raise ModelError(path, expected="a layer of the model", got="none of that name") from None
    return parent, name


def write_structure(factorization: Sequence[LayerFactors]) -> dict[str, str]:
    """The entry for the header of a ``.safetensors`` file: structure travels with the weights it belongs to."""
    return {METADATA_KEY: _LIST.dump_json(tuple(factorization)).decode()} if factorization else {}


def read_structure(path: Path) -> tuple[LayerFactors, ...]:
    """The structure in the header of a ``.safetensors`` file (or a run folder's); empty for any other file."""
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        path = path / "model.safetensors"
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (SafetensorError, OSError):
        return ()
    if text is None:
        return ()
    try:
        return _LIST.validate_python(json.loads(text))
    except ValidationError as error:
        wrong = option_error(error, where=f"{path}: factorization")
        raise ModelError(wrong.where, expected=wrong.expected, got=wrong.got) from None
    except ValueError as error:
        raise ModelError(f"{path}: factorization", expected="JSON", got=error) from None


def _convolution(layer: nn.Conv2d, into: int, out: int, *, axis: int | None = None, bias: bool = False) -> nn.Conv2d:
    """A convolution of the geometry of ``layer``, or of its vertical (axis 0) or horizontal (axis 1) half."""
    size, stride, dilation = (_half(pair, axis, 1) for pair in (layer.kernel_size, layer.stride, layer.dilation))
    padding = layer.padding if isinstance(layer.padding, str) else _half(layer.padding, axis, 0)
    return nn.Conv2d(
        into, out, size, stride=stride, padding=padding, dilation=dilation, bias=bias, padding_mode=layer.padding_mode
    )


def _half(pair: tuple[int, ...], axis: int | None, other: int) -> tuple[int, int]:
    return (other if axis == 1 else pair[0], other if axis == 0 else pair[1])
