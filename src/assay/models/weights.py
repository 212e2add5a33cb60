"""Weights from a file, without ever running code from it, and fitted to a model by name, shape and value."""

from __future__ import annotations

import argparse
import json
import pickle
import re
import struct
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from operator import methodcaller
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from assay.errors import ModelError, one_line
from assay.models.architectures import near

StateDict = dict[str, Tensor]

# Under which keys checkpoints hold the weights; the first that is there is taken.
WRAPPERS = (
    *("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params"),
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema"),
)
# What wrappers and other libraries do to the names of tensors, undone.
RENAMES: tuple[Callable[[str], str], ...] = (
    lambda name: name.replace("_orig_mod.", ""),
    *(methodcaller("removeprefix", prefix) for prefix in ("module.", "_orig_mod.", "model.", "net.", "network.") * 2),
    lambda name: re.sub(r"^fc\.", "linear.", name).replace(".downsample.", ".shortcut."),
)
MAY_BE_MISSING = re.compile(r"num_batches_tracked$|^normalize\.(mean|std)$")
NOT_WEIGHTS = ("n_averaged",)  # the counter beside an averaged model's weights
# Under which keys, in which parts, checkpoints hold the names of the classes.
NAMES_OF_CLASSES = frozenset(
    ("classes", "class_names", "categories", "label_names", "class_to_idx", "idx_to_class", "id2label")
)
BESIDE = ("meta", "hyper_parameters")
# Types of data that checkpoints contain beside weights: building one calls no code of the file's.
INERT: list[Any] = [
    argparse.Namespace,
    np.dtype,
    np.ndarray,
    *(type(np.dtype(kind)) for kind in ("bool", "uint8", "int32", "int64", "float32", "float64")),
    *(  # numpy before version 2 called its core by another name
        (rebuild, f"numpy.{core}.multiarray.{name}")
        for name, rebuild in (("scalar", np.float64(0).__reduce__()[0]), ("_reconstruct", np.zeros(0).__reduce__()[0]))
        for core in ("core", "_core")
    ),
]


class NamedWeights(NamedTuple):
    """Tensors by name, and the names of the classes where the file tells them."""

    tensors: StateDict
    class_names: tuple[str, ...] | None = None


def read_weights(path: Path) -> StateDict:
    """The tensors of a ``.safetensors`` file, of a PyTorch checkpoint, or of a run folder, by name, on the CPU.

    A checkpoint's wrapper (``state_dict``, ``model``, ``ema``, …) is removed. Raises :class:`ModelError` for a file
    that is missing, damaged, holds no tensors, or could only be loaded by running code from it.
    """
    return read_named_weights(path).tensors


def read_named_weights(path: Path) -> NamedWeights:
    """As :func:`read_weights`, with the names of classes that lie beside the tensors, as under ``class_to_idx``."""
    if path.is_dir() and (path / "model.safetensors").is_file():
        path = path / "model.safetensors"
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        if path.parent.is_dir() and not path.is_dir():
            siblings = [sibling.name for sibling in path.parent.iterdir() if sibling.is_file()]
            got += near(path.name, siblings).removeprefix(repr(path.name))
        raise ModelError(str(path), expected="a file of weights", got=got)
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ModelError(str(path), expected="a file that can be read", got=error.strerror or error) from None
    has_header = head[8:] == b"{" and struct.unpack("<Q", head[:8])[0] < path.stat().st_size
    if path.suffix == ".safetensors" or has_header:
        return _read_safetensors(path)
    content = _read_checkpoint(path, head)
    return NamedWeights(_unwrap(content, path), find_class_names(content))


def _read_safetensors(path: Path) -> NamedWeights:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        state: StateDict = load_file(path)
        with safe_open(path, framework="pt") as file:
            texts: Mapping[str, str] = file.metadata() or {}
    except SafetensorError as error:
        raise ModelError(str(path), expected="a safetensors file", got=one_line(error)) from None
    if not state:
        raise ModelError(str(path), expected="a safetensors file with tensors in it", got="none")
    metadata = {}
    for key in NAMES_OF_CLASSES & texts.keys():
        with suppress(ValueError):
            metadata[key] = json.loads(texts[key])
    return NamedWeights(state, find_class_names(metadata))


