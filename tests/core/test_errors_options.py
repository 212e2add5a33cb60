"""Errors say where, expected, got; options name the field that is wrong."""

from __future__ import annotations

import pickle

import pytest
from pydantic import Field

from assay.errors import AssayError, DataError, DependencyError, InputError, InterruptedRunError, OptionError
from assay.options import Options


class Sizes(Options):
    width: int
    rate: float = 0.1


def test_an_input_error_is_one_line_of_where_expected_got() -> None:
    assert str(DataError("labels[37]", expected="0..9", got=12)) == "labels[37]: expected 0..9, got 12"


def test_an_input_error_crosses_processes() -> None:
    again = pickle.loads(pickle.dumps(DataError("a", expected="b", got="c")))
    assert type(again) is DataError
    assert (again.where, again.expected, again.got) == ("a", "b", "c")


def test_the_class_owns_the_exit_code() -> None:
    assert InputError("x", expected="y", got="z").exit_code == 2
    assert InterruptedRunError("stopped").exit_code == 3
    assert issubclass(DependencyError, AssayError)


def test_a_missing_package_names_its_extra() -> None:
    text = str(DependencyError("timm", extra="timm", purpose="timm:resnet18"))
    assert text == "timm:resnet18 needs the package 'timm': pip install 'assay[timm]'"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"width": "wide"}, "size.toml: width: expected a valid integer.*, got 'wide'", id="type"),
        pytest.param({}, "size.toml: width: expected a value, got nothing", id="missing"),
        pytest.param(
            {"width": 1, "hight": 2}, "size.toml: hight: expected no option of this name, got 2", id="unknown"
        ),
        pytest.param(
            {"width": 1, "rate": float("nan")}, "size.toml: rate: expected a finite number, got nan", id="nan"
        ),
    ],
)
def test_wrong_options_name_their_field(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sizes.parse(values, where="size.toml")


class Inner(Options):
    rate: float = Field(default=1.0, gt=0)


class Outer(Options):
    inner: Inner = Inner()


def test_options_made_by_their_class_raise_one_line_too() -> None:
    with pytest.raises(OptionError) as caught:
        Inner(rate=-1)
    assert str(caught.value) == "Inner: rate: expected greater than 0, got -1"
    with pytest.raises(OptionError) as caught:
        Outer(inner={"rate": -1})  # the path to a nested field is kept
    assert str(caught.value) == "Outer: inner.rate: expected greater than 0, got -1"
