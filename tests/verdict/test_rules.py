"""Every rule passes on good records, fails on bad ones, and says what was missing."""

from __future__ import annotations

import math

import pytest

from assay.errors import InputError
from assay.records.accuracy import CleanAccuracy
from assay.records.attack import AttackSanity, EpsilonCurve, EpsilonPoint, RobustAccuracy, SanityCheck
from assay.records.base import Record
from assay.records.compression import LayerSpectra, LayerSpectrum
from assay.records.configuration import ModeAudit
from assay.records.finding import Verdict
from assay.records.gradients import GradientFlow, InputGradients, LayerGradient
from assay.records.training import DecayGroups, ParameterGroup
from assay.verdict import RULES, Evidence, find_rule, judge


def clean(correct: int = 900, n: int = 1000, **changes: object) -> CleanAccuracy:
    half = n // 2
    fields: dict[str, object] = {
        "loss": 0.3,
        "per_class": (
            {"name": "cat", "correct": correct // 2, "n": half, "accuracy": correct / n, "low": 0.85, "high": 0.95},
            {"name": "dog", "correct": correct // 2, "n": half, "accuracy": correct / n, "low": 0.85, "high": 0.95},
        ),
        "confusion": ((correct // 2, half - correct // 2), (half - correct // 2, correct // 2)),
        "expected_calibration_error": 0.02,
        "calibration": (),
        "mean_confidence": 0.92,
        "images_per_second": 1e3,
    }
    return CleanAccuracy.of(correct, n, **(fields | changes))


def attacked(name: str, correct: int, **changes: object) -> RobustAccuracy:
    fields: dict[str, object] = {
        "attack": name,
        "norm": "linf",
        "epsilon": 8 / 255,
        "step_size": 2 / 255,
        "steps": 10,
        "restarts": 1,
        "seed": 0,
        "clean_correct": 900,
        "seconds": 1.0,
    }
    return RobustAccuracy.of(correct, 1000, **(fields | changes))


def curve(median: float | None) -> EpsilonCurve:
    points = (EpsilonPoint.of(90, 100, epsilon=0.0), EpsilonPoint.of(10, 100, epsilon=8 / 255))
    return EpsilonCurve(attack="pgd", norm="linf", steps=10, points=points, median_epsilon=median, seconds=1.0)


def layer(name: str, gradient: float, *, dead: float | None = None, non_finite: int = 0) -> LayerGradient:
    return LayerGradient(
        name=name,
        type="Linear",
        depth=0,
        parameters=4,
        weight_norm=1.0,
        weight_gradient=1.0,
        relative_gradient=1.0,
        activation=1.0,
        activation_gradient=gradient,
        dead=dead,
        non_finite=non_finite,
    )


def flow(*layers: LayerGradient, first_non_finite: str | None = None) -> GradientFlow:
    return GradientFlow(layers=layers, n=8, loss=1.0, decay_per_layer=0.9, first_non_finite=first_non_finite)


def maps(zero: int = 0) -> InputGradients:
    return InputGradients(
        n_right=90,
        n_wrong=10,
        median_norm_right=0.1,
        median_norm_wrong=1.0,
        quantiles_right=(),
        quantiles_wrong=(),
        concentration=0.5,
        zero=zero,
        non_finite=0,
        samples=(),
    )


def audit(**changes: object) -> ModeAudit:
    fields: dict[str, object] = {
        "training_flag": False,
        "modules_in_train_mode": (),
        "modules_in_eval_mode": ("bn",),
        "frozen_parameters": 0,
        "train_eval_gap": 0.2,
        "repeat_gap": 0.0,
        "batch_gap": 1e-7,
        "outputs_look_like": "logits",
    }
    return ModeAudit.model_validate(fields | changes)


def groups(*missed: str) -> DecayGroups:
    norm = ParameterGroup(role="norm", names=("bn1.weight", "norm.weight"), parameters=8)
    return DecayGroups(groups=(norm,), frozen=0, tied=0, missed_by_name=missed)


def spectra(*, redundancy: float = 0.1, condition: float = 10.0) -> LayerSpectra:
    one = LayerSpectrum(
        name="fc",
        type="Linear",
        rows=4,
        columns=8,
        singular_values=(1.0, 0.1),
        stable_rank=1.0,
        effective_rank=1.5,
        rank_for_99=2,
        condition_number=condition,
    )
    return LayerSpectra(layers=(one,), redundancy=redundancy)


CASES: list[tuple[str, str, list[Record]]] = [
    ("A101", "pass", [clean()]),
    ("A101", "error", [clean(correct=450)]),
    ("A101", "warn", [clean(correct=510)]),
    ("A102", "pass", [clean()]),
    ("A103", "pass", [clean()]),
    ("A103", "warn", [clean(expected_calibration_error=0.08)]),
    ("A103", "error", [clean(expected_calibration_error=0.3)]),
    ("A103", "error", [clean(expected_calibration_error=math.nan)]),
    ("A104", "pass", [clean()]),
    ("A104", "error", [clean(non_finite=1)]),
    ("A105", "pass", [clean()]),
    ("A105", "warn", [clean(correct=45, n=50)]),
    ("A201", "pass", [attacked("fgsm", 800)]),
    ("A201", "warn", [attacked("fgsm", 550)]),
    ("A201", "error", [attacked("fgsm", 250)]),
    ("A201", "not run", [attacked("fgsm", 0, clean_correct=0)]),
    ("A202", "pass", [attacked("pgd", 800)]),
    ("A202", "error", [attacked("pgd", 0)]),
    ("A202", "not run", [attacked("fgsm", 800)]),
    ("A203", "pass", [curve(3 / 255)]),
    ("A203", "pass", [curve(None)]),
    ("A203", "warn", [curve(1.5 / 255)]),
    ("A203", "error", [curve(0.5 / 255)]),
    ("A204", "pass", [attacked("fgsm", 300), attacked("pgd", 100)]),
    ("A204", "warn", [attacked("fgsm", 300), attacked("pgd", 310)]),
    ("A204", "error", [attacked("fgsm", 300), attacked("pgd", 500)]),
    ("A204", "not run", [attacked("fgsm", 300), attacked("pgd", 500, epsilon=4 / 255)]),
    ("A205", "pass", [attacked("signed-steps", 0, loss_per_step=(0.3, 2.0, 5.0), constrained=False)]),
    ("A205", "warn", [attacked("signed-steps", 0, loss_per_step=(0.3, 2.0, 1.5), constrained=False)]),
    ("A205", "error", [attacked("signed-steps", 0, loss_per_step=(0.3, 0.3), constrained=False)]),
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
    ("A404", "pass", [maps()]),
    ("A404", "warn", [maps(zero=5)]),
    ("A404", "error", [maps(zero=50)]),
    ("A501", "pass", [audit()]),
    ("A501", "warn", [audit(training_flag=True, modules_in_train_mode=("bn",))]),
    ("A502", "pass", [audit()]),
    ("A502", "error", [audit(repeat_gap=0.1)]),
    ("A503", "pass", [audit()]),
    ("A503", "warn", [audit(batch_gap=5e-3)]),
    ("A503", "error", [audit(batch_gap=0.1)]),
    ("A503", "not run", [audit(batch_gap=0.1, repeat_gap=0.1)]),
    ("A504", "pass", [audit()]),
    ("A504", "warn", [audit(outputs_look_like="probabilities")]),
    ("A505", "pass", [groups()]),
    ("A505", "warn", [groups("norm.weight")]),
    ("A601", "pass", [spectra()]),
    ("A601", "warn", [spectra(redundancy=0.7)]),
    ("A602", "pass", [spectra()]),
    ("A602", "warn", [spectra(condition=math.inf)]),
]


@pytest.mark.parametrize(("rule", "status", "records"), CASES, ids=[f"{c[0]}-{c[1]}-{i}" for i, c in enumerate(CASES)])
def test_a_rule_judges(rule: str, status: str, records: list[Record]) -> None:
    verdict = find_rule(rule).verdict(Evidence(records))
    assert verdict.status == status, verdict.measured
    assert verdict.measured
    assert math.isnan(verdict.value) == (status == "not run" or "nan" in verdict.measured)


def test_a_class_left_behind_is_named() -> None:
    groups_ = (
        {"name": "cat", "correct": 490, "n": 500, "accuracy": 0.98, "low": 0.96, "high": 0.99},
        {"name": "dog", "correct": 250, "n": 500, "accuracy": 0.50, "low": 0.46, "high": 0.54},
    )
    verdict = find_rule("A102").verdict(Evidence([clean(correct=740, per_class=groups_)]))
    assert verdict.status == "warn"
    assert verdict.where == "dog"


def test_every_rule_is_tried_both_ways() -> None:
    tried: dict[str, set[str]] = {}
    for rule, status, _ in CASES:
        tried.setdefault(rule, set()).add(status)
    core = {rule.id for rule in RULES if rule.id in tried}
    for rule in core - {"A102"}:
        assert "pass" in tried[rule], rule
        assert tried[rule] & {"warn", "error"}, rule


def test_without_records_every_rule_says_what_is_missing() -> None:
    for verdict in judge([]):
        assert verdict.status == "not run"
        assert "was measured" in verdict.measured


def test_errors_come_first() -> None:
    order = [verdict.status for verdict in judge([clean(non_finite=1, expected_calibration_error=0.08)])]
    assert order == sorted(order, key=["error", "warn", "pass", "not run"].index)
    assert order[0] == "error"


def test_ids_are_unique_and_belong_to_their_category() -> None:
    digits = dict(
        zip(
            "123456",
            ("accuracy", "robustness", "invariance", "optimisation", "configuration", "redundancy"),
            strict=True,
        )
    )
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    for rule in RULES:
        assert rule.category == digits[rule.id[1]], rule.id
        assert all((rule.claim, rule.threshold, rule.why, rule.fix, rule.reference)), rule.id


def test_an_unknown_rule_is_refused_with_near_ones() -> None:
    assert find_rule("a201").id == "A201"
    with pytest.raises(InputError, match="rule: expected an id such as A2.*got A209"):
        find_rule("A209")


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
    beside = {verdict.rule: verdict.status for verdict in judge([sanity, audit(repeat_gap=0.5)])}
    assert "A212" not in beside
    assert beside["A502"] == beside["A214"] == "error"


def test_rules_about_the_measurement_are_not_scored() -> None:
    about_the_model = {"A201", "A202", "A203"}
    robustness = {rule.id: rule.scored for rule in RULES if rule.category == "robustness"}
    assert {rule for rule, scored in robustness.items() if scored} == about_the_model
    assert all(rule.scored for rule in RULES if rule.category != "robustness")
    verdicts = {verdict.rule: verdict.scored for verdict in judge([attacked("fgsm", 800)])}
    assert (verdicts["A201"], verdicts["A206"]) == (True, False)
