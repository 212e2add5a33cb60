"""Every public function given the wrong kind of anything: one line that names the argument and says what it takes."""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import assay
from assay.arguments import checked

NETWORK = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
DATA = assay.ImageDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), ("a", "b"))
PLAIN: dict[Any, Any] = {
    int: 1,
    float: 0.5,
    str: "digits",
    bool: True,
    Path: Path("run"),
    torch.Tensor: torch.ones(1, 1, 8, 8),
    nn.Module: NETWORK,
    assay.attacks.AttackOptions: assay.PGD(),
}
PAIRS = TensorDataset(torch.zeros(4, 1, 8, 8), torch.zeros(4))


class Lookalike:
    """Has whatever attribute is asked for, and is nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0


# What is handed in, by the types (as annotations spell them) that it is right for.
VALUES: list[tuple[Any, set[str]]] = [
    (None, {"None"}),
    (True, {"bool"}),
    (3, {"int", "float"}),
    (2.5, {"float"}),
    (float("nan"), set()),
    ("photos/", {"str", "Path", "PathLike"}),
    ("8/255", {"str", "Path", "PathLike"}),
    (b"8/255", {"bytes"}),
    (Path("run"), {"Path", "PathLike"}),
    (nn.Linear, {"Callable", "type"}),
    (NETWORK, {"Module", "Callable"}),
    (NETWORK.state_dict(), {"Mapping[str, Any]", "Mapping[str, object]"}),
    (lambda images: images, {"Callable", "Module"}),
    (DATA, {"ImageDataset"}),
    (DataLoader(PAIRS), set()),
    (PAIRS, set()),
    ([torch.zeros(2, 2)], {"[Tensor]"}),
    ([(torch.zeros(1, 8, 8), 0)], set()),
    (torch.zeros(4, 1, 8, 8), {"Tensor"}),
    (np.zeros((4, 1, 8, 8)), set()),
    (SimpleNamespace(), set()),
    (Lookalike(), set()),
]
KINDS = {
    **dict.fromkeys(("nn.Module",), "Module"),
    **dict.fromkeys(("Transform", "OnStep", "OnStage", "OnFix", "OnProgress", "OnResult", "Perturb"), "Callable"),
    **dict.fromkeys(("StepContext", "TrainingLoss", "SequenceLoss"), "Callable"),
    "os.PathLike[str]": "PathLike",
    "Sequence[Tensor]": "[Tensor]",
    "Fill": "int",
    "Factors": "object",
    "NormalizationChoice": "str | None",
    "Norm": "Literal",
    "Precision": "Literal",
}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function with arguments: of the root, and of the packages that list what is public."""
    found = {}
    for name in ("", *assay._PACKAGES):
        module = importlib.import_module(f"assay.{name}" if name else "assay")
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if inspect.isfunction(value) and inspect.signature(value).parameters:
                found[f"{value.__module__}.{public}"] = value
    for dotted in ("assay.testing.assert_accurate", "assay.testing.assert_robust", "assay.evaluate.predict"):
        module, _, public = dotted.rpartition(".")
        found[dotted] = getattr(importlib.import_module(module), public)
    for cls in (assay.ImageDataset, assay.attacks.Threat, assay.compression.CompressionPlan):
        found[f"{cls.__module__}.{cls.__name__}"] = cls
    inner = {"assay.attacks.batch.initial_fields", "assay.attacks.options.register"}  # for authors of attacks
    return iter((name, value) for name, value in sorted(found.items()) if name not in inner)


def right_for(annotation: str) -> set[str]:
    parts = re.split(r" \| (?![^\[]*\])", annotation)  # those outside of brackets
    kinds = [KINDS.get(part, part).split(" | ") for part in parts]
    return {re.sub(r"^(Callable|type)\[.*", r"\1", part) for group in kinds for part in group}


CASES = [
    pytest.param(function, parameter, id=f"{name}-{parameter.name}")
    for name, function in functions()
    for parameter in inspect.signature(function).parameters.values()
    if not {"object", "Any", "Factors | object"} & right_for(str(parameter.annotation))
]


def test_the_cases_are_those_of_the_public_surface() -> None:
    named = {name.rpartition(".")[2] for name, _ in functions()}
    public = {name for name in assay.__all__ if inspect.isfunction(getattr(assay, name))}
    assert public - named == {"list_attacks"}
    assert len(CASES) > 250