def find_class_names(content: object) -> tuple[str, ...] | None:
    """The names of classes that a checkpoint holds beside its weights: a list, or a mapping from or to numbers."""
    places = [content, *(content.get(key) for key in BESIDE)] if isinstance(content, Mapping) else []
    entries = [entry for place in places if isinstance(place, Mapping) for entry in place.items()]
    candidates = (_names_of(value) for key, value in entries if str(key).lower() in NAMES_OF_CLASSES)
    return next(filter(None, candidates), None)


def _names_of(value: object) -> tuple[str, ...] | None:
    if isinstance(value, Mapping):
        pairs = dict((number, name) if isinstance(number, int) else (name, number) for name, number in value.items())
        value = [pairs.get(place, pairs.get(str(place))) for place in range(len(pairs))]
    if not isinstance(value, (list, tuple)) or len(value) < 2 or not all(isinstance(name, str) for name in value):
        return None
    return tuple(value)


def _read_checkpoint(path: Path, head: bytes) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(INERT):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # bytes of unknown origin can break a reader anywhere
        expected, got = _explain(error, head)
        raise ModelError(str(path), expected=expected, got=got) from None


def _explain(error: Exception, head: bytes) -> tuple[str, str]:
    """What was expected of a checkpoint that did not load, and what it is."""
    message = str(error)
    needed = re.search(r"GLOBAL (\S+)", message)
    if needed:
        expected = "tensors that load without running code (save model.state_dict(), not the model)"
        return expected, f"a pickle that needs {needed[1]}, which is refused"
    if "TorchScript" in message:
        return "a state dict", "a TorchScript program, which would run code from the file"
    if isinstance(error, pickle.UnpicklingError) and head[:1] == b"\x80":
        expected = "a checkpoint written by torch.save, or a .safetensors file"
        return expected, "a pickle of another kind, which would need to run code from the file"
    expected = "a PyTorch checkpoint or a .safetensors file"
    if head[:2] == b"PK":
        return expected, f"a damaged or foreign archive ({one_line(message.partition('. ')[0])})"
    return expected, "a file of another kind" if head else "an empty file"


def _unwrap(content: object, path: Path) -> StateDict:
    """Descend through the wrappers of a checkpoint to its mapping of names to tensors."""
    trail = ""
    while isinstance(content, Mapping):
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content, trail = content[inner], f"{trail}[{inner!r}]"
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
        if tensors:
            return tensors
        keys = ", ".join(repr(key) for key in list(content)[:6])
        got = f"a dict with the keys {keys}" if content else "an empty dict"
    else:
        got = f"a {type(content).__name__}"
    raise ModelError(f"{path}{trail}", expected="a state dict, names to tensors", got=got)


def load_weights(model: nn.Module, state: StateDict, *, where: str) -> None:
    """Copy ``state`` into ``model``, whose every tensor must be there in its shape and with finite values.

    Prefixes that wrappers leave in names (``module.``, ``_orig_mod.``, ``model.``) are removed where the model does
    not have them, and torchvision's names of the last layer and of projections are understood by our ResNets.
    ``num_batches_tracked`` and the normalisation layer's own numbers may be missing; they stay as built. Raises
    :class:`ModelError`; the model is then as it was.
    """
    target = model.state_dict()
    state = _fit_names({name: value for name, value in state.items() if name not in NOT_WEIGHTS}, target)
    wrong = wrong_shapes(state, target)
    if wrong:
        name, (expected, got) = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more of {len(target)} tensors)" if len(wrong) > 1 else ""
        raise ModelError(f"{where}: {name}", expected=str(expected), got=f"{got}{more}")
    there = {value.data_ptr() for name, value in target.items() if name in state and isinstance(value, Tensor)}
    missing = [  # a tied tensor may be there once only
        name
        for name, value in target.items()
        if name not in state and not MAY_BE_MISSING.search(name) and not (value.numel() and value.data_ptr() in there)
    ]
    unexpected = [name for name in state if name not in target]
    if missing or unexpected:
        kinds = {"missing": missing, "unexpected": unexpected}
        faults = [f"{len(names)} {kind} ({_few(names)})" for kind, names in kinds.items() if names]
        raise ModelError(where, expected=f"the {len(target)} tensors of the model", got=" and ".join(faults))
    parameters = {name for name, _ in model.named_parameters()}
    for name, value in state.items():
        _check_kind(f"{where}: {name}", value, target[name])
        _check_finite(f"{where}: {name}", value, mask_allowed=name not in parameters)
    model.load_state_dict(state, strict=False)


