"""What is known of a model before it is built, and what the caller wants of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from assay.errors import ModelError, OptionError
from assay.records.preparation import Preparation

DEFAULT_CLASSES, DEFAULT_SHAPE = 10, (3, 32, 32)
NormalizationChoice = str | tuple[Sequence[float], Sequence[float]] | None


@dataclass(frozen=True, eq=False)
class ModelRequest:
    """What the caller wants: images (C, H, W), normalisation (None: the model's own), the seed of random weights.

    ``trust_code`` allows a source to run code that it brings along (see :func:`require_trust`). ``examples`` are images
    (N, C, H, W) of the data: a program that is converted is compared with the original on them.
    """

    image_shape: tuple[int, int, int] | None = None
    normalization: NormalizationChoice = None
    seed: int = 0
    trust_code: bool = False
    examples: Tensor | None = None


class Structure(NamedTuple):
    """The name and the options of a network, in ours or a library's terms, from which it is built again.

    Its weights are random then, and neither the source nor a connection is needed: a run folder keeps it.
    """

    name: str
    options: Mapping[str, object]


@dataclass(frozen=True)
class Blueprint:
    """How to make a model once its number of classes is known, and what is known before.

    ``make(classes)`` builds it. ``classes`` is the number that the source fixes, where it fixes one; otherwise the
    data, the weights or ``default_classes`` decide. ``class_names`` are those of its outputs, ``synonyms`` other names
    of the same. ``weights`` is the file that belongs to the source. ``has_weights`` is whether ``make`` gives it
    trained weights (None: unknown, as of a user's own code). ``preparation`` is how its author prepares pictures, where
    the source states it: its sizes are for whoever loads the pictures, its numbers ``make`` has put into the model.
    ``structure`` is what the same network is built from again without the source (None: only the source can). ``make``
    adds to ``remarks`` what only building it shows.
    """

    make: Callable[[int], nn.Module]
    image_shape: tuple[int, int, int]
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    synonyms: tuple[tuple[str, ...], ...] = ()
    default_classes: int = DEFAULT_CLASSES
    weights: Path | None = None
    has_weights: bool | None = None
    notes: tuple[str, ...] = ()
    preparation: Preparation | None = None
    structure: Structure | None = None
    remarks: list[str] = field(default_factory=list)


def require_trust(spec: str, reason: str, request: ModelRequest) -> None:
    """Raise :class:`ModelError` with the ``reason`` why ``spec`` can run code, unless the caller trusts it."""
    if not request.trust_code:
        raise ModelError(spec, expected="--trust-code (trust_code=True), given only for a file you trust", got=reason)


def parse_options(spec: str) -> tuple[str, dict[str, object]]:
    """``"resnet20,shortcut=B,width=2"`` to ``("resnet20", {"shortcut": "B", "width": 2})``.

    Whole and decimal numbers, ``true`` and ``false`` are read as such; the name of a folder that exists may contain
    any sign. Raises :class:`OptionError`.
    """
    source, _, place = spec.rpartition(":")
    if source and Path(place).is_dir():
        return spec, {}
    name, *parts = spec.split(",")
    options: dict[str, object] = {}
    for part in parts:
        key, equals, text = part.partition("=")
        if not equals or not key:
            raise OptionError(spec, expected="options as NAME,option=value,option=value", got=repr(part))
        options[key.strip()] = _value(text.strip())
    return name, options


def _value(text: str) -> object:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
