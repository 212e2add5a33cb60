"""The help of every verb: panels, units and texts, whole at 80 columns."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from assay.cli.main import VERBS, app

NAMES = [verb.__name__ for verbs in VERBS.values() for verb in verbs]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_verbs_are_grouped_by_task() -> None:
    assert sorted(NAMES) == sorted(COMMANDS)
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).output
    assert [panel for panel in re.findall(r"╭─ (.*?) ─", shown) if panel != "Options"] == list(VERBS)
    assert "--install-completion" in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_panel_a_text_and_the_unit_of_its_value(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        if parameter.name == "help":
            continue
        assert parameter.help, parameter.name
        assert "[default" not in parameter.help, f"{parameter.name}: rich takes it for markup"
        if parameter.param_type_name == "option":
            assert parameter.rich_help_panel, parameter.name
            assert parameter.metavar is not None, parameter.name
            assert parameter.is_flag == (parameter.metavar == ""), parameter.name
        else:
            assert parameter.metavar, parameter.name


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_clipped(name: str, columns: int) -> None:
    shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": str(columns)}).output
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…\n" not in re.sub(r"\(resnet20, allcnn, …\)|NAME, …", "", shown)
    words = re.sub(r"[^\w]", "", shown)
    for parameter in COMMANDS[name].params:
        if not getattr(parameter, "hidden", False) and parameter.help:
            assert all(option in shown for option in parameter.opts if option.startswith("--"))
            last = re.sub(r"[^\w]", "", parameter.help.split()[-1])
            assert last in words, parameter.help


def test_inputs_stand_first_and_the_run_last() -> None:
    for name in ("check", "attack", "trace", "look", "compress"):
        panels = list(
            dict.fromkeys(
                p.rich_help_panel for p in COMMANDS[name].params if p.name != "help" and p.param_type_name == "option"
            )
        )
        assert panels[:2] == ["Model", "Data"], name
        assert panels[-1] == "Run", name
