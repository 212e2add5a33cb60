"""From the name of a model to the model, over a table of the ways to name one: :func:`load_model`, :func:`open_model`.

To add a source, write a module with a function ``(spec, request) -> Blueprint`` in this folder, a row in
:data:`SPELLINGS`, and a test.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.arguments import checked
from assay.errors import ModelError, OptionError, one_line
from assay.models.architectures import ARCHITECTURES, near
from assay.models.calls import refusing
from assay.models.classes import ClassMatch, MatchBy, MatchedClasses, Names, ScoreOver, name_all
from assay.models.classes import match_classes as match_names
from assay.models.factorized import install, read_structure
from assay.models.programs.classifier import ProgramClassifier
from assay.models.sources.blueprint import Blueprint, ModelRequest, NormalizationChoice, require_trust
from assay.models.sources.program_files import is_exported, is_torchscript
from assay.models.sources.run_folder import CONFIG, WEIGHTS, is_run_folder, read_config
from assay.models.weights import (
    NamedWeights,
    StateDict,
    check_finite,
    implied_classes,
    load_weights,
    read_named_weights,
)
from assay.models.wrappers import ChannelsReversed, Normalized, choose_normalization
from assay.records.preparation import Preparation
from assay.runtime import preserved

ONE_FOR_TWO = (1, 2)  # outputs and classes: a single logit tells two classes apart
WEIGHT_SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".th", ".ckpt", ".bin", ".tar"})


@dataclass(frozen=True)
class Spelling:
    """How a model is named, for which specs that applies, and ``module:function``: ``(spec, request) -> Blueprint``.

    ``runs_code`` is the reason why opening such a source can run code, empty where it cannot. It is refused without
    ``trust_code``, except where ``names_code``: there the spec itself is the name of the code to run. ``prepares`` is
    whether such a source may state how pictures are prepared.
    """

    written: str
    applies: Callable[[str], bool]
    function: str
    runs_code: str = ""
    names_code: bool = False
    prepares: bool = True


# In the order in which they are tried.
SPELLINGS = (
    Spelling("a run folder", lambda spec: bool(spec) and is_run_folder(Path(spec)), "run_folder:plan_run"),
    Spelling(
        f"one of {', '.join(ARCHITECTURES)}", lambda spec: spec.split(",")[0] in ARCHITECTURES, "named:plan_named"
    ),
    Spelling("torchvision:NAME", lambda spec: spec.startswith("torchvision:"), "named:plan_named"),
    Spelling("timm:NAME", lambda spec: spec.startswith("timm:"), "named:plan_named"),
    Spelling("transformers:FOLDER or ID", lambda spec: spec.startswith("transformers:"), "named:plan_named"),
    Spelling("FILE.onnx", lambda spec: spec.endswith(".onnx"), "onnx_file:plan_onnx", prepares=False),
    Spelling("FILE.pt2", is_exported, "exported_file:plan_exported", prepares=False),
    Spelling(
        "a TorchScript file",
        is_torchscript,
        "torchscript_file:plan_torchscript",
        runs_code="a TorchScript program, which may call any operator of torch, also those that read and write files",
        prepares=False,
    ),
    Spelling(
        "FILE.py:FACTORY or PACKAGE.MODULE:FACTORY",
        lambda spec: ":" in spec and not Path(spec).exists(),
        "factories:plan_factory",
        runs_code="the Python code of that name is imported and called",
        names_code=True,
        prepares=False,
    ),
)


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model and what is known of it.

    Attributes:
        model: images (N, C, H, W) in [0, 1] to logits (N, classes).
        name: the spec it was opened by.
        classes: the number of logits.
        image_shape: (C, H, W).
        class_names: of the logits, where they are known: from a run folder, a file of weights, published weights.
        notes: sentences that a user should see, such as that the weights are random.
        preparation: how its author prepares pictures, where that is known; its numbers are part of the model.
        columns: for each class of the data its logit among all of them, where predictions are scored over all
            (``score_over="all"``): ``dataset.renumbered(columns, classes=class_names)`` has the labels of these logits.
        titles: words for the classes of the data, where those are ids of synsets that the model names.
        random: which weights were drawn at random, and neither trained nor loaded; unknown of a user's own code.
    """

    model: nn.Module
    name: str
    classes: int
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    preparation: Preparation | None = None
    columns: tuple[int, ...] | None = None
    titles: tuple[str, ...] | None = None
    random: Literal["all weights", "the last layer", "none", "unknown"] = "unknown"


