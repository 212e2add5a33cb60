"""From any object that classifies images to a model: :func:`as_model`, which every public function calls for you."""

from __future__ import annotations

import inspect
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from assay.arguments import checked_except, describe, take_for
from assay.errors import ModelError, OptionError
from assay.models.classes import MatchedClasses, Names, match_classes, read_class_names
from assay.models.sources import LoadedModel, open_model
from assay.models.sources.library import imagenet_classes, imagenet_names
from assay.models.wrappers import ChannelsReversed, Normalize, Normalized, choose_normalization
from assay.records.preparation import Preparation

EXPECTED = (
    "a torch.nn.Module, a program (TorchScript, torch.export, ONNX), a function of images, or the name of a model"
)


class KnownModel(nn.Module):
    """``model`` with what is known of it: how its pictures are prepared, the names of its outputs, notes.

    ``synonyms`` are other names of the same outputs. Images (N, C, H, W) in [0, 1] go to the model as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        class_names: Names | None = None,
        synonyms: tuple[Names, ...] = (),
        preparation: Preparation | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.class_names = class_names
        self.synonyms = synonyms
        self.preparation = preparation
        self.notes = notes
        self.training = model.training

    def forward(self, images: Tensor) -> Any:
        return self.model(images)


class Program(nn.Module):
    """A program of torch.export, which has one mode only: that it was exported in."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program
        self.training = False

    def train(self, mode: bool = True) -> Program:
        """The flag alone is set, for the program refuses to be told."""
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


class Function(nn.Module):
    """A function from images to outputs; modules that it refers to are its own, so that their mode is set with it."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.called = nn.ModuleList(_modules_of(function))
        self.training = any(module.training for module in self.called)

    def forward(self, images: Tensor) -> Any:
        outputs = self.function(images)
        return torch.from_numpy(outputs) if isinstance(outputs, np.ndarray) else outputs

    def __deepcopy__(self, memo: dict[int, Any]) -> Function:
        if len(self.called):  # which the copy would call as well
            raise TypeError("a function holds its networks where no copy reaches them: hand over a torch.nn.Module")
        return Function(self.function)


@checked_except("obj", "prepare")
def as_model(
    obj: object,
    *,
    prepare: object = None,
    classes: Sequence[str] | str | os.PathLike[str] | None = None,
    trust_code: bool = False,
) -> nn.Module:
    """Make a model of anything that classifies images; the functions of assay call it on the model they are handed.

    Args:
        obj: One of

            * a ``torch.nn.Module``, also of transformers or TorchScript, that returns a tensor (N, K), an object or a
              dict with ``logits``, a tuple that begins with them, or one logit an image for two classes;
            * a ``torch.export.ExportedProgram``, or its module;
            * an ``onnxruntime.InferenceSession`` or an ``onnx.ModelProto``;
            * a function (or any callable) from images (N, C, H, W) to logits, in torch or NumPy;
            * a pipeline of transformers, or the result of :func:`assay.models.open_model`;
            * the name or path of a model, as :func:`assay.load_model` takes it.
        prepare: how its author prepares pictures: a text such as ``"resize=256:bicubic,crop=224,mean=…,std=…"``, an
            ``assay.records.preparation.Preparation``, an image processor of transformers, ``weights.transforms()`` of
            torchvision, or timm's ``pretrained_cfg``. Mean, deviation and the order of channels become the first layers
            of the model, and all of it its attribute ``preparation``. None: the model takes pixels in [0, 1].
        classes: the names of its outputs, in their order: a list, a file of them, or ``"imagenet"``. None: those of the
            configuration of a model of transformers, else unknown. Where they are known, outputs are matched to
            the classes of a data set by name.
        trust_code: open also a file that could run code.

    Returns:
        A module that takes images (N, C, H, W) in [0, 1]. It is ``obj`` itself where nothing is to be added; otherwise
        it calls ``obj``, whose weights, modes and hooks stay as they are.

    Raises:
        ModelError: what is handed over is no model, such as a dict of weights.
        OptionError: a preparation or a file of names that cannot be read.

    Example:
        >>> import assay, torch
        >>> data = assay.load_dataset("digits", limit=32)
        >>> model = assay.as_model(lambda images: images.mean((2, 3)) @ torch.ones(1, 10))
        >>> assay.measure_clean_accuracy(model, data).n
        32
    """
    stated = None if prepare is None else _read_preparation(prepare)
    given = () if classes is None else _read_names(classes)
    source = _find(obj, trust_code=trust_code)
    model = source.model if stated is None else _prepared(source.model, stated)
    names, preparation = given or source.names, stated or source.preparation
    if not names and preparation is None and not source.notes:
        return model
    return KnownModel(
        model,
        class_names=names[0] if names else None,
        synonyms=names[1:],
        preparation=preparation,
        notes=source.notes,
    )


class _Found(NamedTuple):
    """A model, and what its source says of it; further ``names`` are others of the same outputs."""

    model: nn.Module
    names: tuple[Names, ...] = ()
    preparation: Preparation | None = None
    notes: tuple[str, ...] = ()


def _find(obj: object, *, trust_code: bool) -> _Found:
    if isinstance(obj, nn.Module):
        return _Found(Program(obj) if _has_one_mode(obj) else obj, _names_in(obj))
    if isinstance(obj, LoadedModel):
        return _Found(obj.model, (obj.class_names,) if obj.class_names else (), obj.preparation, obj.notes)
    if isinstance(obj, str | os.PathLike):
        return _opened(os.fspath(obj), trust_code=trust_code)
    if (program := _find_program(obj)) is not None:
        return program
    network, processor = getattr(obj, "model", None), getattr(obj, "image_processor", None)
    if isinstance(network, nn.Module) and processor is not None:  # a pipeline of transformers
        preparation = _read_preparation(processor)
        return _Found(_prepared(network, preparation), _names_in(network), preparation)
    if callable(obj) and not isinstance(obj, type):
        return _Found(Function(obj))
    raise ModelError("obj", expected=EXPECTED, got=describe(obj))


def _find_program(obj: Any) -> _Found | None:
    """A program of torch.export or ONNX, told by its class's name where its package need not be there."""
    if isinstance(obj, torch.export.ExportedProgram):
        return _Found(Program(obj.module()))
    package = type(obj).__module__.partition(".")[0]
    if package == "onnx" and hasattr(obj, "SerializeToString"):
        return _from_onnx(obj.SerializeToString())
    return _from_session(obj) if package == "onnxruntime" else None


