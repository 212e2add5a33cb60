from __future__ import annotations

import json
import re
from typing import Any

import pytest

from assay.records.checkup import Checkup
from assay.report.ci import render_sarif


@pytest.fixture(scope="module")
def log(checkup: Checkup) -> dict[str, Any]:
    return json.loads(render_sarif(checkup))


def test_the_log_has_what_the_format_requires(log: dict[str, Any]) -> None:
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    assert run["tool"]["driver"]["name"] == "assay"


def test_every_result_points_at_its_rule(log: dict[str, Any], checkup: Checkup) -> None:
    run = log["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    assert len({rule["id"] for rule in rules}) == len(rules)
    assert [rule["id"] for rule in rules] == [verdict.rule for verdict in checkup.verdicts]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["logicalLocations"][0]["fullyQualifiedName"].startswith("resnet20")
    for rule in rules:
        assert rule["help"]["text"]
        assert rule["shortDescription"]["text"]
        assert rule["name"].isalnum()


def test_every_result_is_a_finding(log: dict[str, Any], checkup: Checkup) -> None:
    expected = {"error": ("error", "fail"), "warn": ("warning", "fail")}
    outcomes = [(result["ruleId"], result["level"], result["kind"]) for result in log["runs"][0]["results"]]
    findings = [verdict for verdict in checkup.verdicts if verdict.status in expected]
    assert outcomes == [(verdict.rule, *expected[verdict.status]) for verdict in findings]
    assert {level for _, level, _ in outcomes} == {"error", "warning"}
    assert len(findings) < len(checkup.verdicts)


@pytest.mark.parametrize("which", ["checkup", "hostile", "unmeasured"])
def test_every_result_has_what_code_scanning_pages_ask_for(which: str, request: pytest.FixtureRequest) -> None:
    (run,) = json.loads(render_sarif(request.getfixturevalue(which)))["runs"]
    assert run["tool"]["driver"]["name"]
    marks = []
    for result in run["results"]:
        assert result["level"] in {"error", "warning"}
        (location,) = result["locations"]
        physical = location["physicalLocation"]
        uri = physical["artifactLocation"]["uri"]
        assert uri
        assert not uri.startswith(("/", ".", "file:"))
        assert physical["region"]["startLine"] >= 1
        marks.append(result["partialFingerprints"]["primaryLocationLineHash"])
    assert len(set(marks)) == len(marks)
    assert all(re.fullmatch(r"[0-9a-f]{16}:1", mark) for mark in marks)


def test_what_could_not_run_is_a_notification_and_no_alert(unmeasured: Checkup, log: dict[str, Any]) -> None:
    (run,) = json.loads(render_sarif(unmeasured))["runs"]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    notes = invocation["toolExecutionNotifications"]
    rules = [note["associatedRule"]["id"] for note in notes if "associatedRule" in note and note["level"] == "error"]
    assert rules == [verdict.rule for verdict in unmeasured.verdicts if verdict.status == "could not run"] != []
    assert not {result["ruleId"] for result in run["results"]} & set(rules)
    untold = [verdict.rule for verdict in unmeasured.verdicts if verdict.status == "cannot tell"]
    assert [note["associatedRule"]["id"] for note in notes if note["level"] == "note"] == untold != []
    assert not {result["ruleId"] for result in run["results"]} & set(untold)
    assert log["runs"][0]["invocations"][0]["executionSuccessful"]


def test_a_finding_keeps_its_fingerprint_when_its_number_moves(checkup: Checkup) -> None:
    moved = checkup.verdicts[0].model_copy(update={"measured": "another number", "where": "elsewhere"})
    again = checkup.model_copy(update={"verdicts": (moved, *checkup.verdicts[1:])})
    before, after = (json.loads(render_sarif(document))["runs"][0]["results"] for document in (checkup, again))
    assert [r["partialFingerprints"] for r in before] == [r["partialFingerprints"] for r in after]
    assert len({str(r["partialFingerprints"]) for r in before}) == len(before)


def test_hostile_names_are_inert(hostile: Checkup) -> None:
    text = render_sarif(hostile)
    assert text.isascii()
    message = json.loads(text)["runs"][0]["results"][0]["message"]["text"]
    assert "⟨U+202E⟩" in message
    assert "\u202e" not in message
