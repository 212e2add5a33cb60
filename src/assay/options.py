"""Options are small frozen value objects; a wrong value names its field, what was expected and what was got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

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

    @model_validator(mode="before")
    @classmethod
    def _refuse_truth_for_a_number(cls, values: Any) -> Any:
        """``steps=True`` would be one step."""
        for name, value in values.items() if isinstance(values, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields:
                kinds = _kinds_of(cls.model_fields[name].annotation)
                if kinds & {int, float} and bool not in kinds:
                    raise PydanticCustomError("truth_value", "a number", {"field": name, "value": value})
        return values

    @classmethod
    def parse(cls, values: dict[str, Any], *, where: str = "") -> Self:
        """Validate ``values``; raise :class:`OptionError` naming the first field that is wrong.

        ``where`` is the file or the flag the values came from and starts the message.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise option_error(error, where=where) from None


def _kinds_of(annotation: Any) -> set[Any]:
    """The types that an annotation is made of: int and None for ``Annotated[int, Ge(1)] | None``."""
    parts = get_args(annotation)
    return set().union(*map(_kinds_of, parts)) if parts else {annotation} if isinstance(annotation, type) else set()


def option_error(error: ValidationError, *, where: str, field: str | None = None) -> OptionError:
    """Turn pydantic's first complaint into one line: where, expected, got; ``field`` replaces pydantic's location."""
    first = error.errors(include_url=False)[0]
    if first["type"] == "truth_value":
        first["loc"], first["input"] = (*first["loc"], first["ctx"]["field"]), first["ctx"]["value"]
    field = ".".join(str(part) for part in first["loc"]) if field is None else field
    place = ": ".join(part for part in (where, field) if part) or "options"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        expected = "no option of this name"
    if first["type"] == "missing":
        return OptionError(place, expected="a value", got="nothing")
    return OptionError(place, expected=expected, got=repr(first["input"]))