def _has_one_mode(model: nn.Module) -> bool:
    """Whether it is a module of a program of torch.export, which refuses ``train()`` and ``eval()``."""
    if "train" not in vars(model):
        return False
    try:
        model.train(model.training)
    except NotImplementedError:
        return True
    return False


def _names_in(model: nn.Module) -> tuple[Names, ...]:
    """Those in the configuration of a model of transformers, with the synsets where they are ImageNet's."""
    labels = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(labels, Mapping) or sorted(map(str, labels)) != sorted(map(str, range(len(labels)))):
        return ()
    by_number = {int(number): str(name) for number, name in labels.items()}
    names = tuple(by_number[number] for number in range(len(by_number)))
    if len(names) < 2 or any(re.fullmatch(r"LABEL_\d+", name) for name in names):  # its placeholders
        return ()
    return (names, *imagenet_classes(names))


def _opened(spec: str, *, trust_code: bool) -> _Found:
    loaded = open_model(spec, trust_code=trust_code)
    return _find(loaded, trust_code=trust_code)


def _from_onnx(program: bytes) -> _Found:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(program)
        try:
            opened = _opened(str(path), trust_code=False)
        except ModelError as error:
            where = error.where.replace(str(path), "ONNX model")
            raise ModelError(where, expected=error.expected, got=error.got) from None
    return opened._replace(notes=tuple(note.replace(str(path), "the ONNX model") for note in opened.notes))


def _from_session(session: Any) -> _Found:
    """The program of a session, converted as a file of it is; without it, what the session itself runs."""
    path, program = getattr(session, "_model_path", None), getattr(session, "_model_bytes", None)
    if path and Path(path).is_file():
        return _opened(str(path), trust_code=False)
    if program:
        return _from_onnx(program)
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.detach().cpu().numpy()})[0])

    return _Found(Function(run), notes=("the session runs forward only: what needs gradients cannot run",))


