from __future__ import annotations

from xml.etree import ElementTree

import pytest

from assay.records.checkup import Checkup
from assay.report.ci import render_junit


@pytest.mark.parametrize(("fail_on", "failing"), [("error", {"error"}), ("warn", {"error", "warn"})])
def test_counts_agree_with_the_verdicts(checkup: Checkup, fail_on: str, failing: set[str]) -> None:
    root = ElementTree.fromstring(render_junit(checkup, fail_on=fail_on))
    statuses = [verdict.status for verdict in checkup.verdicts]
    failures = sum(status in failing for status in statuses)
    assert failures > 0
    assert len(root.findall(".//testcase")) == int(root.attrib["tests"]) == len(statuses)
    assert len(root.findall(".//failure")) == int(root.attrib["failures"]) == failures
    assert len(root.findall(".//skipped")) == int(root.attrib["skipped"]) == statuses.count("not run")
    for suite in root.findall("testsuite"):
        assert int(suite.attrib["tests"]) == len(suite.findall("testcase"))
        assert int(suite.attrib["failures"]) == len(suite.findall("testcase/failure"))


def test_a_failure_tells_the_number_and_the_fix(checkup: Checkup) -> None:
    root = ElementTree.fromstring(render_junit(checkup))
    verdict = next(verdict for verdict in checkup.verdicts if verdict.status == "error")
    (case,) = (case for case in root.iter("testcase") if case.attrib["name"].startswith(verdict.rule))
    failure = case.find("failure")
    assert failure is not None
    assert verdict.measured in failure.attrib["message"]
    assert verdict.fix in (failure.text or "")


def test_hostile_names_survive_as_text(hostile: Checkup) -> None:
    root = ElementTree.fromstring(render_junit(hostile))
    (failure,) = root.iter("failure")
    assert "<script>alert(1)</script>⟨U+202E⟩" in (failure.text or "")


def test_no_verdicts_make_an_empty_document(bare: Checkup) -> None:
    root = ElementTree.fromstring(render_junit(bare))
    assert root.attrib["tests"] == "0"
    assert len(root) == 0
