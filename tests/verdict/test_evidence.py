"""No rule passes without evidence: records without samples, without parts, or with numbers that are none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from assay.records.accuracy import ClassAccuracy, CleanAccuracy
from assay.records.base import Record
from assay.records.failure import FailedMeasurement
from assay.verdict import RULES, Evidence, Rule, judge
from assay.verdict import examples as ex
from assay.verdict.rule import RuleResult, kind_of

EXTREMES = (-1e9, 0.0, 0.5, 1e9)
# the rule passes on these parts being empty: it looks for something that must not be there
WANTED_EMPTY = {"modules_in_train_mode", "missed_by_name", "oddities", "non_finite_parameters"}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every number and every tuple in a record, with the way to it."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from leaves(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        yield path, value
        for place, item in enumerate(value):
            yield from leaves(item, (*path, place))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, value


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    step, *rest = path
    if isinstance(value, BaseModel):
        return value.model_copy(update={step: changed(getattr(value, step), tuple(rest), new)})
    return tuple(changed(item, tuple(rest), new) if place == step else item for place, item in enumerate(value))


def variants(rule: Rule, kind: type) -> Iterator[tuple[str, list[tuple[Record, ...]], tuple[Any, ...]]]:
    records = rule.examples.passing()
    for number, record in enumerate(records):
        for path, value in leaves(record):
            if isinstance(value, kind):

                def with_value(new: Any, number: int = number, path: tuple[Any, ...] = path) -> tuple[Record, ...]:
                    return tuple(changed(each, path, new) if i == number else each for i, each in enumerate(records))

                yield ".".join(map(str, path)), [with_value(new) for new in EXTREMES], (with_value, path, value)


def judged(rule: Rule, records: tuple[Record, ...]) -> RuleResult | None:
    """The rule on changed records: it must not raise."""
    return rule.judge(Evidence(records))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_number_that_decides_must_be_one(rule: Rule) -> None:
    tried = 0
    for name, extremes, (with_value, _, _) in variants(rule, float):
        decides = any(_status(judged(rule, records)) != "pass" for records in extremes)
        for bad in (math.nan, math.inf, -math.inf):
            status = _status(judged(rule, with_value(bad)))
            tried += 1
            assert not (decides and math.isnan(bad) and status == "pass"), name
            assert status in {"pass", "warn", "error", "cannot tell", "not run"}
    assert tried or rule.id in {"A104", "A107", "A108", "A501", "A505", "A705", "A706"}  # these rest on counts alone


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_what_is_empty_passes_nothing(rule: Rule) -> None:
    for name, _, (with_value, path, value) in variants(rule, tuple):
        status = _status(judged(rule, with_value(())))
        decides = any(
            _status(judged(rule, with_value(tuple(changed(item, inner, extreme) for item in value)))) != "pass"
            for item in value[:1]
            for inner, leaf in leaves(item)
            if not isinstance(leaf, tuple)
            for extreme in EXTREMES
        )
        rest = rule.id == "A301" and path[-1] == "points"  # the other operation is left to judge by
        assert rest or not (decides and status == "pass" and path[-1] not in WANTED_EMPTY), name


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
@pytest.mark.parametrize("n", [0, 1])
def test_no_samples_pass_nothing(rule: Rule, n: int) -> None:
    counts = {"n", "n_right", "n_wrong", "correct", "clean_correct", "lost", "gained", "zero"}
    records = rule.examples.passing()
    for number, record in enumerate(records):
        for path, value in leaves(record):
            if path[-1] in counts and isinstance(value, int):
                records = tuple(changed(each, path, n) if i == number else each for i, each in enumerate(records))
    status = _status(judged(rule, records))
    if n == 0 and rule.id != "A513" and any(path[-1] == "n" for record in records for path, _ in leaves(record)):
        assert status != "pass"


def _status(result: RuleResult | None) -> str:
    return "not run" if result is None else result.status


@pytest.mark.parametrize("k", [1, 2, 1000])
def test_any_number_of_classes(k: int) -> None:
    per_class = tuple(ClassAccuracy.of(1, 1, name=str(i)) for i in range(k))
    counts = {"correct": k, "n": k, "low": 0.6, "accuracy": 1.0, "high": 1.0, "per_class": per_class, "confusion": ()}
    record = ex.clean().model_copy(update=counts)
    statuses = {verdict.rule: verdict.status for verdict in judge([record])}
    # a constant prediction is right for one class, and of two images by chance
    assert statuses["A101"] == {1: "error", 2: "cannot tell", 1000: "pass"}[k]
    assert statuses["A102"] == {1: "not run", 2: "not run", 1000: "cannot tell"}[k]


def test_a_share_that_is_no_number_is_not_passed_over() -> None:
    good, bad = ClassAccuracy.of(90, 100, name="good"), ClassAccuracy.of(90, 100, name="bad")
    bad = bad.model_copy(update={"accuracy": math.nan, "low": math.nan, "high": math.nan})
    for per_class in ((good, bad), (bad, good)):
        record: CleanAccuracy = ex.clean(180, 200, per_class=per_class)
        assert {v.rule: v.status for v in judge([record])}["A102"] == "error"


def fail(*kinds: str, measurement: str = "pgd") -> FailedMeasurement:
    return FailedMeasurement(
        stage="attacks", measurement=measurement, missing=kinds, reason="no gradient", way_out="mend the model"
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_a_rule_whose_measurement_failed_could_not_run(rule: Rule) -> None:
    failures = [fail(kind_of(need)) for need in rule.needs]
    for failure in failures:
        (verdict,) = judge([failure], rules=[rule])
        assert verdict.status == "could not run"
        assert "no gradient" in verdict.measured
        assert (verdict.where, verdict.fix) == ("attacks (pgd)", "mend the model")
        assert not verdict.fails("warn")


def test_only_the_rules_of_the_attack_that_failed_could_not_run() -> None:
    records = [ex.attacked("fgsm", 800), fail("robust_accuracy"), ex.signed_steps(0.3, 2.0)]
    statuses = {verdict.rule: verdict.status for verdict in judge(records)}
    assert {rule: statuses[rule] for rule in ("A201", "A202", "A204", "A205", "A206")} == {
        "A201": "pass",
        "A202": "could not run",
        "A204": "could not run",
        "A205": "pass",
        "A206": "pass",
    }
    nobody_right = [ex.attacked("fgsm", 0, clean_correct=0), fail("robust_accuracy")]
    assert {v.rule: v.status for v in judge(nobody_right)}["A201"] == "not run"


def test_a_rule_that_fails_loses_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Evidence) -> RuleResult:
        raise KeyError("typo")

    rules = [rule for rule in RULES if rule.id in {"A101", "A103"}]
    monkeypatch.setitem(vars(rules[0]), "judge", broken)
    verdicts = {verdict.rule: verdict for verdict in judge([ex.clean()], rules=rules)}
    assert verdicts["A101"].status == "could not run"
    assert verdicts["A101"].measured == "could not be judged: KeyError: 'typo'"
    assert verdicts["A103"].status == "pass"


def test_outputs_that_are_all_nan_pass_no_rule_about_outputs() -> None:
    nothing = ex.clean(0, non_finite=1000, expected_calibration_error=0.0, mean_confidence=math.nan)
    audit = ex.modes(repeat_gap=math.nan, batch_gap=0.0, train_eval_gap=math.nan)
    statuses = {verdict.rule: verdict.status for verdict in judge([nothing, audit])}
    assert statuses["A104"] == "error"
    assert {statuses[rule] for rule in ("A103", "A502", "A503", "A504")} == {"not run"}
