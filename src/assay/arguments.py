"""Arguments of public functions: each is held against its annotation before anything runs.

A wrong kind is one line that names the argument, what it takes and the way there. numpy's numbers become Python's, text
becomes a path where a path is meant, and lists become tuples; nothing else is converted.
"""

from __future__ import annotations

import inspect
import os
import types
import typing
from collections import abc
from collections.abc import Callable
from functools import wraps
from math import inf, isnan
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec, TypeVar

from assay.errors import DataError, InputError, ModelError, OptionError, one_line

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")


class _Kind(NamedTuple):
    """What a message says of a type, and the error of a wrong argument."""

    text: str
    error: type[InputError] = OptionError


# By name: neither torch nor the rest of assay is imported here.
_KINDS = {
    "Module": _Kind("a model, an instance of torch.nn.Module (assay.load_model(NAME) makes one)", ModelError),
    "ImageDataset": _Kind("an assay.ImageDataset (assay.load_dataset(PATH) makes one)", DataError),
    "SequenceTask": _Kind("a sequence task (assay.data.adding_problem(...) makes one)", DataError),
    "Tensor": _Kind("a tensor", DataError),
    "Recipe": _Kind("an assay.Recipe (assay.load_recipe(NAME) makes one)"),
    "Checkup": _Kind("an assay.Checkup (assay.run_check(...) or assay.read_checkup(PATH) makes one)", DataError),
    "Record": _Kind("a record, such as the result of assay.measure_clean_accuracy(...)", DataError),
    "AttackOptions": _Kind("options such as PGD(steps=20)"),
    "str | AttackOptions": _Kind("a name, or options such as PGD(steps=20)"),
    "CompressionPlan": _Kind("a plan, such as assay.compression.CompressionPlan(max_drop=1.0)"),
    "RobustnessMeasurement": _Kind("the result of assay.measure_robust_accuracy(...)", DataError),
    "Predictions": _Kind("predictions (assay.evaluate.predict(model, dataset) makes them)", DataError),
    "Claim": _Kind("a claim (assay.claims.find_claims([ID]) finds them)"),
    "Optimizer": _Kind("an optimizer of torch.optim"),
    "bool": _Kind("True or False"),
    "int": _Kind("a whole number"),
    "float": _Kind("a number, such as 0.5 or 8/255"),
    "str": _Kind("text"),
    "NoneType": _Kind("None"),
    "Path": _Kind("a path"),
    "PathLike": _Kind("a path"),
}

# Where a number has to lie, by the name of its argument, the same in every function; and more than "a number" to say.
_RANGES: dict[str, tuple[int, float]] = {
    **dict.fromkeys(("n", "batch_size", "limit", "every", "queries", "eot_samples", "processes"), (1, inf)),
    **dict.fromkeys(("iterations", "top", "probes", "powers", "hidden", "samples", "side", "classes"), (1, inf)),
    **dict.fromkeys(("image_size", "image_shape"), (1, inf)),
    **dict.fromkeys(("steps", "shown", "padding", "max_bad", "jacobians"), (0, inf)),
    "seed": (0, 2**63 - 1),
}
_NUMBERS = {
    "epsilon": "a finite number of at least 0, in pixel units",
    "fraction": "a number between 0 and 1",
    "at_least": "a share between 0 and 1",
    "image_shape": "three sizes (C, H, W) of at least 1",
    "image_size": "greater than or equal to 1",
    "limit": "greater than or equal to 1",
    "max_bad": "greater than or equal to 0",
}
_NEVER_EMPTY = {"epsilons", "operations"}


