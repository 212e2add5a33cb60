"""Recipes: read, overridden, printed, and refused with the field that is wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from assay.errors import OptionError
from assay.training.recipes import Recipe, load_recipe, recipe_names


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_and_survives_printing(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert Recipe.parse(tomllib.loads(recipe.to_toml())) == recipe


def test_overrides_reach_sections_and_keep_the_rest() -> None:
    plain = load_recipe("digits")
    changed = load_recipe("digits", overrides=["optimizer.lr=0.5", "epochs = 3", "schedule.name=cosine"])
    assert (changed.optimizer.lr, changed.epochs, changed.schedule.name) == (0.5, 3, "cosine")
    assert changed.optimizer.momentum == plain.optimizer.momentum


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nepochs = 2\n[optimizer]\nlr = 0.3\n')
    recipe = load_recipe(tmp_path / "mine.toml")
    assert (recipe.name, recipe.epochs, recipe.optimizer.lr) == ("mine", 2, 0.3)


REFUSED = {
    "no number": ("optimizer.lr=fast", r"recipe digits: optimizer\.lr: expected a valid number.*got 'fast'"),
    "out of range": ("optimizer.lr=-1", r"recipe digits: optimizer\.lr: expected greater than 0, got -1"),
    "unknown field": ("optimizer.speed=1", r"recipe digits: optimizer\.speed: expected no option of this name, got 1"),
    "unknown choice": ("schedule.name=steep", r"schedule\.name: expected 'constant'.*got 'steep'"),
    "no equals sign": ("epochs", r"--set: expected key=value.*got epochs"),
    "no key": ("=3", r"--set: expected key=value.*got =3"),
    "not a section": ("epochs.lr=1", r"--set: expected epochs to be a section"),
    "not finite": ("optimizer.lr=inf", r"optimizer\.lr: expected a finite number, got inf"),
    "batches that do not divide": (
        "micro_batch=7",
        r"micro_batch: expected a number that divides the batch_size, 64, got 7$",
    ),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_override_names_the_field(override: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_recipe("digits", overrides=[override])


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"^recipe: expected one of .*digits.*, or a \.toml file, got digit$"):
        load_recipe("digit")


def test_a_missing_or_torn_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^recipe: expected a readable file .*none\.toml"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "torn.toml").write_text("epochs = [1")
    with pytest.raises(OptionError, match=r"torn\.toml: expected a TOML file, got"):
        load_recipe(tmp_path / "torn.toml")
