"""Accepting findings: which verdicts a baseline covers, and which of its entries are out of date."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.finding import Acceptance, Baseline, Outdated, Verdict
from assay.verdict.catalogue import RULES


def apply_baseline(checkup: Checkup, baseline: Baseline, *, today: date) -> Checkup:
    """The checkup with its accepted findings marked and the entries that cover nothing listed.

    A finding is covered by the entry of its rule unless it is worse than what was accepted (an error where a warning
    was) or the entry has expired. A rule that did not run, or cannot tell, leaves its entry alone.
    """
    judged = {verdict.rule: verdict for verdict in checkup.verdicts}
    outdated = tuple(
        Outdated(entry=entry, because=reason)
        for entry in baseline.accepted
        if (reason := _outdated(entry, judged.get(entry.rule), today=today))
    )
    dropped = {each.entry.rule for each in outdated}
    valid = {entry.rule: entry for entry in baseline.accepted if entry.rule not in dropped}
    verdicts = tuple(
        verdict.model_copy(
            update={"accepted": valid.get(verdict.rule) if verdict.status in {"warn", "error"} else None}
        )
        for verdict in checkup.verdicts
    )
    return checkup.model_copy(update={"verdicts": verdicts, "outdated": outdated})


def _outdated(entry: Acceptance, verdict: Verdict | None, *, today: date) -> str:
    """Why the entry accepts nothing here; empty where it does, or where the rule was not judged."""
    if all(rule.id != entry.rule for rule in RULES):
        return "no rule has this id"
    if verdict is None or verdict.status in {"cannot tell", "could not run", "not run"}:
        return ""
    reasons = {
        "the rule passes now: remove the entry": verdict.status == "pass",
        f"expired on {entry.expires}": entry.expires is not None and entry.expires < today,
        "a warning was accepted, it is an error now": verdict.status == "error" and entry.status == "warn",
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def accept_findings(
    checkup: Checkup, baseline: Baseline, *, rules: Iterable[str], reason: str, expires: date | None, today: date
) -> Baseline:
    """``baseline`` with the findings of ``rules`` accepted, each as bad as it is now; earlier entries are replaced.

    Raises :class:`InputError` for a rule that found nothing in this check, an empty reason, or a day in the past.
    """
    if not reason.strip():
        raise InputError("--reason", expected="why the finding is accepted", got="nothing")
    if expires is not None and expires < today:
        raise InputError("--expires", expected="a day that is not past", got=expires.isoformat())
    judged = {verdict.rule: verdict for verdict in checkup.verdicts}
    fresh = {}
    for rule in rules:
        verdict = judged.get(rule)
        if verdict is None or verdict.status not in {"warn", "error"}:
            findings = ", ".join(v.rule for v in checkup.verdicts if v.status in {"warn", "error"}) or "none"
            state = "no verdict of this check" if verdict is None else f"a verdict of status {verdict.status!r}"
            raise InputError(rule, expected=f"a finding of this check ({findings})", got=state)
        fresh[rule] = Acceptance.model_validate(
            {"rule": rule, "status": verdict.status, "reason": reason.strip(), "accepted": today, "expires": expires,
             "measured": verdict.measured}
        )  # fmt: skip
    merged = {entry.rule: entry for entry in baseline.accepted} | fresh
    return Baseline(accepted=tuple(merged[rule] for rule in sorted(merged)))
