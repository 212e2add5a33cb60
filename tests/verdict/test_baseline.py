"""Accepted findings: shown, not failing; worse, expired and vanished ones are named."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.errors import InputError, OptionError
from assay.records.base import Environment
from assay.records.checkup import Checkup, Subject
from assay.records.finding import Acceptance, Baseline, Verdict
from assay.records.reading import read_baseline
from assay.report.check_page import render_page
from assay.report.ci import render_junit, render_sarif
from assay.verdict import RULES
from assay.verdict.baseline import accept_findings, apply_baseline

TODAY = date(2026, 6, 1)


def checkup(**statuses: str) -> Checkup:
    verdicts = tuple(
        Verdict(
            rule=rule, status=status, category="accuracy", claim="It holds", measured="3", threshold="2", value=3.0,
            why="w", fix="f", reference="r", evidence=("clean_accuracy",),
        )
        for rule, status in statuses.items()
    )  # fmt: skip
    return Checkup(
        subject=Subject(
            model="net.py:make", weights=None, data="d", split="test", n=1, available=1, classes=("a", "b"),
            image_shape=(1, 2, 2),
        ),
        budget="quick", seed=0, started="2026-06-01T00:00:00+00:00", seconds=1.0,
        environment=Environment(
            assay="0", python="3", torch="2", numpy="2", platform="p", processor="p", cores=1, threads=1, device="cpu",
            memory_gib=1.0,
        ),
        stages=(), records=(), verdicts=verdicts,
    )  # fmt: skip


def entry(rule: str, status: str = "error", expires: date | None = None) -> Acceptance:
    return Acceptance(rule=rule, status=status, reason="known", accepted=date(2026, 1, 1), expires=expires)


@pytest.mark.parametrize(
    ("now", "accepted", "fails", "because"),
    [
        ("error", entry("A101"), False, None),
        ("warn", entry("A101"), False, None),
        ("warn", entry("A101", "warn"), False, None),
        ("error", entry("A101", "warn"), True, "a warning was accepted, it is an error now"),
        ("error", entry("A101", expires=TODAY), False, None),
        ("error", entry("A101", expires=date(2026, 5, 31)), True, "expired on 2026-05-31"),
        ("pass", entry("A101"), False, "the rule passes now: remove the entry"),
        ("not run", entry("A101"), False, None),
        ("error", entry("A777"), True, "no rule has this id"),
    ],
    ids=["accepted", "better", "warned", "worse", "last day", "expired", "holds", "not run", "unknown"],
)
def test_an_entry_covers_what_was_accepted_and_no_more(
    now: str, accepted: Acceptance, fails: bool, because: str | None
) -> None:
    found = apply_baseline(checkup(A101=now), Baseline(accepted=(accepted,)), today=TODAY)
    assert found.verdicts[0].fails("warn") == fails
    assert [each.because for each in found.outdated] == ([because] if because else [])
    assert Checkup.model_validate_json(found.model_dump_json()) == found.model_copy()


def test_a_second_baseline_takes_the_place_of_the_first() -> None:
    accepted = apply_baseline(checkup(A101="error"), Baseline(accepted=(entry("A101"),)), today=TODAY)
    assert apply_baseline(accepted, Baseline(), today=TODAY) == checkup(A101="error")


def test_accepting_keeps_other_entries_and_replaces_its_own() -> None:
    before = Baseline(accepted=(entry("A102"), entry("A101", "warn")))
    after = accept_findings(
        checkup(A101="error", A102="pass"), before, rules=["A101"], reason=" later ", expires=None, today=TODAY
    )
    assert [(each.rule, each.status, each.reason) for each in after.accepted] == [
        ("A101", "error", "later"),
        ("A102", "error", "known"),
    ]


@pytest.mark.parametrize(
    ("rules", "reason", "expires", "message"),
    [
        (["A102"], "r", None, r"A102: expected a finding of this check \(A101\), got a verdict of status 'pass'"),
        (["A103"], "r", None, "A103: .*got no verdict of this check"),
        (["A101"], " ", None, "--reason: expected why the finding is accepted, got nothing"),
        (["A101"], "r", date(2020, 1, 1), "--expires: expected a day that is not past, got 2020-01-01"),
    ],
)
def test_what_cannot_be_accepted(rules: list[str], reason: str, expires: date | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        accept_findings(
            checkup(A101="error", A102="pass"), Baseline(), rules=rules, reason=reason, expires=expires, today=TODAY
        )


def test_every_form_shows_an_accepted_finding_and_does_not_fail_by_it() -> None:
    accepted = Acceptance(rule="A101", status="error", reason="<b>known</b>", accepted=TODAY)
    found = apply_baseline(
        checkup(A101="error", A102="error"), Baseline(accepted=(accepted, entry("A103"))), today=TODAY
    )
    suites = ElementTree.fromstring(render_junit(found))
    assert (suites.get("failures"), suites.get("skipped")) == ("1", "1")
    assert "accepted: <b>known</b>" in next(suites.iter("skipped")).get("message", "")
    assert ElementTree.fromstring(render_junit(found, fail_on="never")).get("failures") == "0"
    first, second = json.loads(render_sarif(found))["runs"][0]["results"]
    assert first["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "<b>known</b>"}]
    assert "suppressions" not in second
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "net.py"
    page = render_page(found)
    assert "&lt;b&gt;known&lt;/b&gt;" in page
    assert "accepted on 2026-06-01" in page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "check.json").write_text(checkup(A101="error", A102="warn", A103="pass").model_dump_json())
    return tmp_path


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_writes_a_file_that_people_can_read(folder: Path) -> None:
    path = folder / "accepted.json"
    run("accept", folder, "a101", "--reason", "legacy", "--expires", "2999-01-31", "--baseline", path)
    assert [(e.rule, e.expires) for e in read_baseline(path).accepted] == [("A101", date(2999, 1, 31))]
    run("accept", folder, "--all", "--reason", "both", "--baseline", path)
    assert [(e.rule, e.reason) for e in read_baseline(path).accepted] == [("A101", "both"), ("A102", "both")]
    assert '"reason": "both"' in path.read_text()
    assert "accepted" in run("report", folder, "--format", "text", "--baseline", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A101", "--reason", "r", "--expires", "soon"], "--expires: expected a day such as 2027-01-31, got soon"),
        (["--reason", "r"], "RULE: expected rules such as A202, or --all, got neither"),
        (["A101", "--all", "--reason", "r"], "RULE: expected rules such as A202, or --all, got both"),
    ],
)
def test_wrong_arguments_write_nothing(folder: Path, arguments: list[str], message: str) -> None:
    with pytest.raises((InputError, OptionError), match=message):
        run("accept", folder, *arguments, "--baseline", folder / "accepted.json")
    assert [path.name for path in folder.iterdir()] == ["check.json"]


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "baseline"}', '{"kind": "baseline", "schema_version": 2}'])
def test_a_broken_baseline_is_one_line(folder: Path, text: str) -> None:
    (folder / "accepted.json").write_text(text)
    with pytest.raises(InputError, match="accepted.json"):
        run("report", folder, "--format", "text", "--baseline", folder / "accepted.json")


RELEASED = (
    "A101 A102 A103 A104 A105 A201 A202 A203 A204 A205 A206 A301 A302 A303 A401 A402 A403 A404 A411 A412 A413 A414 "
    "A415 A416 A501 A502 A503 A504 A505 A511 A512 A513 A601 A602"
)


def test_rule_ids_are_kept_for_ever() -> None:
    ids = [rule.id for rule in RULES]
    assert len(set(ids)) == len(ids)
    assert set(RELEASED.split()) <= set(ids)
