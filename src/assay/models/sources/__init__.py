"""From the name of a model to the model: one place that knows every spelling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from assay.errors import ModelError, OptionError
from assay.models.architectures import ARCHITECTURES, build, near
from assay.models.factorized import install, read_structure
from assay.models.sources.factories import import_factory
from assay.models.sources.libraries import LIBRARIES, LIBRARY_CLASSES, Wanted
from assay.models.sources.run_folder import CONFIG, WEIGHTS, is_run_folder, read_config
from assay.models.weights import StateDict, check_finite, implied_classes, load_weights, read_weights
from assay.models.wrappers import Normalize, Normalized, choose_normalization
from assay.runtime import preserved

DEFAULT_CLASSES = 10
DEFAULT_SHAPE = (3, 32, 32)
PUBLISHED = frozenset({"weights", "pretrained"})  # options that fetch; a run folder brings its own weights
WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".tar"})


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and what its source said about it.

    ``class_names`` are known of a run folder only. ``notes`` are sentences that a user should see, such as that the
    weights are random.
    """

    model: nn.Module
    name: str
    classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Plan:
    """How to make a model once its number of classes is known, and what is known before."""

    make: Callable[[int], nn.Module]
    image_shape: tuple[int, int, int]
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    default_classes: int = DEFAULT_CLASSES
    weights: Path | None = None
    random_note: str | None = None
    notes: tuple[str, ...] = ()


def load_model(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalization: Wanted = None,
    seed: int = 0,
) -> nn.Module:
    """The model that ``spec`` names: images (N, C, H, W) in [0, 1] to logits (N, classes). See :func:`open_model`."""
    return open_model(
        spec, weights=weights, classes=classes, image_shape=image_shape, normalization=normalization, seed=seed
    ).model


def open_model(
    spec: str | Path,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalization: Wanted = None,
    seed: int = 0,
) -> LoadedModel:
    """Find, build and fill the model that ``spec`` names.

    ==================================  ==================================================================
    a run folder                        its architecture and weights
    ``resnet20``, ``resnet20,width=2``  an architecture of ours (see ``architectures.names()``), with options
    ``torchvision:resnet18``            torchvision's; ``,weights=DEFAULT`` asks for its published weights
    ``timm:NAME``                       timm's; ``,pretrained=true`` asks for its published weights
    ``path/to/file.py:factory``         what a function (or class, or module object) of a file makes
    ``package.module:factory``          the same of an importable module
    ==================================  ==================================================================

    ``weights`` are loaded from a file without running code from it. ``classes`` and ``image_shape`` are those of the
    data the model must fit; left out, a run folder and weights speak for themselves, the networks of libraries get
    ImageNet's 1000 and (3, 224, 224), and anything else 10 and (3, 32, 32). ``normalization`` replaces the model's own
    (for a user's factory: comes before it). Random weights follow from ``seed``. All models but a user's own come in
    evaluation mode; those come as they were made.

    Raises :class:`ModelError`, :class:`OptionError` or :class:`DependencyError`, each one line.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        source = None if weights is None else Path(weights)
        loaded = _open(str(spec), source, classes, image_shape, normalization, seed)
    check_finite(loaded.model, where=str(spec))
    return loaded


def _open(
    spec: str,
    weights: Path | None,
    classes: int | None,
    image_shape: tuple[int, int, int] | None,
    normalization: Wanted,
    seed: int,
) -> LoadedModel:
    plan = _plan(spec, image_shape=image_shape, normalization=normalization, seed=seed)
    if classes is not None and plan.classes not in {None, classes}:
        raise ModelError(spec, expected=f"{classes} classes, as the data has", got=f"a model of {plan.classes}")
    if image_shape is not None and plan.image_shape[0] != image_shape[0]:
        got = f"a model for {plan.image_shape[0]}"
        raise ModelError(spec, expected=f"{image_shape[0]} channels, as the data has", got=got)
    source = weights if weights is not None else plan.weights
    count = classes or plan.classes or plan.default_classes
    notes = plan.notes
    structure = () if source is None else read_structure(source)  # of a compressed network, whose weights are factors
    model = install(_materialize(plan.make(count), plan.image_shape), structure)
    if source is not None:
        state = read_weights(source)
        implied = implied_classes(_receiver(model, state), state, classes=count)
        if implied is not None and (classes is not None or plan.classes is not None):
            got = f"weights for {implied.classes} ({implied.evidence})"
            raise ModelError(str(source), expected=f"weights for {count} classes", got=got)
        if implied is not None:
            count = implied.classes
            model = install(_materialize(plan.make(count), plan.image_shape), structure)
        load_weights(_receiver(model, state), state, where=str(source))
    elif plan.random_note is not None:
        notes = (*notes, plan.random_note)
    return LoadedModel(model, spec, count, plan.image_shape, class_names=plan.class_names, notes=notes)


def _plan(spec: str, *, image_shape: tuple[int, int, int] | None, normalization: Wanted, seed: int) -> _Plan:
    """Decide which spelling ``spec`` is."""
    if spec and is_run_folder(Path(spec)):
        return _plan_run(Path(spec), normalization=normalization, seed=seed)
    name = spec.partition(",")[0]
    library, colon, _ = name.partition(":")
    if name in ARCHITECTURES or (colon and library in LIBRARIES):
        return _plan_named(spec, {}, image_shape=image_shape, normalization=normalization, seed=seed)
    if ":" in spec and not Path(spec).exists():
        make, shape = import_factory(spec), image_shape or DEFAULT_SHAPE
        return _Plan(lambda classes: _behind(normalization, shape[0], make(classes)), shape)
    raise _unknown(spec)


def _plan_named(
    spec: str,
    options: Mapping[str, object],
    *,
    image_shape: tuple[int, int, int] | None,
    normalization: Wanted,
    seed: int,
) -> _Plan:
    """An architecture of ours, or a library's."""
    name, spelled = parse_options(spec)
    options = {**spelled, **options}
    note = f"{spec} has random weights: nothing was trained and nothing loaded"
    library, _, inner = name.partition(":")
    if library in LIBRARIES:
        found = LIBRARIES[library](inner, image_shape=image_shape, normalization=normalization, options=options)
        return _Plan(
            found.make,
            found.image_shape,
            classes=found.published_classes,
            default_classes=LIBRARY_CLASSES,
            random_note=None if found.published else note,
        )
    shape = image_shape or DEFAULT_SHAPE

    def make(classes: int) -> nn.Module:
        return build(
            name, classes=classes, image_shape=shape, normalization=normalization, options=options, seed=seed
        ).eval()

    return _Plan(make, shape, random_note=note)


