"""SARIF 2.1.0 (OASIS): verdicts as results of a static-analysis tool, for code-scanning pages."""

from __future__ import annotations

import hashlib
import json
import re
from urllib.parse import quote

from assay.records.checkup import Checkup
from assay.records.finding import Status, Verdict
from assay.wording import inert

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"
# (level, kind): section 3.27.9 wants the level "none" for every kind but "fail"
_OUTCOMES: dict[Status, tuple[str, str]] = {
    "error": ("error", "fail"),
    "warn": ("warning", "fail"),
    "pass": ("none", "pass"),
    "not run": ("none", "notApplicable"),
}

Json = dict[str, object]


def render_sarif(checkup: Checkup) -> str:
    """One run with a rule and a result per verdict.

    A model is no file, so results carry a logical location (section 3.33): the model as it was named, and inside it
    the place a rule points at. Code-scanning pages ask for a file as well: the one that makes the model where its name
    tells it, else ``check.json``. An accepted finding is suppressed, with its reason. ``partialFingerprints`` keep a
    finding the same from run to run.
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
        "invocations": [{"executionSuccessful": True}],
        "automationDetails": {"id": inert(f"assay/{subject.model}/{subject.data}/{subject.split}", keep="")},
        "results": [_result(verdict, checkup, index=index[verdict.rule]) for verdict in checkup.verdicts],
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
    if found := re.search(r"arXiv:(\d{4}\.\d{4,5})", verdict.reference):
        rule["helpUri"] = f"https://arxiv.org/abs/{found[1]}"
    return rule


def _result(verdict: Verdict, checkup: Checkup, *, index: int) -> Json:
    level, kind = _OUTCOMES[verdict.status]
    model, where = inert(checkup.subject.model, keep=""), inert(verdict.where, keep="")
    fingerprint = "\n".join((verdict.rule, checkup.subject.model, checkup.subject.data))
    said = f"{verdict.claim}. Measured: {verdict.measured}. Asked for: {verdict.threshold}."
    result: Json = {
        "ruleId": inert(verdict.rule, keep=""),
        "ruleIndex": index,
        "level": level,
        "kind": kind,
        "message": {"text": inert(said + (f" Where: {verdict.where}." if verdict.where else ""))},
        "locations": [
            {
                "physicalLocation": {"artifactLocation": {"uri": _file_of(checkup.subject.model)}},
                "logicalLocations": [
                    {
                        "name": where or model,
                        "fullyQualifiedName": f"{model}/{where}" if where else model,
                        "kind": "member" if where else "module",
                    }
                ],
            }
        ],
        "partialFingerprints": {"assay/v1": hashlib.sha256(fingerprint.encode(errors="replace")).hexdigest()},
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
