"""Attacks by name, their options from text, and back."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import get_args

import pytest
import torch

from assay.attacks.engine import attack
from assay.attacks.losses import LOSSES
from assay.attacks.methods import find_attack, list_attacks, parse_attack_options, show_attack_options
from assay.attacks.methods.gradient import FGSM, PGD, SignedSteps
from assay.attacks.methods.transforms import Transforms
from assay.attacks.options import LossName, register
from assay.attacks.threat import Threat
from assay.errors import OptionError


def test_every_attack_is_listed_under_its_own_name_with_what_it_is_and_its_fields():
    listed = list_attacks()
    assert list(listed) == [
        *("fgsm", "pgd", "signed-steps", "noise", "apgd-ce", "apgd-t", "fab-t", "square", "standard", "adaptive"),
        *("min-norm", "transforms", "transfer"),
    ]
    for name, entry in listed.items():
        assert (entry.name, entry.options.name) == (name, name)
        assert entry.summary.endswith(".")
        assert set(entry.fields) == set(entry.options.model_fields)
        assert all(entry.fields.values())
    assert not SignedSteps.constrained


def test_an_attack_of_ones_own_is_registered_by_the_decorator(monkeypatch):
    from assay.attacks import methods, options

    monkeypatch.setattr(options, "REGISTRY", {**options.REGISTRY})
    monkeypatch.setattr(methods, "REGISTRY", options.REGISTRY)

    @register
    class Twice(FGSM):
        """FGSM under another name."""

        name = "twice"

    assert isinstance(find_attack("twice", {"loss": "margin"}), Twice)
    assert list_attacks()["twice"].summary == "FGSM under another name."


def test_the_attack_of_the_documentation_runs(monkeypatch, linear, near_grey):
    from assay.attacks import methods, options

    monkeypatch.setattr(options, "REGISTRY", {**options.REGISTRY})
    monkeypatch.setattr(methods, "REGISTRY", options.REGISTRY)
    page = (Path(__file__).parents[2] / "docs" / "attack.md").read_text(encoding="utf-8")
    (code,) = (block for block in page.split("```python\n")[1:] if "class Brightness(" in block)
    exec(code.split("```")[0], {"__name__": "docs"})
    images, labels = near_grey
    upwards = labels == int(linear.w.sum() < 0)  # the class that brightness leads away from
    result = attack(linear, images, labels, attack="brightness", epsilon=0.4)
    assert int(result.broken.sum()) > 20
    assert not result.broken[~upwards].any()
    targeted = attack(linear, images, labels, attack="brightness", epsilon=0.4, target_classes=1 - labels)
    assert torch.equal(targeted.broken, result.broken)


def test_the_names_of_losses_are_those_that_exist():
    assert set(get_args(LossName)) == set(LOSSES)


@pytest.mark.parametrize(
    ("name", "assignments", "expected"),
    [
        ("pgd", ["steps=20", "step_size=2/255"], PGD(steps=20, step_size=2 / 255)),
        (
            "pgd",
            ["random_start = false", "loss=margin", "momentum=1"],
            PGD(random_start=False, loss="margin", momentum=1),
        ),
        ("pgd", ["step_size=none", "steps=7"], PGD(steps=7)),
        ("transforms", ["search=random", "draws=5"], Transforms(search="random", draws=5)),
        ("fgsm", [], FGSM()),
    ],
)
def test_options_from_text(name, assignments, expected):
    assert parse_attack_options(name, assignments) == expected


@pytest.mark.parametrize(
    ("name", "assignment", "message"),
    [
        ("pgd", "steps", "--set: expected field=value, such as steps=20, got 'steps'"),
        (
            "pgd",
            "stepz=3",
            "--set stepz: expected one of steps, step_size, restarts, random_start, momentum, loss "
            "(did you mean steps?) for pgd, got 'stepz=3'",
        ),
        ("fgsm", "steps=3", "--set steps: expected one of loss for fgsm, got 'steps=3'"),
        ("pgd", "steps=2.5", "--set steps: expected a whole number, at least 1, got '2.5'"),
        ("pgd", "steps=0", "--set steps: expected a whole number, at least 1, got '0'"),
        (
            "pgd",
            "step_size=2/0",
            "--set step_size: expected a number or a fraction such as 2/255, above 0, or none, got '2/0'",
        ),
        ("pgd", "random_start=maybe", "--set random_start: expected true or false, got 'maybe'"),
        ("transforms", "search=fast", "--set search: expected one of grid, random, greedy, got 'fast'"),
        ("transforms", "draws=5", "--set draws: expected search=random, or transforms ignores it, got '5'"),
        ("transforms", "depth=3", "--set depth: expected search=greedy, or transforms ignores it, got '3'"),
        ("pdg", "steps=3", "(did you mean pgd?), got 'pdg'"),
        (
            "adaptive",
            "tolerance=1",
            "--set tolerance: expected a number or a fraction such as 2/255, above 0, below 1, got '1'",
        ),
    ],
)
def test_text_that_is_no_option_is_refused_with_the_field_and_what_it_takes(name, assignment, message):
    with pytest.raises(OptionError) as caught:
        parse_attack_options(name, [assignment])
    assert str(caught.value).endswith(message)


def test_restarts_without_a_random_start_repeat_themselves_and_are_refused():
    with pytest.raises(OptionError, match="--set restarts: expected random_start=true, or pgd ignores it, got '3'"):
        parse_attack_options("pgd", ["random_start=false", "restarts=3"])


@pytest.mark.parametrize("name", list_attacks())
def test_options_that_are_shown_can_be_read_back(name):
    changed = {"steps": 7, "loss": "dlr", "step_size": 0.25, "momentum": 0.5, "random_start": False, "search": "greedy"}
    known = list_attacks()[name].options
    for values in ({}, {field: value for field, value in changed.items() if field in known.model_fields}):
        options = find_attack(name, values)
        shown = show_attack_options(options)
        assert find_attack(name, tomllib.loads(shown)) == options
        for field in known.model_fields:
            assert any(line.lstrip("# ").startswith(f"{field} = ") and "; " in line for line in shown.splitlines())


def test_an_option_that_is_none_is_shown_as_a_comment():
    shown = show_attack_options(PGD())
    assert "# step_size = none  # a number or a fraction such as 2/255, above 0, or none; length of a step" in shown


def test_a_plan_turned_to_target_classes_runs_each_method_once():
    plan = find_attack("adaptive").plan(Threat(), classes=10, seed=0)
    turned = plan.targeted()
    assert len(plan.methods) == 13 and plan.optional_from == 4
    assert [method.name for method in turned.methods] == ["apgd-ce", "apgd-t", "square", "fab-t", "square"]
    assert turned.optional_from == 4
    assert {method.loss.__name__ for method in turned.methods} == {
        "targeted_cross_entropy",
        "targeted_dlr",
        "target_lead",
    }
