from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from assay.comparison import compare
from assay.comparison.history import trace_history
from assay.records.checkup import Checkup
from assay.records.finding import Verdict
from assay.records.reading import read_checkup
from assay.report.check_page import render_page
from assay.report.comparison_wording import history_tally
from assay.report.history_page import render_history
from assay.report.summary import (
    SEVERITY,
    headline,
    in_order,
    key_figures,
    size_of_change,
    states,
    tally_sentence,
)
from assay.report.terminal.check import print_summary
from assay.verdict import examples as ex


@pytest.fixture
def make(checkup: Checkup) -> Callable[..., Verdict]:
    return lambda rule, status, category="accuracy": checkup.verdicts[0].model_copy(
        update={"rule": rule, "status": status, "category": category}
    )


def test_worst_come_first_and_ties_go_by_rule(make: Callable[..., Verdict]) -> None:
    verdicts = [make("A3", "pass"), make("A2", "error"), make("A4", "warn"), make("A1", "error"), make("A5", "not run")]
    assert [verdict.rule for verdict in in_order(verdicts)] == ["A1", "A2", "A4", "A5", "A3"]


def test_a_category_is_as_bad_as_its_worst_verdict_that_ran(make: Callable[..., Verdict]) -> None:
    verdicts = [
        make("A1", "pass"),
        make("A2", "not run"),
        make("A3", "warn", "robustness"),
        make("A4", "not run", "invariance"),
    ]
    found = {state.category: state.status for state in states(verdicts)}
    assert found == {
        "accuracy": "pass",
        "robustness": "warn",
        "invariance": "not run",
        "optimisation": "not run",
        "configuration": "not run",
        "redundancy": "not run",
    }


def test_every_verdict_is_counted_once(checkup: Checkup) -> None:
    assert sum(len(state.verdicts) for state in states(checkup.verdicts)) == len(checkup.verdicts)


@pytest.mark.parametrize(
    ("statuses", "sentence"),
    [
        ((), "No rule was judged."),
        (("pass",), "Of 1 rule, 1 holds."),
        (("error", "error", "pass"), "Of 3 rules, 2 fail and 1 holds."),
        (("error", "warn", "pass", "not run"), "Of 4 rules, 1 fails, 1 warns, 1 holds and 1 did not run."),
        (("not run",), "Of 1 rule, 1 did not run."),
    ],
)
def test_tally(statuses: tuple[str, ...], sentence: str, make: Callable[..., Verdict]) -> None:
    assert set(statuses) <= set(SEVERITY)
    assert tally_sentence([make(f"A{i}", status) for i, status in enumerate(statuses)]) == sentence


@pytest.mark.parametrize(
    ("statuses", "score"),
    [
        (("pass", "pass"), 100),
        (("pass", "warn"), 75),
        (("pass", "error", "not run"), 25),
        (("pass", "pass", "pass", "error"), 37),
        (("error", "error"), 0),
        (("pass",) * 250 + ("warn",), 99),  # nothing that is not whole is called whole
        (("pass",) * 250 + ("error",), 49),
        (("pass",) * 250 + ("error",) * 2, 24),
        (("error",) * 250 + ("warn",), 1),
        (("pass", "cannot tell"), 99),
        (("cannot tell",), None),
        (("not run",), None),
        ((), None),
    ],
)
def test_a_score_is_the_mean_credit_of_what_was_decided_and_failing_audits_weigh(
    statuses: tuple[str, ...], score: int | None, make: Callable[..., Verdict]
) -> None:
    (state,) = (s for s in states([make(f"A{i}", x) for i, x in enumerate(statuses)]) if s.category == "accuracy")
    assert state.score == score


def test_a_rule_about_the_measurement_raises_no_score_and_casts_doubt(make: Callable[..., Verdict]) -> None:
    about = {"scored": False}
    fails, holds = make("A1", "error"), make("A2", "pass").model_copy(update=about)
    assert states([fails, holds])[0].score == 0
    assert states([fails, holds])[0].failing_checks == ()
    broken = make("A3", "error").model_copy(update=about)
    assert states([make("A1", "pass"), broken])[0].score == 100
    assert states([make("A1", "pass"), broken])[0].failing_checks == (broken,)
    assert states([make("A1", "pass"), broken])[0].status == "error"


