"""Every rule on either side of its thresholds, and on records that it has nothing to do with."""

from __future__ import annotations

import math
import shlex

import pytest
from typer.main import get_command

from assay.cli.main import app
from assay.errors import InputError
from assay.records.attack import AttackSanity, SanityCheck
from assay.records.base import Record
from assay.records.finding import Verdict
from assay.verdict import RULES, Evidence, Rule, find_rule, judge
from assay.verdict.examples import (
    attacked,
    clean,
    curvature,
    curve,
    decay_groups,
    depth_trace,
    flow,
    input_gradients,
    invariance,
    layer,
    modes,
    normalization,
    preparation,
    sequence_accuracy,
    signed_steps,
    spectra,
    time_trace,
)

CASES: list[tuple[str, str, list[Record]]] = [
    ("A101", "pass", [clean()]),
    ("A101", "error", [clean(correct=450)]),
    ("A101", "error", [clean(correct=510)]),  # less than a tenth of the way from 50 % to 100 %
    ("A101", "cannot tell", [clean(correct=53, n=100)]),
    ("A102", "pass", [clean()]),
    ("A102", "cannot tell", [clean(36, 40)]),
    ("A103", "pass", [clean()]),
    ("A103", "cannot tell", [clean(expected_calibration_error=0.05)]),
    ("A103", "warn", [clean(expected_calibration_error=0.08)]),
    ("A103", "error", [clean(expected_calibration_error=0.3)]),
    ("A103", "error", [clean(expected_calibration_error=math.nan)]),
    ("A104", "pass", [clean()]),
    ("A104", "error", [clean(non_finite=1)]),
    ("A105", "pass", [clean()]),
    ("A105", "warn", [clean(correct=45, n=50)]),
    ("A201", "pass", [attacked("fgsm", 800)]),
    ("A201", "warn", [attacked("fgsm", 550)]),
    ("A201", "cannot tell", [attacked("fgsm", 680)]),  # 75.6 % of those that were right
    ("A201", "error", [attacked("fgsm", 250)]),
    ("A201", "not run", [attacked("fgsm", 0, clean_correct=0)]),
    ("A202", "pass", [attacked("pgd", 800)]),
    ("A202", "error", [attacked("pgd", 0)]),
    ("A202", "not run", [attacked("fgsm", 800)]),
    ("A203", "pass", [curve(3)]),
    ("A203", "pass", [curve(None)]),
    ("A203", "warn", [curve(1.5)]),
    ("A203", "cannot tell", [curve(2, n=30)]),
    ("A203", "error", [curve(0.5)]),
    ("A204", "pass", [attacked("fgsm", 300), attacked("pgd", 100)]),
    ("A204", "warn", [attacked("fgsm", 300), attacked("pgd", 310)]),
    ("A204", "error", [attacked("fgsm", 300), attacked("pgd", 500)]),
    ("A204", "not run", [attacked("fgsm", 300), attacked("pgd", 500, epsilon=4 / 255)]),
    ("A205", "pass", [signed_steps(0.3, 2.0, 5.0)]),
    ("A205", "warn", [signed_steps(0.3, 2.0, 1.5)]),
    ("A205", "error", [signed_steps(0.3, 0.3)]),
    ("A206", "pass", [attacked("pgd", 100)]),
    ("A206", "warn", [attacked("pgd", 100, unconfirmed=1)]),
    ("A401", "pass", [flow(layer("a", 1.0), layer("b", 2.0))]),
    ("A401", "warn", [flow(layer("a", 1e-4), layer("b", 2.0))]),
    ("A401", "error", [flow(layer("a", 1e-8), layer("b", 2.0))]),
    ("A402", "pass", [flow(layer("a", 1.0, dead=0.1))]),
    ("A402", "warn", [flow(layer("a", 1.0, dead=0.6))]),
    ("A402", "error", [flow(layer("a", 1.0, dead=0.95))]),
    ("A402", "not run", [flow(layer("a", 1.0))]),
    ("A403", "pass", [flow(layer("a", 1.0))]),
    ("A403", "error", [flow(layer("a", 1.0, non_finite=3))]),
    ("A403", "error", [flow(layer("a", 1.0), first_non_finite="a")]),
    ("A404", "pass", [input_gradients()]),
    ("A404", "warn", [input_gradients(zero=5)]),
    ("A404", "error", [input_gradients(zero=50)]),
    ("A501", "pass", [modes()]),
    ("A501", "warn", [modes(training_flag=True, modules_in_train_mode=("bn",))]),
    ("A502", "pass", [modes()]),
    ("A502", "error", [modes(repeat_gap=0.1)]),
    ("A503", "pass", [modes()]),
    ("A503", "warn", [modes(batch_gap=5e-3)]),
    ("A503", "error", [modes(batch_gap=0.1)]),
    ("A503", "not run", [modes(batch_gap=0.1, repeat_gap=0.1)]),
    ("A504", "pass", [modes()]),
    ("A504", "warn", [modes(outputs_look_like="probabilities")]),
    ("A505", "pass", [decay_groups()]),
    ("A505", "warn", [decay_groups("norm.weight")]),
    ("A601", "pass", [spectra()]),
    ("A601", "warn", [spectra(redundancy=0.7)]),
    ("A602", "pass", [spectra()]),
    ("A602", "warn", [spectra(condition=math.inf)]),
    ("A411", "pass", [time_trace(0.99)]),
    ("A411", "warn", [time_trace(0.96)]),
    ("A411", "error", [time_trace(0.5)]),
    ("A412", "pass", [time_trace(0.99)]),
    ("A412", "warn", [time_trace(1.2)]),
    ("A412", "error", [time_trace(1.5)]),
    ("A412", "error", [time_trace(0.9, non_finite=1)]),
    ("A413", "pass", [time_trace(reverse_zero=0)]),
    ("A413", "warn", [time_trace(reverse_zero=49)]),
    ("A414", "pass", [depth_trace()]),
    ("A414", "error", [depth_trace(non_finite=2)]),
    ("A415", "pass", [depth_trace(update=1e-3)]),
    ("A415", "warn", [depth_trace(update=0.5)]),
    ("A415", "error", [depth_trace(update=2.0)]),
    ("A416", "pass", [curvature(100.0)]),
    ("A416", "warn", [curvature(1e6)]),
    ("A416", "pass", [curvature(100.0, learning_rate=0.01)]),
    ("A416", "warn", [curvature(100.0, learning_rate=0.03)]),
    ("A417", "pass", [sequence_accuracy(0.05)]),
    ("A417", "warn", [sequence_accuracy(0.12)]),
    ("A417", "error", [sequence_accuracy(0.166)]),
    ("A417", "error", [sequence_accuracy(math.nan)]),
    ("A511", "pass", [normalization()]),
    ("A511", "warn", [normalization(distance=0.5)]),
    ("A511", "error", [normalization(distance=5.0)]),
    ("A512", "pass", [normalization(bgr=30)]),
    ("A512", "cannot tell", [normalization(bgr=62)]),
    ("A512", "error", [normalization(bgr=95)]),
    ("A511", "pass", [normalization(distance=5.0, reestimated_p=0.3)]),  # measured anew it is no better
    ("A511", "error", [normalization(distance=5.0, reestimated_p=1e-4)]),
    ("A512", "cannot tell", [normalization(bgr=66, p=0.2)]),
    ("A512", "warn", [normalization(bgr=63, p=0.01)]),  # the intervals overlap, but the same samples tell
    ("A512", "error", [normalization(bgr=66, p=0.01)]),
    ("A514", "pass", [preparation(lost=5)]),
    ("A514", "cannot tell", [preparation(gained=3)]),
    ("A514", "cannot tell", [preparation(gained=30, p=0.2)]),
    ("A514", "warn", [preparation(gained=5, p=0.01)]),
    ("A514", "pass", [preparation(gained=0, lost=9, p=1.0)]),
    ("A513", "pass", [normalization()]),
    ("A513", "warn", [normalization(oddities=("momentum 0.9",))]),
    ("A301", "pass", [invariance(900, 900)]),
    ("A301", "cannot tell", [invariance(865, 900)]),  # three points lie within the interval of the fall
    ("A301", "warn", [invariance(850, 900)]),
    ("A301", "error", [invariance(760, 900)]),
    ("A301", "cannot tell", [invariance(86, 90, n=100, clean=90)]),  # the same share of fewer samples
    ("A301", "cannot tell", [invariance(16, 16, n=16, clean=16)]),  # nothing lost, of too few
    ("A301", "warn", [invariance(8600, 9000, n=10_000, clean=9000)]),
    ("A301", "cannot tell", [invariance(850, 900, gained=100)]),  # changes in both directions widen the interval
    ("A302", "pass", [invariance(900, 800)]),
    ("A302", "warn", [invariance(900, 500)]),
    ("A302", "cannot tell", [invariance(900, 600)]),
    ("A302", "error", [invariance(900, 300)]),
    ("A303", "pass", [invariance(900, 700)]),
    ("A303", "warn", [invariance(900, 400)]),
    ("A303", "error", [invariance(900, 50)]),
    ("A301", "not run", [invariance(0, 0, clean=0)]),  # nothing was correct before
    ("A302", "not run", [invariance(0, 0, clean=0)]),
    ("A303", "not run", [invariance(0, 0, clean=0)]),
]