def _plan_run(folder: Path, *, normalization: Wanted, seed: int) -> _Plan:
    config = read_config(folder)
    name = config.name.partition(",")[0]
    if name not in ARCHITECTURES and name.partition(":")[0] not in LIBRARIES:
        expected = "an architecture of ours, torchvision:NAME or timm:NAME (a run folder names no code to run)"
        got = f"{config.name!r}; name the code yourself, with --weights {folder / WEIGHTS}"
        raise ModelError(f"{folder / CONFIG}: model.name", expected=expected, got=got)
    plan = _plan_named(
        config.name,
        {key: value for key, value in config.options.items() if key not in PUBLISHED},
        image_shape=config.image_shape,
        normalization=config.normalization if normalization is None else normalization,
        seed=seed,
    )
    return replace(
        plan,
        classes=len(config.classes),
        class_names=config.classes,
        weights=folder / WEIGHTS,
        notes=(f"{folder} is a run folder here, and taken before the architecture of that name",)
        if str(folder) in ARCHITECTURES
        else (),
    )


def parse_options(spec: str) -> tuple[str, dict[str, object]]:
    """``"resnet20,shortcut=B,width=2"`` to ``("resnet20", {"shortcut": "B", "width": 2})``.

    Whole and decimal numbers, ``true`` and ``false`` are read as such. Raises :class:`OptionError`.
    """
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
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _behind(normalization: Wanted, channels: int, model: nn.Module) -> nn.Module:
    """A user's model as it is; where the caller asks for a normalisation, behind that."""
    if normalization is None:
        return model
    wrapped = Normalized(Normalize(choose_normalization(normalization, channels=channels)), model)
    wrapped.training = model.training
    wrapped.normalize.train(model.training)
    return wrapped


def _receiver(model: nn.Module, state: StateDict) -> nn.Module:
    """Where a state dict belongs: to the network behind the normalisation, unless it brings the normalisation too."""
    if isinstance(model, Normalized) and not any(name.endswith("normalize.mean") for name in state):
        return model.model
    return model


def _materialize(model: nn.Module, image_shape: tuple[int, int, int]) -> nn.Module:
    """Give lazy modules their shapes by one pass of two black images; any other model is left alone."""
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        with preserved(model, training=False), torch.no_grad():
            try:
                model(torch.zeros(2, *image_shape))
            except (RuntimeError, ValueError, TypeError) as error:
                expected = f"a model that takes images of shape (N, {', '.join(map(str, image_shape))})"
                raise ModelError("model(images)", expected=expected, got=" ".join(str(error).split())[:200]) from error
    return model


def _unknown(spec: str) -> ModelError:
    path = Path(spec)
    if path.suffix in WEIGHT_SUFFIXES:
        expected = "a model; a file of weights goes with an architecture (resnet20 --weights FILE)"
        return ModelError(spec, expected=expected, got="a file of weights" if path.exists() else "no such file")
    if path.suffix == ".py":
        return ModelError(spec, expected=f"the name of what makes the model, {spec}:FACTORY", got="no name")
    if spec and path.is_dir():
        return ModelError(spec, expected=f"a run folder, with a {CONFIG} in it", got="a folder without one")
    expected = (
        f"a run folder, one of {', '.join(ARCHITECTURES)}, torchvision:NAME, timm:NAME, "
        "FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"
    )
    return ModelError("model", expected=expected, got=near(spec, ARCHITECTURES))