class _MismatchError(Exception):
    """``value`` is not of the kind; ``place`` leads to it inside the argument, such as ``[3]``."""

    def __init__(self, hint: Any, value: object, place: str = "") -> None:
        super().__init__()
        self.hint, self.value, self.place = hint, value, place


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with every argument held against its annotation; raises :class:`InputError` for a wrong kind."""
    return checked_except()(function)


def checked_except(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """:func:`checked`, but for arguments that the function refuses itself, with more to say than their kind."""
    return lambda function: _with_checks(function, frozenset(names))


def checked_kinds(*names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """:func:`checked`, but of these arguments any number or text passes: the function itself judges their values."""
    return lambda function: _with_checks(function, frozenset(), frozenset(names))


def _with_checks(
    function: Callable[P, R], unchecked: frozenset[str], judged: frozenset[str] = frozenset()
) -> Callable[P, R]:
    signature = inspect.signature(function)
    hints: dict[str, Any] = {}  # resolved at the first call: annotations may name what is costly to import

    @wraps(function)
    def with_checked_arguments(*args: P.args, **kwargs: P.kwargs) -> R:
        __tracebackhide__ = True
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # a missing or unknown name: Python's own message names the function
        if not hints:
            hints.update(typing.get_type_hints(inspect.unwrap(function)))
        if _TAKEN:
            _take_objects(bound.arguments, {name: hint for name, hint in hints.items() if name not in unchecked})
        for name, value in bound.arguments.items():
            if name in judged and isinstance(value, str | Real) and not isinstance(value, bool):
                continue
            if name in hints and name not in unchecked:
                kind = signature.parameters[name].kind
                bound.arguments[name] = _converted(name, value, _gathered(hints[name], kind))
        return function(*bound.args, **bound.kwargs)

    return with_checked_arguments


_TAKEN: dict[str, Callable[[Any, tuple[str, ...] | None], Any]] = {}


def take_for(kind: str, function: Callable[[Any, tuple[str, ...] | None], Any]) -> None:
    """Let ``function`` make what an argument of the type ``kind`` needs out of other objects that can serve as one.

    It is called with the object and the classes of the data set among the same arguments, and returns None for what
    cannot.
    """
    _TAKEN[kind] = function


def _classes_of(arguments: abc.Iterable[Any]) -> tuple[str, ...] | None:
    """The names of the classes of the first data set among these."""
    sets = (each for each in arguments if type(each).__name__ == "ImageDataset")
    return next((getattr(each, "classes", None) for each in sets), None)


def _take_objects(arguments: dict[str, Any], hints: abc.Mapping[str, Any]) -> None:
    """Make of each argument what its hint asks for, where it can serve as that; data sets first, for their classes.

    Of a list of such things, each.
    """
    for kinds in ({"ImageDataset"}, _TAKEN.keys() - {"ImageDataset"}):
        for name, value in arguments.items():
            hint = hints.get(name)
            several = typing.get_origin(hint) is abc.Sequence and isinstance(value, list | tuple)
            single = typing.get_args(hint)[0] if several else hint
            kind = next((kind for kind in _names(single) if kind in kinds and kind in _TAKEN), None)
            if kind is None:
                continue
            classes = _classes_of(arguments.values())
            try:
                made = [_take(kind, each, classes) for each in (value if several else (value,))]
            except DataError as error:  # names the sample; here, also the argument
                raise DataError(f"{name}: {error.where}", expected=error.expected, got=error.got) from error
            arguments[name] = made if several else made[0]


def _take(kind: str, value: Any, classes: tuple[str, ...] | None) -> Any:
    made = None if value is None else _TAKEN[kind](value, classes)
    return value if made is None else made


def _names(hint: Any) -> list[str]:
    """The names of a type, or of the types of a union."""
    parts = typing.get_args(hint) if typing.get_origin(hint) in {typing.Union, types.UnionType} else (hint,)
    return [getattr(part, "__name__", "") for part in parts]


def checked_fields(cls: type[C]) -> type[C]:
    """:func:`checked` for the fields that a dataclass is made of."""
    cls.__init__ = checked(cls.__init__)  # type: ignore[method-assign]
    return cls


def _gathered(hint: Any, kind: object) -> Any:
    """The type of what ``*names`` and ``**names`` gather."""
    if kind is inspect.Parameter.VAR_POSITIONAL:
        return tuple[hint, ...]
    return abc.Mapping[str, hint] if kind is inspect.Parameter.VAR_KEYWORD else hint


def _converted(name: str, value: object, hint: Any) -> object:
    try:
        converted = _convert(value, hint)
    except _MismatchError as wrong:
        kind = _kind(wrong.hint)
        text = _NUMBERS.get(name, kind.text) if isinstance(wrong.value, str | Real) else kind.text
        raise kind.error(name + wrong.place, expected=text, got=describe(wrong.value)) from None
    low, high = _RANGES.get(name, (-inf, inf))
    numbers = converted if isinstance(converted, tuple) else (converted,)
    if not all(low <= number <= high for number in numbers if isinstance(number, int | float)):
        within = f"at least {low}" if high == inf else f"a number in {low}..{high}"
        raise OptionError(name, expected=_NUMBERS.get(name, within), got=converted)
    if name in _NEVER_EMPTY and isinstance(converted, tuple) and not converted:
        raise OptionError(name, expected="at least one", got="none")
    return converted


def _convert(value: Any, hint: Any) -> Any:
    """``value`` as ``hint`` has it; raises :class:`_MismatchError`."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint is object or hint is Any or isinstance(hint, TypeVar):
        return value
    if origin in {typing.Union, types.UnionType}:
        return _convert_to_one(value, hint, parts)
    if origin is typing.Literal:
        fits = any(isinstance(value, type(choice)) and value == choice for choice in parts)
    elif origin is abc.Callable:
        fits = callable(value)
    elif origin is type:
        fits = isinstance(value, type)
    elif origin in {tuple, abc.Sequence, abc.Collection, abc.Iterable}:
        return _convert_elements(value, hint, origin, parts)
    elif origin is abc.Mapping:
        return _convert_values(value, hint, parts)
    else:
        return _convert_plain(value, hint, origin or hint)
    if not fits:
        raise _MismatchError(hint, value)
    return value