def test_a_category_shows_all_that_call_for_something_and_no_less_than_three(make: Callable[..., Verdict]) -> None:
    bad = [make(f"A{i}", "warn") for i in range(5)]
    assert len(states([*bad, make("A9", "pass")])[0].top_findings) == 5
    assert len(states([bad[0], *(make(f"A{i}", "pass") for i in range(5, 9))])[0].top_findings) == 3


def test_what_could_not_run_is_told_everywhere_and_nothing_is_green(unmeasured: Checkup, tmp_path: Path) -> None:
    assert not unmeasured.complete
    assert headline(unmeasured).endswith(" Could not run: attacks (pgd) and anatomy.")
    assert "2 could not run" in tally_sentence(unmeasured.verdicts)
    robustness = next(state for state in states(unmeasured.verdicts) if state.category == "robustness")
    assert robustness.score is None
    assert "2 could not run" in robustness.summary
    quiet = [v for v in unmeasured.verdicts if v.status in {"pass", "could not run"}]
    assert {state.status for state in states(quiet) if state.category == "robustness"} == {"could not run"}
    page = render_page(unmeasured)
    assert "Nothing failed" not in render_page(unmeasured.model_copy(update={"verdicts": tuple(quiet)}))
    assert 'id="could-not-run"' in page
    console = Console(file=StringIO(), width=100, record=True)
    print_summary(unmeasured, console)
    text = console.export_text()
    for shown in (page, text):
        assert "no gradient" in shown
        assert "mend the model" in shown
        assert "Could not run" in shown
    assert "A202, A204" in text
    path = tmp_path / "check.json"
    path.write_text(unmeasured.model_dump_json())
    assert read_checkup(path).model_dump_json() == unmeasured.model_dump_json()


def test_a_comparison_and_a_history_tell_what_could_not_run(checkup: Checkup, unmeasured: Checkup) -> None:
    (versus,) = compare([checkup, unmeasured]).versus
    moved = {each.rule: each for each in versus.rules}
    assert (moved["A202"].change, moved["A202"].after) == ("not judged", "could not run")
    assert any(text.startswith("A202") and text.endswith("could not run now") for text in versus.worse_verdicts)
    assert "attacks (pgd) could not run on resnet20 (2): no gradient" in versus.left_out
    (back,) = compare([unmeasured, checkup]).versus
    assert {each.rule: each.change for each in back.rules}["A202"] == "newly judged"
    later = unmeasured.model_copy(update={"started": "2026-03-02T12:00:00Z"})
    history = trace_history({"a": checkup, "b": later}, folder="checks")
    assert dict(history.tracks[0].entries[1].statuses)["A202"] == "could not run"
    assert "2 rules could not run in the last check" in history_tally(history)
    assert "? could not run" in render_history(history)


def test_the_strongest_attack_is_named_where_it_ties_with_the_single_step(checkup: Checkup) -> None:
    single = ex.attacked("fgsm", 430, steps=1, loss_per_step=(1.0, 2.0))
    many = ex.attacked("pgd", 430, steps=10, loss_per_step=(1.0,) * 11)
    for records in ((single, many), (many, single)):
        both = checkup.model_copy(update={"records": records})
        assert headline(both).endswith("43.0\xa0% after PGD, 10 steps within 8/255 (n\u00a0=\u00a01,000).")
        assert [figure.name for figure in key_figures(both)][1] == "robust accuracy, PGD, L∞ 8/255"
        assert size_of_change(both) == "8/255: 3.1\xa0% of a pixel's range, invisible"


def test_draws_of_noise_are_not_called_steps(checkup: Checkup) -> None:
    noise = ex.attacked("noise", 800, steps=5, loss_per_step=(1.0, 1.1, 1.0, 1.2, 1.1))
    assert headline(checkup.model_copy(update={"records": (noise,)})).endswith(
        " right after noise within 8/255 (n\u00a0=\u00a01,000)."
    )
    stepped = ex.attacked("pgd", 800, steps=5, loss_per_step=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5))
    assert headline(checkup.model_copy(update={"records": (stepped,)})).endswith(
        " right after PGD, 5 steps within 8/255 (n\u00a0=\u00a01,000)."
    )