def some(hint: Any) -> Any:
    """A value of the kind that ``hint`` names; nothing is called with it."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if hint in PLAIN:
        return PLAIN[hint]
    if origin in {typing.Union, types.UnionType}:
        return some(parts[0])
    if origin is typing.Literal:
        return parts[0]
    if origin is tuple and ... not in parts:
        return tuple(some(part) for part in parts)
    if origin is not None:
        return (lambda *_: None) if origin is abc.Callable else {} if origin is abc.Mapping else ()
    return hint.model_construct() if hasattr(hint, "model_construct") else hint.__new__(hint)


BYTES = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
PLAN = assay.augment.RandAugment().plan(torch.arange(1), seed=0, epoch=0, height=8, width=8)
# These judge some values themselves, after those that come before: the others have to be right.
RIGHT = {
    "apply_operation": {"images": BYTES, "operation": "Rotate"},
    "apply_plan": {"images": BYTES, "plan": PLAN},
}


@pytest.mark.parametrize(("function", "parameter"), CASES)
def test_a_wrong_kind_is_one_line(function: Callable[..., Any], parameter: inspect.Parameter) -> None:
    right = right_for(str(parameter.annotation))
    raw = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    hints = typing.get_type_hints(inspect.unwrap(raw))
    needed = [
        other
        for other in inspect.signature(function).parameters.values()
        if other.default is other.empty and other.kind.name[:3] != "VAR"
    ]
    handed = {other.name: some(hints[other.name]) for other in needed} | RIGHT.get(function.__name__, {})
    wrong = [value for value, kinds in VALUES if not kinds & right]
    assert len(wrong) >= 10
    for value in wrong:
        with pytest.raises(assay.InputError) as caught:
            if parameter.kind is parameter.VAR_POSITIONAL:
                function(*handed.values(), value)
            else:
                function(**{**handed, parameter.name: value})
        told = str(caught.value)
        assert caught.value.where.startswith(parameter.name), told
        assert "\n" not in told and ": expected " in told and ", got " in told and len(told) < 500, told


@pytest.mark.parametrize(
    ("where", "error", "call", "line"),
    [
        (
            "a loader of one class",
            assay.DataError,
            lambda: assay.measure_clean_accuracy(NETWORK, DataLoader(PAIRS)),  # type: ignore[arg-type]
            "dataset: TensorDataset: labels: expected labels of at least two classes, got only 0",
        ),
        (
            "a path for a model",
            assay.ModelError,
            lambda: assay.run_check("model.pt", DATA),  # type: ignore[arg-type]
            "model: expected a model, an instance of torch.nn.Module (assay.load_model(NAME) makes one), "
            "got 'model.pt'",
        ),
        (
            "a class for its instance",
            assay.ModelError,
            lambda: assay.measure_spectra(nn.Identity),  # type: ignore[arg-type]
            "model: expected a model, an instance of torch.nn.Module (assay.load_model(NAME) makes one), "
            "got the class Identity, not an instance of it",
        ),
        (
            "weights for a model",
            assay.ModelError,
            lambda: assay.audit_modes(NETWORK.state_dict(), DATA),  # type: ignore[arg-type]
            "model: expected a model, an instance of torch.nn.Module (assay.load_model(NAME) makes one), "
            "got a state dict (model.load_state_dict takes it)",
        ),
        (
            "an epsilon as text",
            assay.OptionError,
            lambda: assay.measure_robust_accuracy(NETWORK, DATA, epsilon="8/255"),  # type: ignore[arg-type]
            "epsilon: expected a finite number of at least 0, in pixel units, got '8/255'",
        ),
        (
            "text for a list of texts",
            assay.OptionError,
            lambda: assay.load_recipe("digits", overrides="epochs=1"),
            "overrides: expected a list, each value text, got 'epochs=1'",
        ),
        (
            "a record among a checkup's",
            assay.DataError,
            lambda: assay.compare([DATA, DATA]),  # type: ignore[list-item]
            "checkups[0]: expected an assay.Checkup (assay.run_check(...) or assay.read_checkup(PATH) makes one), "
            "got an ImageDataset",
        ),
    ],
)
def test_the_line_says_the_way_there(
    where: str, error: type[assay.InputError], call: Callable[[], object], line: str
) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["n", "batch_size", "limit", "every", "queries"])
def test_counts_are_at_least_one(name: str) -> None:
    takers = [function for _, function in functions() if name in inspect.signature(function).parameters]
    assert takers
    for function in takers:
        hints = typing.get_type_hints(inspect.unwrap(function))
        handed = {
            parameter.name: some(hints[parameter.name])
            for parameter in inspect.signature(function).parameters.values()
            if parameter.default is parameter.empty
        }
        for value in (0, -1, np.int64(-3)):
            with pytest.raises(
                assay.OptionError, match=rf"^{name}: expected (at least|greater than or equal to) 1, got {value}$"
            ):
                function(**{**handed, name: value})


@checked
def describe(
    count: int, share: float, names: Sequence[str], out: Path | None = None, *, shape: tuple[int, int] = (1, 1)
) -> Any:
    """What it was handed."""
    return count, share, names, out, shape


def test_numbers_of_numpy_and_text_for_a_path_become_what_is_annotated() -> None:
    count, share, names, out, shape = describe(
        np.int32(3),
        np.float32(0.5),
        np.array(["a", "b"]),
        "runs/x",
        shape=[np.int64(2), 3],  # type: ignore[arg-type]
    )
    assert (count, share, names, out, shape) == (3, 0.5, ("a", "b"), Path("runs/x"), (2, 3))
    assert [type(value) for value in (count, share, shape[0])] == [int, float, int]
    assert describe(10**400, Fraction(1, 4), [])[:2] == (10**400, 0.25)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_pass_as_they_are(dtype: type) -> None:
    matrix = np.outer(np.arange(1, 61), np.arange(1, 25)).astype(dtype)
    found = assay.factorize(matrix, 1)
    assert torch.allclose(found.product, torch.from_numpy(matrix))


def test_the_function_stays_what_it_was() -> None:
    assert describe.__name__ == "describe" and describe.__doc__ == "What it was handed."
    assert list(inspect.signature(describe).parameters) == ["count", "share", "names", "out", "shape"]
    with pytest.raises(TypeError, match=r"describe\(\) got an unexpected keyword argument 'sharp'"):
        describe(1, 0.5, (), sharp=(1, 1))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'names'"):
        describe(1, 0.5)  # type: ignore[call-arg]


def test_a_generator_of_records_is_read_once() -> None:
    record = assay.measure_clean_accuracy(NETWORK, DATA)
    assert [verdict.status for verdict in assay.judge(record for _ in range(1))] == [
        verdict.status for verdict in assay.judge([record])
    ]
    with pytest.raises(
        assay.DataError, match=r"records: expected a list, each value a record, .*, got a CleanAccuracy"
    ):
        assay.judge(record)  # type: ignore[arg-type]


def test_other_numbers_have_bounds_too() -> None:
    with pytest.raises(assay.OptionError, match=r"^seed: expected a number in 0\.\.9223372036854775807, got 118059162"):
        assay.measure_robust_accuracy(NETWORK, DATA, seed=2**70)
    with pytest.raises(
        assay.OptionError, match=r"^image_shape: expected three sizes \(C, H, W\) of at least 1, got \(1, -8"
    ):
        assay.measure_anatomy(NETWORK, image_shape=(1, -8, 8))
    with pytest.raises(assay.OptionError, match="^operations: expected at least one, got none"):
        assay.measure_invariance(NETWORK, DATA, operations=[])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, "batch: expected at least 1, got 0"),
        ({"calibration": 0}, "calibration: expected at least 1, got 0"),
        ({"validation": -1}, "validation: expected at least 1, got -1"),
        ({"robust_images": 0}, "robust_images: expected at least 1, got 0"),
        ({"epochs": -1.0}, "epochs: expected at least 0, got -1.0"),
        ({"lr": 0.0}, "lr: expected a number above 0, got 0.0"),
        ({"curve": (2.0,)}, r"curve: expected shares in \(0, 1\], got \(2.0,\)"),
        ({"kinds": ()}, "kinds: expected some of linear, channel, spatial, tucker, got none"),
    ],
    ids=str,
)
def test_a_plan_out_of_range_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(assay.OptionError, match=f"^{message}$"):
        assay.compression.CompressionPlan(share=0.5, **values)


def test_options_take_no_truth_value_for_a_number() -> None:
    with pytest.raises(assay.OptionError, match="^PGD: steps: expected a number, got True$"):
        assay.PGD(steps=True)
    with pytest.raises(assay.OptionError, match="^PGD: step_size: expected a number, got False$"):
        assay.PGD(step_size=False)
    assert assay.PGD(steps=np.int64(3), random_start=False).steps == 3