def wrong_shapes(state: StateDict, target: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Of the names in both, those whose shapes differ: name to (expected, got)."""
    return {
        name: (tuple(value.shape), tuple(state[name].shape))
        for name, value in target.items()
        if name in state and isinstance(value, Tensor) and value.shape != state[name].shape
    }


class ImpliedClasses(NamedTuple):
    """How many classes the weights were made for, and the shapes that show it."""

    classes: int
    evidence: str


def implied_classes(model: nn.Module, state: StateDict, *, classes: int) -> ImpliedClasses | None:
    """The number of classes the weights were made for, where it differs from ``classes`` and explains every misfit.

    That is: in each tensor whose shape is wrong, one size is ``classes`` in the model and the same other number here.
    """
    target = model.state_dict()
    wrong = wrong_shapes(_fit_names(state, target), target)
    implied: set[int] = set()
    for expected, got in wrong.values():
        differing = {(e, g) for e, g in zip(expected, got, strict=False) if e != g}
        if len(expected) != len(got) or len(differing) != 1 or next(iter(differing))[0] != classes:
            return None
        implied.add(next(iter(differing))[1])
    if len(implied) != 1:
        return None
    name, (expected, got) = next(iter(wrong.items()))
    return ImpliedClasses(implied.pop(), f"{name}: expected {expected}, got {got}")


def check_finite(model: nn.Module, *, where: str) -> None:
    """Raise :class:`ModelError` naming the first tensor of ``model`` with a NaN or an infinity in it.

    Buffers may hold −∞, as attention masks do.
    """
    for named, mask_allowed in ((model.named_parameters(), False), (model.named_buffers(), True)):
        for name, values in named:
            _check_finite(f"{where}: {name}", values, mask_allowed=mask_allowed)


def _check_kind(where: str, values: Tensor, target: Tensor) -> None:
    """Whole numbers do not become weights by a change of dtype, nor complex ones, nor tensors without dense values."""
    got = str(values.dtype)
    if values.layout != torch.strided or values.is_meta:
        got = "no values" if values.is_meta else f"a tensor in the layout {values.layout}"
    elif values.is_complex() == target.is_complex() and values.is_floating_point() >= target.is_floating_point():
        return
    raise ModelError(where, expected=f"a dense tensor of {target.dtype}", got=got)


def _check_finite(where: str, values: Tensor, *, mask_allowed: bool) -> None:
    if not (values.is_floating_point() or values.is_complex()) or bool(values.isfinite().all()):
        return
    nan = int(values.isnan().sum())
    infinite = int((values.isposinf() if mask_allowed else values.isinf()).sum())
    if nan or infinite:
        got = f"{nan} NaN and {infinite} infinite of {values.numel()}"
        raise ModelError(where, expected="finite numbers", got=got)


def _fit_names(state: StateDict, target: Mapping[str, Any]) -> StateDict:
    """Rename the tensors in the one way, of those that wrappers and other libraries are known for, that fits best."""
    candidates = [state]
    for rename in RENAMES:
        renamed = (({rename(name): state[name] for name in state}, state) for state in tuple(candidates))
        # A renaming that gives two tensors the same name would drop one of them.
        candidates += [new for new, old in renamed if new.keys() != old.keys() and len(new) == len(old)]
    return max(candidates, key=lambda candidate: sum(name in target for name in candidate))


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
