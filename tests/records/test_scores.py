"""Scores and uses follow from the verdicts, and stand in ``check.json``."""

from __future__ import annotations

import json

import pytest

from assay.cli.check import FailOn, find_exit_code
from assay.records.base import Environment
from assay.records.checkup import Checkup, Subject
from assay.records.finding import Acceptance, Verdict
from assay.records.scores import FitForUse, judge_uses, score_by_failures, score_by_share

CATEGORY = {"1": "accuracy", "2": "robustness", "3": "invariance", "4": "optimisation", "5": "configuration"}


def verdict(rule: str, status: str, **changes: object) -> Verdict:
    fields = {
        "category": CATEGORY[rule[1]], "claim": "c", "measured": "m", "threshold": "t", "value": 1.0, "why": "w",
        "fix": "f", "reference": "r", "evidence": (),
    }  # fmt: skip
    return Verdict(rule=rule, status=status, **(fields | changes))


def checkup(*verdicts: Verdict, uses: tuple[str, ...] = ("benign", "shifted")) -> Checkup:
    return Checkup(
        subject=Subject(
            model="net", weights=None, data="d", split="test", n=1, available=1, classes=("a", "b"),
            image_shape=(1, 2, 2),
        ),
        budget="quick", seed=0, started="2026-06-01T00:00:00+00:00", seconds=1.0,
        environment=Environment(
            assay="0", python="3", torch="2", numpy="2", platform="p", processor="p", cores=1, threads=1, device="cpu",
            memory_gib=1.0,
        ),
        stages=(), records=(), verdicts=verdicts, uses=uses,
    )  # fmt: skip


HOLDS = (verdict("A101", "pass"), verdict("A202", "pass"), verdict("A302", "pass"), verdict("A501", "pass"))


def but(*others: Verdict) -> list[Verdict]:
    """Everything holds but for these."""
    given = {each.rule: each for each in others}
    return [*(given.pop(each.rule, each) for each in HOLDS), *given.values()]


ACCEPTED = Acceptance(rule="A302", status="error", reason="known", accepted="2026-01-01")


@pytest.mark.parametrize(
    ("verdicts", "benign", "shifted", "adversarial"),
    [
        (HOLDS, "fit", "fit", "fit"),
        (but(verdict("A202", "error")), "fit", "fit", "not fit"),
        (but(verdict("A302", "error")), "fit", "not fit", "fit"),
        (but(verdict("A302", "error", accepted=ACCEPTED)), "fit", "fit with limits", "fit"),
        (but(verdict("A302", "warn")), "fit", "fit with limits", "fit"),
        (but(verdict("A302", "cannot tell")), "fit", "cannot tell", "fit"),
        (but(verdict("A301", "cannot tell")), "fit", "fit with limits", "fit"),
        (but(verdict("A302", "not run")), "fit", "cannot tell", "fit"),
        (but(verdict("A103", "warn")), "fit with limits", "fit with limits", "fit with limits"),
        (but(verdict("A101", "cannot tell"), verdict("A104", "pass")), "cannot tell", "cannot tell", "cannot tell"),
        (but(verdict("A101", "error")), "not fit", "not fit", "not fit"),
        (but(verdict("A502", "error")), "not fit", "not fit", "not fit"),
        (but(verdict("A505", "warn"), verdict("A401", "error")), "fit", "fit", "fit"),  # no use rests on training
        (but(verdict("A214", "error", scored=False)), "fit", "fit", "cannot tell"),
        (but(verdict("A224", "warn", scored=False)), "fit", "fit", "fit with limits"),
        ((), "cannot tell", "cannot tell", "cannot tell"),
    ],
)
def test_what_a_model_is_fit_for(verdicts: list[Verdict], benign: str, shifted: str, adversarial: str) -> None:
    found = judge_uses(verdicts, ["benign"])
    assert [each.fitness for each in found] == [benign, shifted, adversarial]
    assert [each.judged for each in found] == [True, False, False]


def test_the_rules_because_of_which_it_is_not_fit_are_named() -> None:
    found = judge_uses(but(verdict("A202", "error"), verdict("A103", "warn")), ["adversarial"])
    assert found[0] == FitForUse(use="benign", judged=False, fitness="fit with limits", because=("A103",))
    assert found[2] == FitForUse(use="adversarial", judged=True, fitness="not fit", because=("A202",))


def test_both_scores_stand_in_the_document_under_their_versions() -> None:
    document = checkup(*but(verdict("A202", "error"), verdict("A201", "warn")))
    text = json.loads(document.model_dump_json())
    robustness = [score for score in text["scores"] if score["category"] == "robustness"]
    assert robustness == [
        {"category": "robustness", "formula": "share of audits", "version": 1, "value": 25},
        {"category": "robustness", "formula": "share of audits", "version": 2, "value": 12},
    ]
    assert [each["fitness"] for each in text["fitness"]] == ["fit", "fit", "not fit"]
    assert Checkup.model_validate_json(document.model_dump_json()) == document


@pytest.mark.parametrize("holding", [0, 1, 20, 500])
@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_failing_audit_is_below_50_and_two_below_25(holding: int, failing: int) -> None:
    verdicts = [verdict("A101", "pass")] * holding + [verdict("A102", "error")] * failing
    score = score_by_failures(verdicts)
    assert score is not None
    assert score < (50 if failing == 1 else 25)
    assert score <= (score_by_share(verdicts) or 0)


@pytest.mark.parametrize(
    ("uses", "code"), [(None, 1), (("benign",), 0), (("benign", "shifted"), 0), (("adversarial",), 1)]
)
def test_findings_about_another_use_do_not_change_the_exit_code(uses: tuple[str, ...] | None, code: int) -> None:
    document = checkup(*but(verdict("A202", "error")))
    assert find_exit_code(document, fail_on=FailOn.ERROR, uses=uses) == code


def test_what_cannot_be_told_is_no_finding() -> None:
    assert find_exit_code(checkup(*but(verdict("A302", "cannot tell"))), fail_on=FailOn.WARN) == 0
