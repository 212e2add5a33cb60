"""``--within`` and what a verb tells of its time before and while it works."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from assay.check import BUDGETS
from assay.check.stages import STAGES
from assay.cli.attack_plan import ATTACK, SANITY, plan_attack
from assay.cli.faults import Tolerant
from assay.cli.progress import StageProgress
from assay.cli.within import STARTED, parse_duration
from assay.errors import OptionError
from assay.records.budget import CheckPlan, PlannedStage
from assay.report.plan_wording import describe_costs, describe_plan
from assay.report.terminal.plan import print_plan
from assay.wording import duration

Run = Callable[..., Any]
NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(1024, 10)).eval()
"""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h30m", 5400), ("1h5s", 3605), ("0.5m", 30), (" 2h ", 7200)]
)
def test_a_time_is_read_in_hours_minutes_and_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(duration(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5x", "5m3", "-5m", "0s", "1.2.3s", "nan", "5 m", "30s5m", "9999999h"])
def test_what_is_no_time_is_one_line(text: str, assay: Run) -> None:
    with pytest.raises(OptionError):
        parse_duration(text)
    ended = assay("check", f"--within={text}")
    assert ended.code == 2
    assert ended.err == f"assay: --within: expected a time such as 90s, 5m or 1h30m, got {text!r}\n"


def test_a_time_and_a_budget_exclude_each_other(assay: Run, tmp_path: Path) -> None:
    ended = assay("check", "--within", "5m", "--budget", "quick")
    assert (ended.code, ended.err) == (2, "assay: --within: expected either it or --budget, got both\n")
    ended = assay("check", "--budget-of", tmp_path, "--budget", "quick")
    assert (ended.code, ended.err) == (2, "assay: --budget-of: expected either it or --budget, got both\n")
    ended = assay("check", "--budget-of", tmp_path)
    assert ended.code == 2
    assert "check.json: expected a check.json, got no such file or directory" in ended.err


def check(assay: Run, folder: Path, out: str, *options: object) -> tuple[Any, dict[str, Any]]:
    net = f"{folder / 'net.py'}:net"
    ended = assay("check", net, "--data", "digits", "--fail-on", "never", "--out", folder / out, *options)
    return ended, json.loads((folder / out / "check.json").read_text())


def test_a_planned_check_prints_its_plan_and_can_be_repeated(assay: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    ended, document = check(assay, tmp_path, "planned", "--within", "10000h", "--limit", "8")
    assert ended.code == 0
    lines = ended.err.splitlines()
    assert any(line.startswith("within 10000h: ") and "planned, PGD of 50 steps" in line for line in lines)
    assert any(line.split()[:2] == ["attacks", "8"] for line in lines)
    assert any(line.startswith(f"1/{len(STAGES)} mode audit: ") for line in lines)
    assert document["budget"] == "within 10000h"
    assert document["plan"]["budget"]["samples"]["attacks"] == 8
    page = (tmp_path / "planned" / "report.html").read_text()
    assert "What each stage was given within 10000h" in page


def test_a_budget_says_how_long_it_will_take(assay: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    budget = BUDGETS["quick"].model_copy(
        update={"name": "small", "steps": 2, "sanity_queries": 2, "samples": {"attack sanity": 2, "attacks": 5}}
    )
    ended, document = check(assay, tmp_path, "once", "--budget", "quick", "--limit", "4")
    assert any(line.startswith("quick: about ") for line in ended.err.splitlines())
    assert document["plan"]["budget"] == BUDGETS["quick"].model_dump()
    document["plan"]["budget"] = budget.model_dump()
    (tmp_path / "once" / "check.json").write_text(json.dumps(document))
    ended, again = check(assay, tmp_path, "again", "--budget-of", tmp_path / "once", "--limit", "6")
    assert again["plan"]["budget"] == budget.model_dump()
    sizes = {record["kind"]: record["n"] for record in again["records"] if "n" in record}
    assert (sizes["robust_accuracy"], sizes["attack_sanity"]) == (5, 2)


PLAN = CheckPlan(
    budget=BUDGETS["quick"].model_copy(update={"name": "within 2m"}),
    within=120,
    reserved=20,
    before=5,
    stages=(
        PlannedStage(name="anatomy", seconds=1),
        PlannedStage(name="attacks", seconds=60, samples=180, usual=1000, interval=True),
        PlannedStage(name="gradient flow", seconds=4, samples=100, usual=256),
        PlannedStage(name="invariance", seconds=30, samples=256, usual=256, interval=True),
        PlannedStage(name="attack sanity", seconds=0, samples=0, usual=64, interval=True),
    ),
)


def printed(print_to: Callable[[Console], None], **options: Any) -> str:
    stream = io.StringIO()
    print_to(Console(file=stream, width=100, **options))
    return stream.getvalue()


def test_the_plan_names_images_time_and_interval_of_every_stage() -> None:
    lines = printed(lambda console: print_plan(PLAN, console)).splitlines()
    assert lines[0] == "within 2m: 2m planned, PGD of 10 steps"
    cells = {line.split("  ")[0]: line.split() for line in lines[2:]}
    assert cells["attacks"] == ["attacks", "180", "of", "1,000", "60s", "±7.2", "±3.1"] or cells["attacks"][4] == "1m"
    assert cells["attack sanity"][2:] == ["left", "out", "–", "±11.9"]
    assert cells["invariance"][1] == "256"
    assert "exit code 4" in lines[-1]


def test_what_a_shorter_time_costs_is_told_in_the_width_of_the_interval() -> None:
    assert list(describe_costs(PLAN)) == [
        "attacks: 180 of 1,000 images, ±7.2 points instead of ±3.1",
        "gradient flow: 100 of 256 images",
        "attack sanity: left out",
    ]


def test_without_a_time_one_line_tells_the_longest_stages() -> None:
    plan = PLAN.model_copy(update={"within": None, "budget": BUDGETS["quick"]})
    assert describe_plan(plan) == "quick: about 2m (attacks 1m, invariance 30s, gradient flow 4s)"
    assert printed(lambda console: print_plan(plan, console)).count("\n") == 1


def test_a_log_has_a_line_for_every_stage_with_the_time_left() -> None:
    def follow(console: Console) -> None:
        with StageProgress(console) as progress:
            for number, name in enumerate(("anatomy", "attacks", "gradient flow")):
                progress.plan(PLAN)
                progress.show(name, number, 3)

    text = printed(follow).replace("\u00a0", " ")
    lines = [line for line in text.splitlines() if line[0].isdigit() or line.startswith("gradient flow: ")]
    assert lines[0].startswith("1/3 anatomy: 0 ms, about 1m35s left")
    assert lines[1].startswith("2/3 attacks: 0 ms, about 35s left")
    assert lines[2] == "gradient flow: 0 ms"


def test_a_terminal_has_one_moving_line_with_the_time_left() -> None:
    def follow(console: Console) -> None:
        with StageProgress(console) as progress:
            progress.plan(PLAN)
            progress.show("attacks", 1, 5)
            progress._bar.refresh()

    text = printed(follow, force_terminal=True)
    assert "about 1m35s left" in text or "about 1m30s left" in text
    assert "attacks: " in text, "a stage that has ended keeps its line"


class Simulated:
    """A clock for all that asks for the time, and measurements that only take some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = STARTED
        self.ran: list[tuple[str, int]] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def costing(self, name: str, *, fixed: float, each: float, later: float = 1.0) -> Callable[[int], None]:
        """``later`` times as long an image beyond the first 32."""

        def run(n: int) -> None:
            self.now += fixed + each * min(n, 32) + later * each * max(0, n - 32)
            self.ran.append((name, n))

        return run


@pytest.mark.parametrize("later", [1 / 3, 1.0, 3.0])
def test_an_attack_keeps_to_its_time_where_its_cost_is_misjudged(monkeypatch: pytest.MonkeyPatch, later: float) -> None:
    clock = Simulated(monkeypatch)
    attack = clock.costing(ATTACK, fixed=0.5, each=0.05, later=later)
    sanity = clock.costing(SANITY, fixed=1.0, each=0.3)
    clock.now += 7  # opening
    plan = plan_attack({ATTACK: attack, SANITY: sanity}, {ATTACK: 10_000, SANITY: 100}, within=120)
    sanity(plan.give()[SANITY])
    attack(plan.give_attack(attack))
    assert 102 <= clock.now - STARTED <= 138
    assert clock.ran[-1][1] > 200


def test_all_images_are_attacked_where_there_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Simulated(monkeypatch)
    plan = plan_attack({ATTACK: clock.costing(ATTACK, fixed=0.1, each=0.001)}, {ATTACK: 500}, within=60)
    assert plan.give() == {ATTACK: 500}
    assert plan.give_attack(clock.costing(ATTACK, fixed=0.1, each=0.001)) == 500


def test_an_attack_is_planned_and_what_has_no_time_is_told(assay: Run, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    net = ("attack", f"{tmp_path / 'net.py'}:net", "--data", "digits", "--limit", 40)
    ended = assay(*net, "--within", "10h", "--no-sanity", "--json", tmp_path / "long.json")
    assert ended.code == 0
    assert "attack: 40 images, about " in ended.err
    assert json.loads((tmp_path / "long.json").read_text())[0]["n"] == 40
    ended = assay(*net, "--within", "0.001s", "--json", tmp_path / "short.json")
    assert ended.code == 4
    assert "could not run: attack sanity: no time for as many images as tell something" in ended.err
    records = json.loads((tmp_path / "short.json").read_text())
    assert records[0]["n"] == 1
    assert records[-1]["kind"] == "failed_measurement"
    ended = assay(*net, "--within", "5m", "--out", tmp_path / "out")
    assert ended.code == 2
    assert ended.err == "assay: --within: expected a run without --out, which --stop-at ends early, got both\n"


def test_claims_end_in_time_and_tell_what_was_not_measured(assay: Run, tmp_path: Path) -> None:
    ended = assay("claims", "residual-depth", "--budget", "full", "--within", "9s", "--out", tmp_path)
    assert ended.code == 4
    assert any(line.startswith("within 9s: what is not measured in ") for line in ended.err.splitlines())
    report = json.loads((tmp_path / "claims.json").read_text())
    assert [failed["id"] for failed in report["failed"]] == ["residual-depth"]


def test_networks_are_compared_on_as_many_images_as_the_time_leaves(assay: Run, tmp_path: Path) -> None:
    options = ("--data", "digits", "--calibration", "32", "--max-drop", "99", "--batch", "8", "--curve", "none")
    ended = assay("compress", "mlp", *options, "--within", "10h", "--out", tmp_path / "long")
    assert ended.code == 0
    report = json.loads((tmp_path / "long" / "compression.json").read_text())
    assert report["after"]["clean"]["n"] == report["after"]["robust"]["n"] == 359
    ended = assay("compress", "mlp", *options, "--within", "0.001s", "--out", tmp_path / "short")
    assert ended.code == 4
    report = json.loads((tmp_path / "short" / "compression.json").read_text())
    assert report["after"]["clean"]["n"] == report["before"]["clean"]["n"] == 100
    assert report["after"]["robust"] is None
    assert any("tested on 100 of 359 images (±9.6 points); no time to attack" in note for note in report["notes"])
    assert "tested on 100 of 359 images" in ended.err


def test_something_appears_on_a_terminal_before_anything_is_loaded(
    assay: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    line = "opening the model and the data"
    assert line not in assay("check", "no-such-net", "--data", "digits", "--out", tmp_path).err
    monkeypatch.setattr(Tolerant, "isatty", lambda self: True, raising=False)
    assert assay("check", "no-such-net", "--data", "digits", "--out", tmp_path).err.splitlines()[0].count(line) == 1
    assert line not in assay("claims", "--list").err
