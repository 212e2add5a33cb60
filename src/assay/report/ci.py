"""Verdicts for CI servers: JUnit XML for their test pages, SARIF 2.1.0 (OASIS) for code scanning."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote
from xml.etree import ElementTree

from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement
from assay.records.finding import FailAt, Status, Verdict
from assay.report.summary import CategoryState, states, subject_line
from assay.wording import inert, status

_UNDECIDED = {"cannot tell", "not run"}


def render_junit(checkup: Checkup, *, fail_on: FailAt = "error") -> str:
    """One ``<testcase>`` a rule: ``<failure>`` at or above ``fail_on``, ``<skipped>`` where nothing is decided.

    A rule that could not run is an ``<error>``, whatever ``fail_on`` says, and so is a failed measurement on which no
    rule rests. A warning below ``fail_on`` passes and says its sentence in ``<system-out>``; an accepted finding is
    skipped, with the reason for which it was accepted. ``fail_on="never"`` writes no failure at all.
    """
    root = ElementTree.Element("testsuites", name=_text(f"assay: {subject_line(checkup)}"))
    for state in states(checkup.verdicts):
        if state.verdicts:
            root.append(_suite(state, checkup, fail_on=fail_on))
    accounted = {verdict.where for verdict in checkup.verdicts if verdict.status == "could not run"}
    failed = [failure for failure in checkup.each(FailedMeasurement) if failure.place not in accounted]
    if failed:
        root.append(_failures(failed, checkup))
    for key in ("tests", "failures", "skipped", "errors"):
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
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
        skipped=str(sum(v.status in _UNDECIDED or v.accepted is not None for v in state.verdicts)),
        errors=str(sum(verdict.status == "could not run" for verdict in state.verdicts)),
    )
    return suite


def _failures(failures: Sequence[FailedMeasurement], checkup: Checkup) -> ElementTree.Element:
    suite = ElementTree.Element("testsuite", name="assay.measurements", timestamp=_text(checkup.started))
    suite.attrib.update({"tests": str(len(failures)), "failures": "0", "skipped": "0", "errors": str(len(failures))})
    for failure in failures:
        case = ElementTree.SubElement(
            suite, "testcase", classname="assay.measurements", name=_text(failure.place), time="0"
        )
        error = ElementTree.SubElement(case, "error", type="could not run", message=_text(failure.reason))
        error.text = _text(f"reason: {failure.reason}\nway out: {failure.way_out}")
    return suite


def _case(verdict: Verdict, *, fail_on: FailAt) -> ElementTree.Element:
    # the format requires a time; that of a rule is negligible
    case = ElementTree.Element(
        "testcase", classname=f"assay.{verdict.category}", name=_text(f"{verdict.rule} {verdict.claim}"), time="0"
    )
    if verdict.fails(fail_on):
        failure = ElementTree.SubElement(case, "failure", type=verdict.status, message=_text(_short(verdict)))
        failure.text = _text(_describe(verdict))
    elif verdict.status == "could not run":
        error = ElementTree.SubElement(case, "error", type=verdict.status, message=_text(verdict.measured))
        error.text = _text(_describe(verdict))
    elif verdict.status in _UNDECIDED:
        ElementTree.SubElement(case, "skipped", message=_text(f"{status(verdict.status)}: {verdict.measured}"))
    elif verdict.accepted is not None:
        until = "" if verdict.accepted.expires is None else f" until {verdict.accepted.expires}"
        message = f"accepted{until}: {verdict.accepted.reason}; {status(verdict.status)}: {_short(verdict)}"
        ElementTree.SubElement(case, "skipped", message=_text(message))
    elif verdict.status in {"warn", "error"}:
        ElementTree.SubElement(case, "system-out").text = _text(_describe(verdict))
    return case


def _short(verdict: Verdict) -> str:
    return f"{verdict.measured}; required: {verdict.threshold}"


def _describe(verdict: Verdict) -> str:
    lines = [verdict.statement, f"measured: {verdict.measured}", f"required: {verdict.threshold}"]
    lines += [f"where: {verdict.where}"] if verdict.where else []
    lines += [f"why: {verdict.why}", f"fix: {verdict.fix}"]
    lines += [f"{name}: {text}" for name, text in (("show", verdict.command), ("mend", verdict.mend)) if text]
    return "\n".join((*lines, f"reference: {verdict.reference}"))


def _text(text: str) -> str:
    """XML 1.0 has no place for control characters and the two noncharacters of its plane, not even escaped."""
    return inert(text).translate({0xFFFE: "�", 0xFFFF: "�"})


SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
_LEVELS: dict[Status, str] = {"error": "error", "warn": "warning"}

Json = dict[str, object]


def render_sarif(checkup: Checkup) -> str:
    """One run with all rules, and a result for each finding: code-scanning pages make an alert of every result.

    What could not run, and what cannot be told, is a notification of the tool (section 3.58). A model is no file, so
    results carry a logical location (section 3.33): the model as it was named, and inside it the place a rule points
    at. Code-scanning pages ask for a place in a file as well: the one that makes the model where its name tells it,
    else ``check.json``. An
    accepted finding is suppressed, with its reason. ``partialFingerprints`` keep a finding the same from run to run,
    under the key by which those pages know an alert again.
    """
    subject, environment = checkup.subject, checkup.environment
    rules = list({verdict.rule: verdict for verdict in checkup.verdicts}.values())
    index = {verdict.rule: place for place, verdict in enumerate(rules)}
    driver = {
        "name": "assay",
        "semanticVersion": inert(environment.assay, keep=""),
        "rules": [_rule(verdict) for verdict in rules],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(checkup, index)],
        "automationDetails": {"id": inert(f"assay/{subject.model}/{subject.data}/{subject.split}", keep="")},
        "results": [_result(v, checkup, index=index[v.rule]) for v in checkup.verdicts if v.status in _LEVELS],
        "properties": {"budget": checkup.budget, "seed": checkup.seed, "samples": subject.n},
    }
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}, indent=1, ensure_ascii=True) + "\n"


def _rule(verdict: Verdict) -> Json:
    why, fix, reference = (inert(text) for text in (verdict.why, verdict.fix, verdict.reference))
    rule: Json = {
        "id": inert(verdict.rule, keep=""),
        "name": "".join(word.capitalize() for word in re.findall(r"[A-Za-z0-9]+", verdict.claim)) or verdict.rule,
        "shortDescription": {"text": inert(verdict.claim)},
        "fullDescription": {"text": f"{inert(verdict.claim)}: {inert(verdict.threshold)}. {why}"},
        "help": {"text": f"{why}\n{fix}\n{reference}", "markdown": f"{why}\n\n**Fix.** {fix}\n\n{reference}"},
        "properties": {"category": verdict.category, "tags": [verdict.category]},
    }
    if arxiv := re.search(r"arXiv:(\d{4}\.\d{4,5})", verdict.reference):
        rule["helpUri"] = f"https://arxiv.org/abs/{arxiv[1]}"
    return rule


def _invocation(checkup: Checkup, index: Mapping[str, int]) -> Json:
    """Whether everything could run, and what could not."""
    notes: list[Json] = [
        {
            "level": "error",
            "message": {"text": inert(f"{verdict.claim}: {verdict.measured}. {verdict.fix}")},
            "associatedRule": {"id": inert(verdict.rule, keep=""), "index": index[verdict.rule]},
        }
        for verdict in checkup.verdicts
        if verdict.status == "could not run"
    ]
    notes += [
        {
            "level": "note",
            "message": {"text": inert(f"{verdict.claim}: cannot tell. {verdict.measured}")},
            "associatedRule": {"id": inert(verdict.rule, keep=""), "index": index[verdict.rule]},
        }
        for verdict in checkup.verdicts
        if verdict.status == "cannot tell"
    ]
    notes += [
        {"level": "error", "message": {"text": inert(f"{each.place} could not run: {each.reason}. {each.way_out}")}}
        for each in checkup.each(FailedMeasurement)
    ]
    done: Json = {"executionSuccessful": checkup.complete}
    return done | ({"toolExecutionNotifications": notes} if notes else {})


def _result(verdict: Verdict, checkup: Checkup, *, index: int) -> Json:
    model, where = inert(checkup.subject.model, keep=""), inert(verdict.where, keep="")
    fingerprint = "\n".join((verdict.rule, checkup.subject.model, checkup.subject.data))
    digest = hashlib.sha256(fingerprint.encode(errors="replace")).hexdigest()
    message = f"{verdict.statement}. Measured: {verdict.measured}. Required: {verdict.threshold}."
    result: Json = {
        "ruleId": inert(verdict.rule, keep=""),
        "ruleIndex": index,
        "level": _LEVELS[verdict.status],
        "kind": "fail",
        "message": {"text": inert(message + (f" Where: {verdict.where}." if verdict.where else ""))},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _file_of(checkup.subject.model)},
                    "region": {"startLine": 1, "startColumn": 1},  # the model as a whole: no verdict knows a line
                },
                "logicalLocations": [
                    {
                        "name": where or model,
                        "fullyQualifiedName": f"{model}/{where}" if where else model,
                        "kind": "member" if where else "module",
                    }
                ],
            }
        ],
        # A hash and how often it came before, as those pages write their own.
        "partialFingerprints": {"primaryLocationLineHash": f"{digest[:16]}:1", "assay/v1": digest},
    }
    if verdict.accepted is not None:
        reason = inert(verdict.accepted.reason)
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": reason}]
    return result


def _file_of(model: str) -> str:
    """A relative URI: ``net.py`` of ``net.py:make_net``; ``check.json`` where a model's name tells no file."""
    path, colon, _ = model.partition(":")
    relative = colon and path.endswith(".py") and not path.startswith(("/", "\\")) and ".." not in path
    return quote(path.replace("\\", "/").removeprefix("./"), errors="replace") if relative else "check.json"
