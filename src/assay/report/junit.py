"""JUnit XML: each rule a test case, each category a suite, for the test pages of CI servers."""

from __future__ import annotations

from xml.etree import ElementTree

from assay.records.checkup import Checkup
from assay.records.finding import FailAt, Verdict
from assay.report.summary import CategoryState, states, subject_line
from assay.wording import inert


def render_junit(checkup: Checkup, *, fail_on: FailAt = "error") -> str:
    """One ``<testcase>`` a rule: ``<failure>`` at or above ``fail_on``, ``<skipped>`` where it did not run.

    A warning below ``fail_on`` passes and says its sentence in ``<system-out>``; an accepted finding is skipped, with
    the reason for which it was accepted. ``fail_on="never"`` writes no failure at all.
    """
    root = ElementTree.Element("testsuites", name=_text(f"assay: {subject_line(checkup)}"))
    for state in states(checkup.verdicts):
        if state.verdicts:
            root.append(_suite(state, checkup, fail_on=fail_on))
    totals = {key: sum(int(suite.get(key, "0")) for suite in root) for key in ("tests", "failures", "skipped")}
    root.attrib.update({**{key: str(total) for key, total in totals.items()}, "errors": "0"})
    root.set("time", f"{checkup.seconds:.3f}")
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(state: CategoryState, checkup: Checkup, *, fail_on: FailAt) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name=f"assay.{state.category}", timestamp=_text(checkup.started))
    for verdict in state.verdicts:
        suite.append(_case(verdict, fail_on=fail_on))
    suite.attrib.update(
        tests=str(len(state.verdicts)),
        failures=str(sum(verdict.fails(fail_on) for verdict in state.verdicts)),
        skipped=str(sum(verdict.status == "not run" or verdict.accepted is not None for verdict in state.verdicts)),
        errors="0",
    )
    return suite


def _case(verdict: Verdict, *, fail_on: FailAt) -> ElementTree.Element:
    # time is part of the format; a rule takes none that is worth telling
    case = ElementTree.Element(
        "testcase", classname=f"assay.{verdict.category}", name=_text(f"{verdict.rule} {verdict.claim}"), time="0"
    )
    if verdict.fails(fail_on):
        failure = ElementTree.SubElement(case, "failure", type=verdict.status, message=_text(_short(verdict)))
        failure.text = _text(_whole(verdict))
    elif verdict.status == "not run":
        ElementTree.SubElement(case, "skipped", message=_text(verdict.measured))
    elif verdict.accepted is not None:
        until = "" if verdict.accepted.expires is None else f" until {verdict.accepted.expires}"
        said = f"accepted{until}: {verdict.accepted.reason}; {verdict.status}: {_short(verdict)}"
        ElementTree.SubElement(case, "skipped", message=_text(said))
    elif verdict.status in {"warn", "error"}:
        ElementTree.SubElement(case, "system-out").text = _text(_whole(verdict))
    return case


def _short(verdict: Verdict) -> str:
    return f"{verdict.measured}; asked for: {verdict.threshold}"


def _whole(verdict: Verdict) -> str:
    lines = [f"measured: {verdict.measured}", f"asked for: {verdict.threshold}"]
    lines += [f"where: {verdict.where}"] if verdict.where else []
    return "\n".join((*lines, f"why: {verdict.why}", f"fix: {verdict.fix}", f"reference: {verdict.reference}"))


def _text(text: str) -> str:
    """XML 1.0 has no place for control characters and the two noncharacters of its plane, not even escaped."""
    return inert(text).translate({0xFFFE: "�", 0xFFFF: "�"})