@checked
def load_model(
    spec: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    classes: int | Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalization: NormalizationChoice = None,
    prepare: str | Preparation | None = None,
    match_classes: MatchBy = "name",
    seed: int = 0,
    trust_code: bool = False,
    examples: Tensor | None = None,
) -> nn.Module:
    """Build the model that a name stands for, with its weights; no code is run from a file of weights.

    Args:
        spec: What to load.

            ===================================  ================================================================
            a run folder                         its architecture and weights
            ``resnet20``, ``resnet20,width=2``   an architecture of ours, with options; random weights
            ``torchvision:resnet18``             torchvision's; ``,weights=DEFAULT`` for its published weights
            ``timm:NAME``                        timm's; ``,pretrained=true`` for its published weights
            ``transformers:FOLDER``              an image classifier of Hugging Face, or OWNER/NAME of its hub
            ``path/to/model.onnx``               converted to torch if that gives the same, else in onnxruntime
            ``path/to/model.pt2``                a program of ``torch.export.save``; nothing in it is unpickled
            a TorchScript file                   told by what is in it; with ``trust_code`` only
            ``path/to/file.py:factory``          what a function, class or module object in a file makes
            ``package.module:factory``           the same of an importable module
            ===================================  ================================================================
        weights: a ``.safetensors`` file, a PyTorch checkpoint or a run folder, loaded into the model.
        classes: the number of logits, as the data has; default: what the run folder or the weights imply, else 1000
            for networks of libraries and 10 for others. The names of the data's classes, in the order of its labels,
            are matched to those of the model where it has names too: the logits are then those of these classes.
        image_shape: (C, H, W) of the images, as the data has; default: the run folder's, else (3, 224, 224) for
            networks of libraries and (3, 32, 32) for others.
        normalization: in place of the model's own (before a user's own model): ``"imagenet"``, ``"cifar10"``,
            ``"none"``, numbers ``"m1,m2,m3/s1,s2,s3"``, or a pair (mean, std) in pixel units.
        prepare: how pictures are prepared, in place of what the source states: a :class:`Preparation` or a text such as
            ``"resize=256,crop=224,mean=0.5,std=0.5,bgr"``. Its numbers become part of the model; its sizes are for
            :func:`load_dataset`.
        match_classes: ``"position"`` where the names differ, but mean the same classes in the same order.
        seed: the random weights follow from it.
        trust_code: open also what looks like data and can run code, such as a TorchScript program; what you name as
            code yourself (the last two rows above) needs no such consent.
        examples: images (N, C, H, W) of the data in [0, 1]: a program that is converted is compared with the original
            on them; default: on random ones.

    Returns:
        The model: images (N, C, H, W) in [0, 1] to logits (N, classes). It is in evaluation mode, but for a user's own,
        which comes as the factory made it.

    Raises:
        ModelError: an unknown name, a model that does not fit the data or its classes, weights that do not fit the
            model.
        OptionError: a wrong option or normalisation.
        DependencyError: the library of the model is not installed.

    Example:
        >>> import assay, torch
        >>> model = assay.load_model("resnet20", classes=10, image_shape=(3, 32, 32))
        >>> model(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    return open_model(
        spec,
        weights=weights,
        classes=classes,
        image_shape=image_shape,
        normalization=normalization,
        prepare=prepare,
        match_classes=match_classes,
        seed=seed,
        trust_code=trust_code,
        examples=examples,
    ).model


@checked
def open_model(
    spec: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    classes: int | Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    normalization: NormalizationChoice = None,
    prepare: str | Preparation | None = None,
    match_classes: MatchBy = "name",
    class_names: Sequence[Sequence[str]] | None = None,
    score_over: ScoreOver = "subset",
    seed: int = 0,
    trust_code: bool = False,
    examples: Tensor | None = None,
) -> LoadedModel:
    """As :func:`load_model`, with what is known of the model, and notes for the user.

    ``class_names`` are those of all its outputs, as :func:`~assay.models.classes.read_class_names` reads them from a
    file, in place of what the source says. With ``score_over="all"`` a model with more classes than the data keeps all
    its logits, and the result tells their ``columns``.
    """
    spec = os.fspath(spec)
    names = None if classes is None or isinstance(classes, int) else tuple(classes)
    wanted = classes if classes is None or isinstance(classes, int) else len(classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stated = parse_preparation(prepare, normalization=normalization)
        normalization = normalization if stated is None or normalization is not None else stated.normalization
        blueprint = find_blueprint(spec, ModelRequest(image_shape, normalization, seed, trust_code, examples))
        file = blueprint.weights if weights is None else Path(weights)
        read = None if file is None else _read(file)
        own, *synonyms = _names_of(spec, blueprint, read, class_names)
        known, channels = blueprint.classes or (None if own is None else len(own)), blueprint.image_shape[0]
        matched = None
        if own is not None and names is not None:
            matched = match_names((own, *filter(None, synonyms)), names, where=spec, by=match_classes)
        elif wanted is not None and known not in {None, wanted} and (known, wanted) != ONE_FOR_TWO:
            raise ModelError(spec, expected=f"{wanted} classes, as the data has", got=f"a model of {known}")
        if image_shape is not None and channels != image_shape[0]:
            raise ModelError(
                spec, expected=f"{image_shape[0]} channels, as the data has", got=f"a model for {channels}"
            )
        count = known or wanted or blueprint.default_classes
        notes = blueprint.notes
        if file is not None and read is not None:
            if normalization is not None:  # in place of the one that was saved
                read = read._replace(tensors=_without_normalization(read.tensors))
            fixed = wanted is not None or known is not None
            model, count = _build_with_weights(blueprint, file, read.tensors, classes=count, fixed=fixed)
        else:
            model = _make(blueprint, count)
            if blueprint.has_weights is False:
                notes += (f"{spec} has random weights: nothing was trained and nothing loaded",)
        notes += tuple(dict.fromkeys(blueprint.remarks))
    check_finite(model, where=spec)
    columns = titles = None
    if own is not None and names is not None and matched is not None:
        titles = matched.titles
        if score_over == "all" and len(names) < count:
            columns, own = matched.columns, name_all(own, titles or names, matched.columns)
            few = f"the data have {len(names)} of the {count} classes of {spec}, matched by name"
            matched = ClassMatch(columns, f"{few}: predictions are among all of them, and others than these are wrong")
        elif matched.columns != tuple(range(count)):
            model, own, count = MatchedClasses(model, matched.columns, class_names=own), names, len(matched.columns)
        notes += () if matched.note is None else (matched.note,)
    preparation = _effective(blueprint.preparation, stated, normalization, channels=channels)
    if preparation is not None and preparation.channels != getattr(blueprint.preparation, "channels", "rgb"):
        if channels != 3:
            raise ModelError(spec, expected="three channels to put in the order BGR", got=f"a model for {channels}")
        model = ChannelsReversed(model)
    return LoadedModel(
        model,
        spec,
        count,
        blueprint.image_shape,
        own,
        notes,
        preparation=preparation,
        columns=columns,
        titles=titles,
        random=_drawn_at_random(blueprint, loaded=file is not None, notes=notes),
    )


def _drawn_at_random(
    blueprint: Blueprint, *, loaded: bool, notes: Sequence[str]
) -> Literal["all weights", "the last layer", "none", "unknown"]:
    """Which weights are random; that a last layer is, its source notes when it makes the network."""
    if any("random last layer" in note for note in notes):
        return "the last layer"
    if loaded or blueprint.has_weights:
        return "none"
    return "unknown" if blueprint.has_weights is None else "all weights"


def parse_preparation(
    prepare: str | Preparation | None, *, normalization: NormalizationChoice = None, where: str = "prepare"
) -> Preparation | None:
    """``prepare`` as a record. Raises :class:`OptionError` where it states a normalisation and there is another one."""
    stated = Preparation.parse(prepare, where=where) if isinstance(prepare, str) else prepare
    if stated is not None and normalization is not None and stated.normalization is not None:
        raise OptionError(where, expected="mean, std and scale in it, or a normalization beside it", got="both")
    return stated


def find_preparation(spec: str, *, prepare: Preparation | None = None, trust_code: bool = False) -> Preparation | None:
    """How pictures for a model are prepared: as ``prepare`` states, else as its source does; None where nobody knows.

    No model is built, and no code of the user's is run: what such code makes states nothing before.
    """
    spelling = next((each for each in SPELLINGS if each.applies(spec)), None)
    if spelling is not None and not spelling.prepares:
        return prepare
    with torch.random.fork_rng(devices=[]):
        own = find_blueprint(spec, ModelRequest(trust_code=trust_code)).preparation
    return own if prepare is None else prepare.over(own)


def _effective(
    own: Preparation | None, stated: Preparation | None, normalization: NormalizationChoice, *, channels: int
) -> Preparation | None:
    """The preparation of a model with another one, or another normalisation, in place of its own."""
    preparation = own if stated is None else stated.over(own)
    if preparation is None or normalization is None or (stated is not None and stated.mean is not None):
        return preparation
    mean, std = choose_normalization(normalization, channels=channels)
    return preparation.model_copy(update={"mean": mean, "std": std, "scale": 1.0})


def _names_of(
    spec: str, blueprint: Blueprint, read: NamedWeights | None, given: Sequence[Sequence[str]] | None
) -> tuple[Names | None, ...]:
    """The names of the outputs, None where nobody knows them, and other names of the same.

    Those ``given`` by the user go before those in the file of weights, and these before those of the source.
    """
    count = blueprint.classes or (None if blueprint.class_names is None else len(blueprint.class_names))
    if given is not None:
        if count not in {None, len(given[0])} and (count, len(given[0])) != ONE_FOR_TWO:
            raise ModelError(spec, expected=f"names of its {count} classes", got=f"{len(given[0])} names")
        return tuple(tuple(each) for each in given)
    if read is not None and read.class_names and len(read.class_names) == (blueprint.classes or len(read.class_names)):
        return (read.class_names,)
    return (blueprint.class_names, *blueprint.synonyms)


def find_blueprint(spec: str, request: ModelRequest) -> Blueprint:
    """The blueprint by the first spelling that applies; :class:`ModelError` where none does."""
    spelling = next((each for each in SPELLINGS if each.applies(spec)), None)
    if spelling is None:
        raise _unknown(spec)
    if spelling.runs_code and not spelling.names_code:
        require_trust(spec, spelling.runs_code, request)
    module, _, function = spelling.function.partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)(spec, request)  # type: ignore[no-any-return]


def _read(file: Path) -> NamedWeights:
    """The weights of ``file``, with the names of the classes that it, or the run folder it lies in, tells."""
    read = read_named_weights(file)
    if read.class_names is None and (file.is_dir() or file.name == WEIGHTS):
        with suppress(ModelError):
            return read._replace(class_names=read_config(file if file.is_dir() else file.parent).classes)
    return read


def _without_normalization(state: StateDict) -> StateDict:
    return {name: value for name, value in state.items() if not re.search(r"(^|\.)normalize\.(mean|std)$", name)}


def _build_with_weights(
    blueprint: Blueprint, file: Path, state: StateDict, *, classes: int, fixed: bool
) -> tuple[nn.Module, int]:
    """The model with the weights of ``file``, and its classes: those of the weights, unless they are ``fixed``."""
    structure = read_structure(file)  # of a compressed network, whose weights are factors
    model = install(_make(blueprint, classes), structure)
    implied = implied_classes(_receiver(model, state), state, classes=classes)
    if implied is not None:
        if fixed and (implied.classes, classes) != ONE_FOR_TWO:
            got = f"weights for {implied.classes} ({implied.evidence})"
            raise ModelError(str(file), expected=f"weights for {classes} classes", got=got)
        classes = implied.classes
        model = install(_make(blueprint, classes), structure)
    load_weights(_receiver(model, state), state, where=str(file))
    return model, classes


def _receiver(model: nn.Module, state: StateDict) -> nn.Module:
    """Where a state dict belongs: to the network behind the normalisation, unless it contains the normalisation too."""
    if isinstance(model, Normalized) and not any(name.endswith("normalize.mean") for name in state):
        return _receiver(model.model, state)
    if isinstance(model, ProgramClassifier) and not any(name.startswith("program.") for name in state):
        return model.program
    return model


def _make(blueprint: Blueprint, classes: int) -> nn.Module:
    """The model with initial weights; lazy modules get their shapes by one pass of two black images."""
    try:
        model = blueprint.make(classes)
    except (RuntimeError, MemoryError) as error:
        raise ModelError("model", expected="a model that can be built", got=one_line(error)) from error
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        shape = (2, *blueprint.image_shape)
        with preserved(model, training=False), torch.no_grad(), refusing(model, shape):
            model(torch.zeros(shape))
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
    return ModelError("model", expected=", ".join(each.written for each in SPELLINGS), got=near(spec, ARCHITECTURES))
