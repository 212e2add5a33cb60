"""Options are small frozen value objects; a wrong value names its field, what was expected and what was got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from assay.errors import OptionError

if TYPE_CHECKING:  # pydantic exports its metaclass by no public name
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _OptionsType(ModelMetaclass):
    """Makes ``PGD(steps=0)`` raise an :class:`OptionError`; as pydantic builds nested options without calling their
    class, the error of a whole recipe still names the path to its field.
    """

    def __call__(cls, *args: Any, **values: Any) -> Any:  # noqa: N805 - what a metaclass makes is a class
        try:
            return super().__call__(*args, **values)
        except ValidationError as error:
            raise option_error(error, where=cls.__name__) from None


class Options(BaseModel, metaclass=_OptionsType):
    """Base of every options object: frozen, validated, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "") -> Self:
        """Validate ``values``; raise :class:`OptionError` naming the first field that is wrong.

        ``where`` is the file or the flag the values came from and starts the message.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise option_error(error, where=where) from None


def option_error(error: ValidationError, *, where: str, field: str | None = None) -> OptionError:
    """Turn pydantic's first complaint into one line: where, expected, got; ``field`` replaces pydantic's location."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) if field is None else field
    place = ": ".join(part for part in (where, field) if part) or "options"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        expected = "no option of this name"
    if first["type"] == "missing":
        return OptionError(place, expected="a value", got="nothing")
    return OptionError(place, expected=expected, got=repr(first["input"]))
