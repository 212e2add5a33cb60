"""``assay attack``: options by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assay.attacks.methods import list_attacks


def test_any_option_is_set_by_name_and_shown_without_a_model(assay: Callable[..., Any]) -> None:
    shown = assay("attack", "--attack", "square", "--set", "queries=77", "--show")
    assert shown.code == 0
    assert "queries = 77  # " in shown.out
    assert all(f"{field} = " in shown.out for field in list_attacks()["square"].fields)
    assert "steps = 3  # " in assay("attack", "--steps", "9", "--set", "steps=3", "--show").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "queries=5"), "assay: --set queries: expected one of "),
        (("--set", "steps"), "--set: expected field=value"),
        (("--set", "steps=few"), "assay: --set steps: expected "),
        (("--attack", "fgsm", "--steps", "3"), "assay: --steps: expected one of loss for fgsm"),
        (("--attack", "fgsm", "--restarts", "3"), "assay: --restarts: expected one of loss for fgsm"),
    ],
    ids=str,
)
def test_an_option_that_the_attack_does_not_have_is_refused_by_name(
    words: tuple[str, ...], message: str, assay: Callable[..., Any]
) -> None:
    ended = assay("attack", "mlp", "--data", "digits", *words)
    assert ended.code == 2
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_former_name_of_eot_samples_still_works(assay: Callable[..., Any], tmp_path: Path) -> None:
    command = ("attack", "mlp", "--data", "digits", "--limit", "8", "--steps", "2", "--no-sanity", "--json")
    for flag in ("--eot-samples", "--average"):
        assert assay(*command, tmp_path / f"{flag}.json", flag, "3").code == 0
    costs = [json.loads((tmp_path / f"{flag}.json").read_text())[0]["forward_equivalents"]
             for flag in ("--eot-samples", "--average")]  # fmt: skip
    assert costs[0] == costs[1]
    assert assay(*command, tmp_path / "one.json").code == 0
    assert json.loads((tmp_path / "one.json").read_text())[0]["forward_equivalents"] < costs[0]