def _modules_of(function: Any) -> list[nn.Module]:
    """The modules that a function refers to: what it is a method of, its parts, its variables."""
    if hasattr(function, "func"):  # functools.partial
        parts = [function.func, *function.args, *function.keywords.values()]
    elif hasattr(function, "__self__"):
        parts = [function.__self__]
    elif inspect.isfunction(function):
        variables = inspect.getclosurevars(function)
        parts = [*variables.nonlocals.values(), *variables.globals.values(), *(function.__defaults__ or ())]
    else:
        parts = list(getattr(function, "__dict__", {}).values())
    return [part for part in parts if isinstance(part, nn.Module)]


def _prepared(model: nn.Module, preparation: Preparation) -> nn.Module:
    """``model`` behind the scale, the order of channels and the normalisation that it expects."""
    if preparation.channels == "bgr":
        model = ChannelsReversed(model)
    if preparation.normalization is None:
        return model
    channels = max(len(preparation.normalization[0]), 3)
    wrapped = Normalized(Normalize(choose_normalization(preparation.normalization, channels=channels)), model)
    wrapped.training = model.training
    return wrapped


def _read_preparation(given: object) -> Preparation:
    if isinstance(given, Preparation):
        return given
    if isinstance(given, str):
        return Preparation.parse(given, where="prepare")
    if isinstance(given, Mapping):
        from assay.models.sources.timm import prepared_for as of_timm

        return of_timm(given, {}, source="pretrained_cfg")
    if hasattr(given, "image_mean") or hasattr(given, "do_resize"):
        from assay.models.sources.processors import prepared_by

        return prepared_by(_on_pil(given), source=type(given).__name__)
    from assay.models.sources.torchvision import prepared_for as of_torchvision

    preparation = of_torchvision(given, source=f"torchvision's {type(given).__name__}")
    if preparation is None:
        expected = "a text, a Preparation, an image processor, weights.transforms() or a pretrained_cfg"
        raise OptionError("prepare", expected=expected, got=describe(given))
    return preparation


def _on_pil(processor: Any) -> Any:
    """The same settings in the processor that works on PIL's pictures, by which preparations are defined."""
    import transformers

    kind = getattr(transformers, f"{type(processor).__name__.removesuffix('Fast').removesuffix('Pil')}Pil", None)
    return processor if kind is None else kind.from_dict(processor.to_dict())


def _read_names(given: Sequence[str] | str | os.PathLike[str]) -> tuple[Names, ...]:
    if isinstance(given, str | os.PathLike):
        return imagenet_names() if given == "imagenet" and not Path(given).exists() else read_class_names(Path(given))
    names = tuple(given)
    return (names, *imagenet_classes(names))


def match_to(model: nn.Module, classes: Names) -> nn.Module:
    """``model`` with its outputs in the order of these classes of data, where their names are known.

    Raises :class:`ModelError` for classes that it does not have.
    """
    names = (model.class_names, *model.synonyms) if isinstance(model, KnownModel) else _names_in(model)
    own = [each for each in names if each]
    if not own:
        return model
    try:
        match = match_classes(own, classes, where="model")
    except ModelError as error:
        got = f"{error.got} (assay.as_model(model, classes=...) states other names)"
        raise ModelError(error.where, expected=error.expected, got=got) from None
    if match.columns == tuple(range(len(own[0]))) and match.note is None:
        return model
    notes = (*getattr(model, "notes", ()), *(() if match.note is None else (match.note,)))
    return MatchedClasses(model, match.columns, class_names=own[0], notes=notes)


def take(obj: object, classes: Names | None) -> nn.Module | None:
    """What a public function makes of an object handed over for a model; None for what is no model, or a name only.

    ``classes`` are those of the data set that it was handed over with.
    """
    if isinstance(obj, MatchedClasses):
        return obj
    if isinstance(obj, nn.Module):
        model = Program(obj) if _has_one_mode(obj) else obj
    elif isinstance(obj, str | os.PathLike | type | Mapping):
        return None
    else:
        try:
            model = as_model(obj)
        except ModelError as error:
            if error.where == "obj":
                return None
            raise
    return model if classes is None else match_to(model, classes)


take_for("Module", take)
