"""Every attack by its name: a file here holds an attack whole, its options and its method."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from assay.arguments import checked
from assay.attacks.options import REGISTRY, AttackOptions
from assay.errors import OptionError, UnusedOptionError

# In the order in which they are listed; importing a module registers its attacks.
for _module in ("gradient", "apgd", "fab", "square", "ensembles", "minimum_norm", "transforms", "external"):
    importlib.import_module(f"{__name__}.{_module}")

_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number or a fraction such as 2/255"}
_NONE = "none"


@dataclass(frozen=True)
class AttackEntry:
    """A registered attack: its name, one line on what it is, its option fields with their meaning, and their class."""

    name: str
    summary: str
    fields: Mapping[str, str]
    options: type[AttackOptions]


def list_attacks() -> dict[str, AttackEntry]:
    """Every attack that :func:`attack` knows by name.

    Returns:
        For each name what it is, its option fields with their meaning, and the options class.

    Example:
        >>> import assay
        >>> attacks = assay.list_attacks()
        >>> attacks["pgd"].summary
        'Projected gradient descent (PGD): gradient steps from a random point of the ball.'
        >>> sorted(attacks["fgsm"].fields)
        ['loss']
    """
    return {
        name: AttackEntry(
            name=name,
            summary=(inspect.getdoc(options) or "").split("\n\n")[0].replace("\n", " "),
            fields={field: info.description or "" for field, info in options.model_fields.items()},
            options=options,
        )
        for name, options in REGISTRY.items()
    }


@checked
def find_attack(name: str | AttackOptions, options: Mapping[str, Any] | None = None) -> AttackOptions:
    """The attack of that name with ``options`` set; options that are made already are returned as they are.

    Raises :class:`OptionError` for a name that is not registered, an option that is unknown or out of range, and for
    ``options`` beside an attack that has its own.
    """
    if isinstance(name, AttackOptions):
        if options:
            raise UnusedOptionError(next(iter(options)), reason=f"the options of {name.name} are given as an object")
        return name
    return _class_of(name).parse(dict(options or {}), where=name)


def _class_of(name: str) -> type[AttackOptions]:
    if not isinstance(name, str):
        got = f"the class {name.__name__}" if isinstance(name, type) else type(name).__name__
        raise OptionError("attack", expected="a name, or options such as PGD(steps=20)", got=got)
    if name not in REGISTRY:
        raise OptionError("attack", expected=_one_of(REGISTRY, near=name), got=repr(name))
    return REGISTRY[name]


@checked
def parse_attack_options(name: str, assignments: Sequence[str]) -> AttackOptions:
    """The options of an attack from texts such as ``steps=20``, ``step_size=2/255``, ``loss=margin``.

    Floats may be fractions, flags are ``true`` or ``false``, and ``none`` is None. Raises :class:`OptionError` for a
    text without ``=``, an unknown field, a value that does not parse or is out of range, and a field that has no effect
    beside the others.
    """
    known = _class_of(name)
    values: dict[str, Any] = {}
    for assignment in assignments:
        field, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals:
            raise OptionError("--set", expected="field=value, such as steps=20", got=repr(assignment))
        if field not in known.model_fields:
            expected = f"{_one_of(known.model_fields, near=field)} for {name}"
            raise OptionError(f"--set {field}", expected=expected, got=repr(assignment))
        info = known.model_fields[field]
        values[field] = _value(info, text)
        try:
            known.parse({field: values[field]})
        except OptionError:
            raise OptionError(f"--set {field}", expected=_takes(info), got=repr(text)) from None
    options = known.parse(values, where="--set")
    for field, needed in options.without_effect().items():
        if field in values:
            raise OptionError(f"--set {field}", expected=f"{needed}, or {name} ignores it", got=repr(values[field]))
    return options


@checked
def show_attack_options(options: AttackOptions) -> str:
    """Every field with its value, what it takes and what it means, in TOML; one that is None is a comment.

    >>> print(show_attack_options(find_attack("fgsm")))
    # fgsm: Fast gradient sign method (FGSM): one step of size ε along the sign of the gradient.
    loss = "ce"  # one of ce, margin, dlr, ... loss to maximise
    """
    lines = [f"# {options.name}: {list_attacks()[options.name].summary}"]
    for field, info in type(options).model_fields.items():
        value = getattr(options, field)
        text = f'"{value}"' if isinstance(value, str) else str(value).lower()
        comment = f"{_takes(info)}; {info.description}"
        lines.append(f"# {field} = {_NONE}  # {comment}" if value is None else f"{field} = {text}  # {comment}")
    return "\n".join(lines)


def _kinds(field: FieldInfo) -> tuple[Any, ...]:
    """The types a field takes, with the union of an optional one resolved."""
    annotation = field.annotation
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _takes(field: FieldInfo) -> str:
    """The type and range of a field in words."""
    kinds = _kinds(field)
    words = [_KINDS.get(kind) or f"one of {', '.join(get_args(kind))}" for kind in kinds if kind is not type(None)]
    for limit in field.metadata:
        words += [f"{word} {getattr(limit, key):g}" for key, word in _BOUNDS.items() if hasattr(limit, key)]
    return ", ".join(words) + (f", or {_NONE}" if type(None) in kinds else "")


def _value(field: FieldInfo, text: str) -> Any:
    """The text as what pydantic parses; itself where it is no fraction, and pydantic will refuse it."""
    kinds = _kinds(field)
    if type(None) in kinds and text.lower() == _NONE:
        return None
    top, slash, bottom = text.partition("/")
    if float in kinds and slash:
        with suppress(ValueError, ZeroDivisionError):
            return float(top) / float(bottom)
    return text


def _one_of(names: Iterable[str], *, near: str) -> str:
    """All names, and the one that was probably meant."""
    close = difflib.get_close_matches(near, list(names), n=1)
    return f"one of {', '.join(names)}" + (f" (did you mean {close[0]}?)" if close else "")
