"""Models that a user's own Python code makes: ``path/to/file.py:factory`` and ``package.module:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from assay.errors import ModelError, one_line
from assay.models.architectures import near
from assay.models.sources.blueprint import DEFAULT_SHAPE, Blueprint, ModelRequest
from assay.models.wrappers import Normalize, Normalized, choose_normalization

CLASSES_PARAMETERS = ("classes", "num_classes", "n_classes")

_PACKAGE = Path(__file__).resolve().parents[2]  # frames in here are none of the user's code


def plan_factory(spec: str, request: ModelRequest) -> Blueprint:
    """A user's model as it is; where the caller asks for a normalisation, behind that."""
    factory, shape = import_factory(spec), request.image_shape or DEFAULT_SHAPE

    def make(classes: int) -> nn.Module:
        model = factory(classes)
        if request.normalization is None:
            return model
        wrapped = Normalized(Normalize(choose_normalization(request.normalization, channels=shape[0])), model)
        wrapped.training = model.training
        wrapped.normalize.train(model.training)
        return wrapped

    return Blueprint(make, shape)


def import_factory(spec: str) -> Callable[[int], nn.Module]:
    """The function that makes the model of ``spec``, given a number of classes.

    The name may be that of a function, a class, or a finished model. It is called without arguments, or with the number
    of classes where it takes ``classes``, ``num_classes`` or ``n_classes``. A file's own folder and the
    current directory can be imported from. Whatever the code prints goes to standard error. Raises
    :class:`ModelError`, also for any exception of that code.
    """
    place, _, attribute = spec.rpartition(":")
    path = Path(place) if place.endswith(".py") else None
    if path is not None and not path.is_file():
        raise ModelError(spec, expected="a Python file", got=f"no file {place}")
    if not place:
        raise ModelError(spec, expected="FILE.py:FACTORY or PACKAGE.MODULE:FACTORY", got="nothing before the colon")
    if not attribute:
        raise ModelError(spec, expected=f"the name of a function that makes the model, {place}:NAME", got="no name")
    folders = [Path.cwd()] if path is None else [path.resolve().parent, Path.cwd()]
    with _users_code(spec, folders):
        module = importlib.import_module(place) if path is None else _import_file(path)
    factory = _find(module, attribute, spec)

    def make(classes: int) -> nn.Module:
        with _users_code(spec, folders):
            model = factory if isinstance(factory, nn.Module) else factory(**_arguments(factory, classes, spec))
        if not isinstance(model, nn.Module):
            raise ModelError(spec, expected="a torch.nn.Module", got=f"a {type(model).__name__}")
        return model

    return make


def _import_file(path: Path) -> ModuleType:
    # The prefix keeps a file called resnet.py or torch.py from taking the place of a module of that name.
    name = f"_assay_model_{path.stem}"
    module_spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    module_spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, attribute: str, spec: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = [name for name, member in vars(value).items() if callable(member) and not name.startswith("_")]
            offered = f"one of {', '.join(public[:8])}" if public else "a function in it"
            raise ModelError(spec, expected=offered, got=near(part, public))
        value = getattr(value, part)
    if not callable(value):
        raise ModelError(spec, expected="a function, a class or a torch.nn.Module", got=f"a {type(value).__name__}")
    return value


def _arguments(factory: Callable[..., Any], classes: int, spec: str) -> dict[str, int]:
    """The arguments to call with; :class:`ModelError` where it needs more than a number of classes."""
    try:
        parameters = inspect.signature(factory).parameters
    except (ValueError, TypeError):
        return {}
    chosen = next((name for name in CLASSES_PARAMETERS if name in parameters), None)
    variadic = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    required = [each for each in parameters.values() if each.default is each.empty and each.kind not in variadic]
    if needed := [each.name for each in required if each.name != chosen]:
        expected = "a function that needs no argument but classes or num_classes"
        raise ModelError(spec, expected=expected, got=f"one that needs {', '.join(needed)}")
    return {} if chosen is None else {chosen: classes}


@contextmanager
def _users_code(spec: str, folders: list[Path]) -> Iterator[None]:
    """Let the user's code import from ``folders``; turn whatever it raises into one :class:`ModelError`."""
    before = list(sys.path)
    sys.path[:0] = [str(folder) for folder in folders]
    try:
        with redirect_stdout(sys.stderr):
            yield
    except ModelError:
        raise
    except (Exception, SystemExit) as error:
        got = f"{type(error).__name__}: {one_line(error)}{_place(error, folders)}"
        raise ModelError(spec, expected="a model", got=got) from error
    finally:
        sys.path[:] = before


def _place(error: BaseException, folders: list[Path]) -> str:
    """`` (file.py, line 12)``: the innermost line of the user's own code that the error came through, if any."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if {*folders} & {*file.parents} and "site-packages" not in frame.filename and _PACKAGE not in file.parents:
            return f" ({file.name}, line {frame.lineno})"
    return ""
