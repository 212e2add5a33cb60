"""``assay explain``: every rule by category, and one with everything that is known of it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.errors import InputError
from assay.verdict import RULES, Rule


def explain(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False, env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def test_every_rule_is_listed_under_its_category() -> None:
    text = explain()
    places = [text.index(f"{rule.id} {rule.claim}") for rule in RULES]
    assert places == sorted(places)
    assert text.startswith("accuracy A101 Better than the majority-class baseline A102")
    assert text.index("configuration A501") > text.index("A417")


def test_one_rule_is_shown_with_its_examples_and_limits() -> None:
    assert explain("a103") == (
        "A103 · accuracy Calibrated: confidence matches accuracy "
        "Or: Miscalibrated: confidence does not match accuracy: 98.0 % sure, 90.0 % right "
        "Holds when expected calibration error at most 5 % at the upper end of its 95 % interval (a warning where the "
        "lower end is above, an error above 15 %) "
        "Why Thresholds, rankings and abstention by confidence assume that nine of ten samples at 90 % are correct. "
        "Fix Fit one temperature on held-out data and divide the logits by it; it changes no prediction. "
        "Shown by assay check MODEL --data DATA "
        "Mended by assay check MODEL --data DATA --apply-fixes "
        "Applied by assay check --apply-fixes (temperature) "
        "Known limits The binned error is biased upwards on few samples; the lower end allows for it. It averages over "
        "classes: a model can be calibrated in the mean and overconfident on one class, or under a shift of the data. "
        "Example warns: 8.0 %; mean confidence 98.0 %, accuracy 90.0 % (the model is overconfident) "
        "holds: 2.0 %; mean confidence 92.0 %, accuracy 90.0 % "
        "Reference Guo et al. 2017, On calibration of modern neural networks, arXiv:1706.04599 "
        "Judged from clean_accuracy"
    )


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_every_rule_can_be_explained(rule: Rule) -> None:
    text = explain(rule.id)
    for part in (rule.claim, rule.threshold, rule.why, rule.fix, rule.limits, rule.reference):
        assert " ".join(part.split()) in text
    assert ("Applied by" in text) == bool(rule.remedy)


def test_a_wrong_id_is_refused() -> None:
    with pytest.raises(InputError) as refused:
        explain("A299")
    expected = "rule: expected an id such as A219, A702, A602 (assay explain lists all), got A299"
    assert (str(refused.value), refused.value.exit_code) == (expected, 2)
