from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.failure import FailedMeasurement
from assay.records.finding import Acceptance, Verdict
from assay.report.answers import MOST_MENDS, answer, conclude, list_mends
from assay.report.check_page import render_page
from assay.report.summary import headline

Make = Callable[..., Verdict]
CATEGORIES = {"1": "accuracy", "2": "robustness", "3": "invariance", "4": "optimisation", "5": "configuration"}


@pytest.fixture
def make(checkup: Checkup) -> Make:
    """A verdict of a rule; its category follows from its number."""

    def build(rule: str, status: str, mend: str = "", **changes: object) -> Verdict:
        known = {"rule": rule, "status": status, "category": CATEGORIES[rule[1]], "scored": True, "accepted": None}
        texts = {"mend": mend or f"mend {rule}", "fix": f"Fix {rule}.", "fault": f"Fault of {rule}: so and so"}
        return checkup.verdicts[0].model_copy(update={**known, **texts, **changes})

    return build


def judged(checkup: Checkup, *verdicts: Verdict) -> Checkup:
    return checkup.model_copy(update={"verdicts": verdicts})


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        (("pass", "error", "pass"), "Fit for benign and shifted images, not fit for adversarial ones."),
        (("pass", "pass", "warn"), "Fit for benign and adversarial images, fit with limits for shifted ones."),
        (("error", "pass", "pass"), "Not fit for benign, shifted and adversarial images."),
        (("pass", "not run", "not run"), "Fit for benign images, cannot tell for shifted and adversarial ones."),
    ],
)
def test_the_page_begins_with_what_the_model_is_fit_for(
    statuses: tuple[str, str, str], sentence: str, checkup: Checkup, make: Make
) -> None:
    verdicts = [make(rule, status) for rule, status in zip(("A101", "A202", "A302"), statuses, strict=True)]
    assert conclude(judged(checkup, *verdicts)) == sentence


def test_where_no_fitness_can_be_told_it_begins_with_the_headline(checkup: Checkup) -> None:
    assert conclude(judged(checkup)) == headline(checkup)


def test_the_strongest_attack_is_named_with_what_it_leaves(checkup: Checkup) -> None:
    answers = answer(checkup)
    assert answers is not None
    clean, attacked, shifted = answers.figures
    assert (clean.name, clean.number) == ("Clean images", "91.7\u00a0%")
    assert clean.detail == "right, 95 % interval 89.8–93.3, n\u00a0=\u00a01,000"
    assert attacked.name == "Strongest attack: PGD of 20 steps, L∞ 8/255"
    assert attacked.number == "0\u00a0%"
    assert attacked.detail.endswith("the change: 3.1\u00a0% of a pixel's range, invisible")
    assert (shifted.number, shifted.detail) == ("–", "none was tried")


def test_without_attacks_the_page_says_that_none_was_run(checkup: Checkup) -> None:
    kept = [record for record in checkup.records if not isinstance(record, (RobustAccuracy, EpsilonCurve))]
    answers = answer(checkup.model_copy(update={"records": tuple(kept)}))
    assert answers is not None
    assert (answers.figures[1].number, answers.figures[1].detail) == ("–", "none was run")


def test_traced_gradients_have_no_such_answers(checkup: Checkup) -> None:
    assert answer(checkup.model_copy(update={"records": ()})) is None


def test_a_mend_stands_once_under_all_rules_that_ask_for_it(checkup: Checkup, make: Make) -> None:
    verdicts = [make("A201", "error", "train"), make("A203", "warn", "train"), make("A202", "error", "train")]
    (mend,) = list_mends(judged(checkup, *verdicts))
    assert mend.rules == ("A201", "A202", "A203")
    assert (mend.command, mend.text) == ("train", "Fix A201.")


def test_what_limits_a_use_that_was_asked_for_comes_first(checkup: Checkup, make: Make) -> None:
    verdicts = [make("A101", "pass"), make("A202", "error"), make("A302", "warn"), make("A501", "warn")]
    assert [mend.rules for mend in list_mends(judged(checkup, *verdicts))] == [("A302",), ("A202",), ("A501",)]


def test_what_makes_every_number_meaningless_comes_before_all(checkup: Checkup, make: Make) -> None:
    verdicts = [make("A101", "error"), make("A107", "error"), make("A202", "error")]
    assert list_mends(judged(checkup, *verdicts))[0].rules == ("A107",)


def test_accepted_findings_and_what_holds_ask_for_nothing(checkup: Checkup, make: Make) -> None:
    accepted = Acceptance(rule="A202", status="error", reason="known", accepted=date(2026, 1, 1))
    verdicts = [make("A101", "pass"), make("A202", "error", accepted=accepted), make("A103", "cannot tell")]
    assert list_mends(judged(checkup, *verdicts)) == ()
    assert "Nothing: no rule fails, and none warns." in render_page(judged(checkup, make("A101", "pass")))


def test_what_failed_says_its_way_out_before_the_findings(checkup: Checkup, make: Make) -> None:
    failed = FailedMeasurement(
        stage="attacks", measurement="pgd", missing=("robust_accuracy",), reason="no gradient", way_out="mend the model"
    )
    refused = failed.model_copy(update={"refused": True})
    document = judged(checkup, make("A101", "error")).model_copy(update={"records": (failed, refused)})
    first, second = list_mends(document)
    assert (first.status, first.text) == ("could not run", "Attacks (pgd) could not run: mend the model")
    assert second.rules == ("A101",)


def test_mends_beyond_three_are_counted(checkup: Checkup, make: Make) -> None:
    answers = answer(judged(checkup, *(make(f"A20{i}", "error") for i in range(1, 6))))
    assert answers is not None
    assert (len(answers.mends), answers.further) == (MOST_MENDS, 2)


def test_what_has_the_same_way_out_is_said_once(checkup: Checkup) -> None:
    names = ("fgsm", "pgd", "noise", "square", "fab")
    failures = [
        FailedMeasurement(stage="attacks", measurement=name, missing=(), reason="no time", way_out="Give more time.")
        for name in names
    ]
    (mend,) = list_mends(judged(checkup).model_copy(update={"records": tuple(failures)}))
    assert mend.text == "Attacks (fgsm), attacks (pgd), attacks (noise) and 2 more could not run: Give more time."