@pytest.mark.parametrize(("rule", "status", "records"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_a_rule_judges(rule: str, status: str, records: list[Record]) -> None:
    verdict = find_rule(rule).verdict(Evidence(records))
    assert verdict.status == status, verdict.measured
    assert verdict.measured
    assert math.isnan(verdict.value) == (status == "not run" or "not finite" in verdict.measured)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_passes_on_its_good_example_and_not_on_its_bad_one(rule: Rule) -> None:
    passing = rule.verdict(Evidence(rule.examples.passing()))
    failing = rule.verdict(Evidence(rule.examples.failing()))
    assert passing.status == "pass", passing.measured
    assert failing.status in {"warn", "error"}, failing.measured
    assert passing.measured != failing.measured


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_examples_survive_json(rule: Rule) -> None:
    for record in (*rule.examples.passing(), *rule.examples.failing()):
        assert type(record).model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_text_of_a_rule_is_there(rule: Rule) -> None:
    texts = (rule.claim, rule.threshold, rule.why, rule.fix, rule.limits, rule.reference)
    assert all(text.strip() == text and len(text) > 5 for text in texts)
    assert not rule.claim.endswith(".")
    assert all(text.endswith((".", "?")) for text in (rule.why, rule.fix, rule.limits))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_has_a_wording_for_holding_and_one_for_failing_with_its_number(rule: Rule) -> None:
    passing, failing = (rule.verdict(Evidence(records())) for records in (rule.examples.passing, rule.examples.failing))
    assert passing.statement == rule.claim
    assert failing.statement == failing.fault != rule.claim
    assert failing.statement.startswith(rule.fault)
    assert not rule.fault.endswith(".")
    assert 1 <= len(failing.mend.splitlines()) <= 3


def accepted_by_cli(command: str) -> None:
    """The command line parser takes every option of a command; nothing is run."""
    words = shlex.split(command)
    assert words[0] == "assay"
    names = {option for parameter in get_command(app).commands[words[1]].params for option in parameter.opts}
    unknown = [word for word in words[2:] if word.startswith("-") and word not in names]
    assert not unknown, command


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_the_commands_of_a_rule_are_those_of_the_command_line(rule: Rule) -> None:
    failing = rule.verdict(Evidence(rule.examples.failing()))
    for command in {rule.command, failing.command, rule.mend, failing.mend}:
        if command.startswith("assay "):
            accepted_by_cli(command)
        else:
            compile(command, rule.id, "exec")


def test_what_mends_fits_what_was_found() -> None:
    record = invariance(900, 50)
    worst, other = record.operations
    solarize = worst.model_copy(update={"operation": "Solarize", "unit": "threshold"})
    found = record.model_copy(update={"operations": (solarize, other), "worst_operation": "Solarize"})
    verdict = find_rule("A303").verdict(Evidence([found]))
    assert verdict.statement == "Broken by one image transformation: 90.0\xa0% → 22.0\xa0% under Solarize"
    assert "rotat" not in (verdict.fix + verdict.mend).lower()
    assert "--set 'augment.policy=solarize(-4, 4)'" in verdict.mend
    assert verdict.command == "assay augment --data DATA --magnitude Solarize=4"
    broken = find_rule("A202").verdict(Evidence([attacked("pgd", 0)]))
    assert broken.statement == "Broken by PGD: 90.0\xa0% → 0\xa0%"
    assert broken.command == (
        "assay attack MODEL --data DATA --attack pgd --norm linf --epsilon 8/255 --steps 10 --limit 1000"
    )


def test_commands_name_the_model_and_the_data_of_the_check() -> None:
    verdict = find_rule("A202").verdict(Evidence([attacked("pgd", 0)]))
    named = verdict.name_inputs(model="runs/x", data="cifar10", both="runs/x --data cifar10 --split train")
    assert named.command.startswith("assay attack runs/x --data cifar10 --split train --attack pgd")
    assert named.mend == "assay train cifar10 --recipe robust"


def test_the_worst_class_is_named() -> None:
    verdict = find_rule("A102").verdict(Evidence([clean(740, dogs=250)]))
    assert verdict.status == "warn"
    assert verdict.where == "dog"
    assert verdict.measured == "worst class dog: 50.0\xa0% of 500, all classes 74.0\xa0%"


def test_the_worst_operation_is_named() -> None:
    verdict = find_rule("A303").verdict(Evidence([invariance(900, 50)]))
    assert (verdict.where, verdict.measured) == (
        "Rotate",
        "90.0\xa0% falls to 22.0\xa0% on average over the strengths of Rotate (n = 1,000)",
    )


def test_without_records_every_rule_says_what_is_missing() -> None:
    for verdict in judge([]):
        assert verdict.status == "not run"
        assert verdict.measured == f"no {', '.join(verdict.evidence)} was measured"


def test_errors_come_first() -> None:
    order = [verdict.status for verdict in judge([clean(non_finite=1, expected_calibration_error=0.08)])]
    assert order == sorted(order, key=["error", "warn", "cannot tell", "pass", "not run"].index)
    assert order[0] == "error"


def test_ids_are_unique_and_their_first_digit_is_the_category() -> None:
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    assert {rule.id[1]: rule.category for rule in RULES} == {
        "1": "accuracy",
        "2": "robustness",
        "3": "invariance",
        "4": "optimisation",
        "5": "configuration",
        "6": "redundancy",
        "7": "data quality",
    }


def test_a_rule_asked_for_records_that_are_not_there_is_a_fault() -> None:
    with pytest.raises(LookupError, match="^no clean_accuracy was measured$"):
        find_rule("A101").judge(Evidence([]))


def test_without_a_trace_the_rules_about_traces_are_left_out() -> None:
    assert not {verdict.rule for verdict in judge([])} & {rule.id for rule in RULES if rule.on_request}


def test_an_unknown_rule_is_refused_with_near_ones() -> None:
    assert find_rule("a201").id == "A201"
    with pytest.raises(InputError) as refused:
        find_rule("A209")
    assert str(refused.value) == "rule: expected an id such as A220, A219, A206 (assay explain lists all), got A209"


def test_verdicts_survive_json() -> None:
    for verdict in judge([clean()]):
        again = Verdict.model_validate_json(verdict.model_dump_json())
        assert again.model_dump(exclude={"value"}) == verdict.model_dump(exclude={"value"})


def test_a_fault_that_two_rules_see_is_told_once() -> None:
    checks = tuple(
        SanityCheck(name=name, value=1.0, limit=0.0, detail="seen") for name in ("randomised", "zero gradients")
    )
    sanity = AttackSanity(norm="linf", epsilon=8 / 255, n=10, checks=checks, seconds=1.0)
    alone = {verdict.rule: verdict.status for verdict in judge([sanity])}
    assert alone["A212"] == alone["A214"] == "error"
    beside = {verdict.rule: verdict.status for verdict in judge([sanity, modes(repeat_gap=0.5)])}
    assert "A212" not in beside
    assert beside["A502"] == beside["A214"] == "error"


def test_rules_about_the_measurement_are_not_scored() -> None:
    about_the_model = {"A201", "A202", "A203"}
    robustness = {rule.id: rule.scored for rule in RULES if rule.category == "robustness"}
    assert {rule for rule, scored in robustness.items() if scored} == about_the_model
    about_maps = {"A405", "A406"}
    others = {rule.id for rule in RULES if rule.category not in {"robustness", "data quality"} and not rule.scored}
    assert others == about_maps
    assert not any(rule.scored for rule in RULES if rule.category == "data quality")
    verdicts = {verdict.rule: verdict.scored for verdict in judge([attacked("fgsm", 800)])}
    assert (verdicts["A201"], verdicts["A206"]) == (True, False)
