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
    undecided = statuses.count("not run") + statuses.count("cannot tell")
    assert failures > 0
    assert statuses.count("cannot tell") > 0
    assert len(root.findall(".//testcase")) == int(root.attrib["tests"]) == len(statuses)
    assert len(root.findall(".//failure")) == int(root.attrib["failures"]) == failures
    assert len(root.findall(".//skipped")) == int(root.attrib["skipped"]) == undecided
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


def test_what_could_not_run_is_an_error(unmeasured: Checkup) -> None:
    root = ElementTree.fromstring(render_junit(unmeasured, fail_on="never"))
    missing = [verdict.rule for verdict in unmeasured.verdicts if verdict.status == "could not run"]
    cases = [case for case in root.iter("testcase") if case.find("error") is not None]
    # the rules, and the failed measurement on which none of them rests
    assert [case.attrib["name"][:4] for case in cases if case.attrib["name"].startswith("A")] == sorted(missing)
    assert [case.attrib["name"] for case in cases][len(missing) :] == ["anatomy"]
    assert int(root.attrib["errors"]) == len(cases) == sum(int(suite.attrib["errors"]) for suite in root)
    assert (
        int(root.attrib["tests"]) == len(unmeasured.verdicts) + 1 == sum(int(suite.attrib["tests"]) for suite in root)
    )
    assert all("no gradient" in case.find("error").attrib["message"] for case in cases)
    assert all("mend the model" in (case.find("error").text or "") for case in cases)


def test_no_verdicts_make_an_empty_document(bare: Checkup) -> None:
    root = ElementTree.fromstring(render_junit(bare))
    assert root.attrib["tests"] == "0"
    assert len(root) == 0