def _convert_plain(value: Any, hint: Any, cls: Any) -> Any:
    if cls is bool and str(getattr(value, "dtype", "")) == "bool" and value.shape == ():
        return bool(value)  # numpy's; torch writes its own "torch.bool"
    if cls in {int, float}:
        if (
            isinstance(value, bool)
            or not isinstance(value, Integral if cls is int else Real)
            or (not isinstance(value, Integral) and isnan(value))
        ):
            raise _MismatchError(hint, value)
        return value if type(value) in {int, float} else cls(value)
    if cls is Path and isinstance(value, str | os.PathLike):
        return Path(value)
    if getattr(cls, "_is_protocol", False) or isinstance(value, cls):
        return value
    raise _MismatchError(hint, value)


def _convert_to_one(value: Any, hint: Any, parts: tuple[Any, ...]) -> Any:
    """By the first type of a union that fits; what is wrong inside a list is told of that, not of the union."""
    inner = None
    for part in parts:
        try:
            return _convert(value, part)
        except _MismatchError as wrong:
            inner = wrong if wrong.place else inner
    raise inner or _MismatchError(hint, value)


def _convert_elements(value: Any, hint: Any, origin: Any, parts: tuple[Any, ...]) -> Any:
    if getattr(value, "ndim", None) == 1 and hasattr(value, "tolist"):  # an array or a tensor
        value = value.tolist()
    ordered = isinstance(value, abc.Sequence)
    # A record is iterable too: over its fields.
    fits = ordered or (origin not in {tuple, abc.Sequence} and isinstance(value, abc.Iterable))
    if not fits or isinstance(value, str | bytes | abc.Mapping) or hasattr(type(value), "model_fields"):
        raise _MismatchError(hint, value)
    elements = tuple(value)
    repeated = origin is not tuple or parts[1:] == (...,)
    if not repeated and len(elements) != len(parts):
        raise _MismatchError(hint, value)
    converted = []
    for place, element in enumerate(elements):
        try:
            converted.append(_convert(element, parts[0] if repeated else parts[place]))
        except _MismatchError as wrong:
            raise _MismatchError(wrong.hint, wrong.value, f"[{place}]{wrong.place}") from None
    return value if isinstance(value, abc.Set) else tuple(converted)


def _convert_values(value: Any, hint: Any, parts: tuple[Any, ...]) -> Any:
    if not isinstance(value, abc.Mapping):
        raise _MismatchError(hint, value)
    for key, element in value.items():
        try:
            _convert(element, parts[1])
        except _MismatchError as wrong:
            raise _MismatchError(wrong.hint, wrong.value, f"[{key!r}]{wrong.place}") from None
    return value


def _kind(hint: Any) -> _Kind:
    """What the message says of an annotation."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return _Kind(f"one of {', '.join(map(str, parts))}")
    if origin in {abc.Callable, type}:
        return _Kind("a function" if origin is abc.Callable else "a class")
    if not parts or origin is os.PathLike:
        cls = origin or hint
        return _KINDS.get(cls.__name__, _Kind(f"an instance of {cls.__module__}.{cls.__qualname__}"))
    kinds = list(dict.fromkeys(_kind(part) for part in parts if part is not ...))
    texts = [kind.text for kind in kinds]
    error = next((kind.error for kind in kinds if kind.error is not OptionError), OptionError)
    if origin in {typing.Union, types.UnionType}:
        names = " | ".join(getattr(part, "__name__", "") for part in parts)
        return _KINDS.get(names, _Kind(" or ".join(texts), error))
    if origin is tuple and parts[1:] != (...,):
        return _Kind(f"{len(parts)} values, each {' or '.join(texts)}", error)
    return _Kind(f"{'a dict' if origin is abc.Mapping else 'a list'}, each value {texts[-1]}", error)


def describe(value: object) -> str:
    """What a message says of a value that was handed over."""
    name = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}, not an instance of it"
    if isinstance(value, abc.Mapping) and value and all(hasattr(part, "detach") for part in value.values()):
        return "a state dict (model.load_state_dict takes it)"
    if isinstance(value, str | bool | Real | os.PathLike):
        return one_line(repr(value), limit=80)
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and hasattr(value, "dtype"):
        return f"{name} {value.dtype} {tuple(shape)}"
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
