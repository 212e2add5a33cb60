from __future__ import annotations

import json
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
    assert [result["ruleId"] for result in run["results"]] == [verdict.rule for verdict in checkup.verdicts]
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
        (location,) = result["locations"]
        assert location["logicalLocations"][0]["fullyQualifiedName"].startswith("resnet20")
    for rule in rules:
        assert rule["help"]["text"]
        assert rule["shortDescription"]["text"]
        assert rule["name"].isalnum()


def test_levels_follow_the_statuses(log: dict[str, Any], checkup: Checkup) -> None:
    expected = {
        "error": ("error", "fail"),
        "warn": ("warning", "fail"),
        "pass": ("none", "pass"),
        "not run": ("none", "notApplicable"),
    }
    outcomes = [(result["level"], result["kind"]) for result in log["runs"][0]["results"]]
    assert outcomes == [expected[verdict.status] for verdict in checkup.verdicts]
    assert len(set(outcomes)) == 4


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
