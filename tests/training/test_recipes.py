"""Recipes: read, overridden, printed, and refused with the field that is wrong."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from assay.data.sequences import SYNTHETIC_TASKS
from assay.errors import OptionError, UnusedOptionError
from assay.training.recipes import Recipe, load_recipe, recipe_names
from assay.training.sections import SEQUENCE_TASKS


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_is_valid_and_survives_printing(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert Recipe.parse(tomllib.loads(recipe.to_toml())) == recipe
    assert Recipe.parse(recipe.model_dump()) == recipe
    assert Recipe.parse_saved(json.loads(recipe.model_dump_json())) == recipe


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
    "no number": ("optimizer.lr=fast", r"^--set optimizer\.lr: expected a valid number.*got 'fast'"),
    "out of range": ("optimizer.lr=-1", r"^--set optimizer\.lr: expected greater than 0, got -1$"),
    "in a list": (
        "schedule.name=multistep schedule.milestones=[0.5,2]",
        r"^--set schedule\.milestones\.1: expected less",
    ),
    "unknown field": (
        "optimizer.speed=1",
        r"^--set optimizer\.speed: not an option of sgd \(it has lr, weight_decay, decay_roles, norm_lr_factor, "
        r"momentum, nesterov\)$",
    ),
    "unknown section": ("optimiser.lr=1", r"^--set optimiser\.lr: expected no option of this name"),
    "unknown choice": (
        "schedule.name=steep",
        r"^--set schedule\.name: expected 'constant', 'cosine', 'linear', 'triangular' or 'multistep', got 'steep'$",
    ),
    "no choice at all": ("schedule.name=3", r"^--set schedule\.name: expected 'constant'.* got 3$"),
    "section that is none": ("schedule=3", r"^--set schedule: expected a valid dictionary.*, got 3$"),
    "choice without its option": (
        "augment.name=policy",
        r"recipe digits: augment\.policy: expected a value, got nothing",
    ),
    "no equals sign": ("epochs", r"--set: expected key=value.*got epochs"),
    "no key": ("=3", r"--set: expected key=value.*got =3"),
    "not a section": ("epochs.lr=1", r"--set: expected epochs to be a section"),
    "not finite": ("optimizer.lr=inf", r"optimizer\.lr: expected a finite number, got inf"),
    "a stage that never begins": ("resolution=[[0.0, 16], [1.0, 32]]", r"resolution: expected stages .* below 1"),
    "two stages at once": ("resolution=[[0.0, 16], [0.0, 32]]", r"resolution: expected stages that begin at different"),
    "a milestone at the end": (
        "schedule.name=multistep schedule.milestones=[1.0]",
        r"^--set schedule\.milestones\.0: expected less than 1, got 1\.0$",
    ),
    "a factor of one": (
        "schedule.name=multistep schedule.milestones=[0.5] schedule.gamma=1",
        r"^--set schedule\.gamma: expected less than 1, got 1$",
    ),
    "moments that never form": (
        "optimizer.name=adamw optimizer.betas=[0.9,1]",
        r"^--set optimizer\.betas\.1: expected less than 1, got 1$",
    ),
    "no ball to project onto": (
        "adversary.name=pgd adversary.epsilon=0",
        r"^--set adversary\.epsilon: expected greater than 0, got 0$",
    ),
    "batches that do not divide": (
        "micro_batch=7",
        r"micro_batch: expected a number that divides the batch_size, 64, got 7$",
    ),
}


@pytest.mark.parametrize(("override", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_override_names_the_field(override: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        load_recipe("digits", overrides=override.split() if "name" in override else [override])


NOT_AN_OPTION = {
    "betas of sgd": ("digits", ["optimizer.betas=[0.9, 0.99]"], "optimizer.betas", "sgd", "adamw has it"),
    "momentum of adamw": (
        "adding-lstm", ["optimizer.momentum=0.5"], "optimizer.momentum", "adamw", "sgd and muon have it",
    ),
    "unit norm of sgd": ("digits", ["optimizer.unit_norm=true"], "optimizer.unit_norm", "sgd", "muon has it"),
    "betas of muon": ("robust", ["optimizer.betas=[0.9, 0.99]"], "optimizer.betas", "muon", "adamw has it"),
    "warm-up of a triangle": (
        "digits", ["schedule.warmup=0.1"], "schedule.warmup", "triangular",
        "constant, cosine, linear and multistep have it",
    ),
    "milestones of a cosine": (
        "resnet18", ["schedule.milestones=[0.5]"], "schedule.milestones", "cosine", "multistep has it",
    ),
    "final of a constant": (
        "digits", ["schedule.name=constant", "schedule.final=0.1"], "schedule.final", "constant",
        "cosine, linear and triangular have it",
    ),
    "padding of a policy": (
        "digits", ["augment.name=policy", "augment.policy=flip()", "augment.padding=2"], "augment.padding", "policy",
        "flip-crop and alternating have it",
    ),
    "policy of flip-crop": ("resnet18", ["augment.policy=flip()"], "augment.policy", "flip-crop", "policy has it"),
    "limit of no clipping": ("digits", ["clip.limit=1.0"], "clip.limit", "none", "norm, value and adaptive have it"),
    "alpha of no mixing": ("digits", ["mix.alpha=0.2"], "mix.alpha", "none", "mixup and cutmix have it"),
    "steps of n-fgsm": ("robust", ["adversary.steps=3"], "adversary.steps", "n-fgsm", "pgd has it"),
    "noise of pgd": ("robust", ["adversary.name=pgd", "adversary.noise=2"], "adversary.noise", "pgd", "n-fgsm has it"),
    "epsilon of no adversary": (
        "digits", ["adversary.epsilon=0.1"], "adversary.epsilon", "none", "n-fgsm and pgd have it",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "overrides", "option", "chosen", "holders"), NOT_AN_OPTION.values(), ids=NOT_AN_OPTION
)
def test_an_option_that_the_choice_does_not_have_is_refused(
    name: str, overrides: list[str], option: str, chosen: str, holders: str
) -> None:
    with pytest.raises(UnusedOptionError) as caught:
        load_recipe(name, overrides=overrides)
    message = str(caught.value)
    assert message.startswith(f"--set {option}: not an option of {chosen} (it has ")
    assert message.endswith(f"); {holders}")


NO_EFFECT = {
    "nesterov": ("digits", ["optimizer.momentum=0", "optimizer.nesterov=true"], "momentum is 0"),
    "nesterov of muon": (
        "robust",
        ["optimizer.momentum=0", "optimizer.side_momentum=0", "optimizer.nesterov=true"],
        "momentum is 0 and side_momentum is 0",
    ),
    "decay roles": (
        "digits", ["optimizer.weight_decay=0", 'optimizer.decay_roles=["weight"]'], "weight_decay is 0",
    ),
    "gamma": ("digits", ["schedule.name=multistep", "schedule.gamma=0.5"], "milestones is empty"),
    "average.every": ("digits", ["average.every=2"], "decay is 0"),
    "fallback steps": ("robust", ["adversary.watch=0", "adversary.fallback_steps=3"], "watch is 0"),
    "gap": ("robust", ["adversary.watch=0", "adversary.gap=0.5"], "watch is 0"),
    "prune.start": ("digits", ["prune.start=0.5"], "share is 0"),
    "prune.end": ("digits", ["prune.end=0.9"], "share is 0"),
    "shrink": ("digits", ["shrink=resize"], "resolution is empty"),
    "a micro-batch of the whole batch": ("digits", ["micro_batch=64"], "batch_size is 64"),
    "a micro-batch beyond it": ("resnet18", ["micro_batch=512"], "batch_size is 128"),
    "mixing of single samples": (
        "digits", ["micro_batch=1", "mix.name=cutmix"], "samples pass through the network one by one",
    ),
    "a sequence of images": ("digits", ["sequence.length=50"], "data is digits"),
    "a sequence read from images": ("digits-rows-lstm", ["sequence.samples=50"], "data is digits"),
    "views": ("adding-lstm", ["test_views=2"], "data is adding, a task of sequences"),
    "label smoothing": ("copy-lstm", ["label_smoothing=0.1"], "data is copy, a task of sequences"),
    "batch statistics": ("adding-lstm", ["refresh_batchnorm=100"], "data is adding, a task of sequences"),
    "augmentation": ("adding-lstm", ["augment.name=flip-crop"], "data is adding, a task of sequences"),
    "pruning": ("adding-lstm", ["prune.share=0.2"], "data is adding, a task of sequences"),
    "an adversary": ("adding-lstm", ["adversary.name=pgd"], "data is adding, a task of sequences"),
    "mixing": ("adding-lstm", ["mix.name=mixup"], "data is adding, a task of sequences"),
    "stages": ("adding-lstm", ["resolution=[[0.0, 16]]"], "data is adding, a task of sequences"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "overrides", "reason"), NO_EFFECT.values(), ids=NO_EFFECT)
def test_an_option_that_another_turns_off_is_refused(name: str, overrides: list[str], reason: str) -> None:
    option = overrides[-1].partition("=")[0]
    with pytest.raises(UnusedOptionError, match=rf"^--set {re.escape(option)}: no effect while {re.escape(reason)}$"):
        load_recipe(name, overrides=overrides)


def test_options_of_the_file_give_way_to_an_override_that_turns_them_off() -> None:
    constant = load_recipe("digits", overrides=["schedule.name=constant"])
    assert constant.schedule.model_dump() == {"name": "constant", "warmup": 0.0}
    unwatched = load_recipe("robust", overrides=["adversary.watch=0"])
    assert "gap" not in unwatched.to_toml()
    adamw = load_recipe("cifar10-fast", overrides=["optimizer.name=adamw"])
    assert (adamw.optimizer.lr, adamw.optimizer.norm_lr_factor) == (0.12, 64)


def test_a_file_is_held_to_its_choices_as_well(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[optimizer]\nbetas = [0.9, 0.999]\n')
    with pytest.raises(
        UnusedOptionError, match=r"mine\.toml: optimizer\.betas: not an option of sgd .*; adamw has it$"
    ):
        load_recipe(path)
    path.write_text('name = "mine"\ndata = "cifar10"\n[sequence]\nlength = 5\n')
    with pytest.raises(UnusedOptionError, match=r"mine\.toml: sequence\.length: no effect while data is cifar10$"):
        load_recipe(path)


def test_only_options_that_act_are_printed() -> None:
    values = tomllib.loads(load_recipe("digits").to_toml())
    assert values["schedule"] == {"name": "triangular", "peak": 0.2, "start": 0.2, "final": 0.0}
    assert values["clip"] == values["mix"] == values["adversary"] == {"name": "none"}
    assert (values["average"], values["prune"]) == ({"decay": 0.0}, {"share": 0.0})
    assert values.keys().isdisjoint({"shrink", "sequence"})
    adding = tomllib.loads(load_recipe("adding-lstm").to_toml())
    assert adding["sequence"]["length"] == 100
    assert adding["augment"] == {"name": "none"}
    assert adding.keys().isdisjoint({"label_smoothing", "test_views", "mix", "adversary", "prune", "resolution"})


def test_recipes_are_read_without_torch_and_know_the_tasks_of_sequences() -> None:
    assert SEQUENCE_TASKS == SYNTHETIC_TASKS
    code = "import sys, assay; assay.load_recipe('adding-lstm'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


FORMER = Path(__file__).parent / "former_run"


def former_recipe() -> dict[str, Any]:
    return dict(json.loads((FORMER / "config.json").read_text())["recipe"])


def former_toml(values: dict[str, Any]) -> str:
    lines = {key: json.dumps(value) for key, value in values.items() if not isinstance(value, dict | None)}
    sections = {key: value for key, value in values.items() if isinstance(value, dict)}
    text = "\n".join(f"{key} = {value}" for key, value in lines.items())
    for key, section in sections.items():
        text += f"\n[{key}]\n" + "\n".join(f"{name} = {json.dumps(value)}" for name, value in section.items())
    return text


def test_a_recipe_of_the_former_form_is_read_from_a_run_folder_and_from_a_file(tmp_path: Path) -> None:
    values = former_recipe()
    assert values["optimizer"].keys() >= {"betas", "side_lr", "unit_norm"}
    expected = load_recipe("digits", overrides=["epochs=1", "model_options.widths=[4, 4, 4]"])
    assert Recipe.parse_saved(values) == expected
    (tmp_path / "former.toml").write_text(former_toml(values))
    assert load_recipe(tmp_path / "former.toml") == expected
    assert load_recipe(tmp_path / "former.toml", overrides=["optimizer.name=adamw"]).optimizer.name == "adamw"
    with pytest.raises(UnusedOptionError, match=r"^--set optimizer\.betas: not an option of sgd"):
        load_recipe(tmp_path / "former.toml", overrides=["optimizer.betas=[0.9, 0.999]"])


def test_a_former_option_without_effect_that_differs_from_its_default_is_refused(tmp_path: Path) -> None:
    values = former_recipe()
    values["optimizer"]["side_lr"] = 0.3
    with pytest.raises(UnusedOptionError, match=r"^config: optimizer\.side_lr: not an option of sgd .*; muon has it$"):
        Recipe.parse_saved(values, where="config")
    values = former_recipe()
    values["average"]["every"] = 3
    (tmp_path / "former.toml").write_text(former_toml(values))
    with pytest.raises(UnusedOptionError, match=r"former\.toml: average\.every: no effect while decay is 0$"):
        load_recipe(tmp_path / "former.toml")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"^recipe: expected one of .*digits.*, or a \.toml file, got digit$"):
        load_recipe("digit")


def test_a_missing_or_torn_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"^recipe: expected a readable file .*none\.toml"):
        load_recipe(tmp_path / "none.toml")
    (tmp_path / "torn.toml").write_text("epochs = [1")
    with pytest.raises(OptionError, match=r"torn\.toml: expected a TOML file, got"):
        load_recipe(tmp_path / "torn.toml")
