from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from assay.records.accuracy import CleanAccuracy
from assay.records.attack import RobustAccuracy
from assay.records.checkup import Checkup
from assay.report.model_card import render_model_card

GOLDEN = Path(__file__).parent / "golden" / "model-card.md"


def rendered(text: str) -> str:
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def front_matter(card: str) -> dict[str, object]:
    start, head, _ = card.split("---\n", maxsplit=2)
    assert start == ""
    return dict(yaml.safe_load(head))


def test_the_card_is_as_it_was(few: Checkup) -> None:
    assert render_model_card(few) == GOLDEN.read_text()


def test_the_hub_reads_every_accuracy_back(checkup: Checkup) -> None:
    card = ModelCard(render_model_card(checkup))
    results = {result.metric_name: result for result in card.data.eval_results or []}
    clean = checkup.first(CleanAccuracy)
    assert clean is not None
    assert results["accuracy on clean images"].metric_value == clean.accuracy
    assert results["accuracy on clean images"].metric_args == {"n": clean.n, "low": clean.low, "high": clean.high}
    assert {result.dataset_name for result in results.values()} == {"cifar10"}
    pgd = next(each for each in checkup.each(RobustAccuracy) if each.attack == "pgd")
    told = results["robust accuracy, PGD, 20 steps, L∞ 8/255"]
    assert told.metric_value == pgd.accuracy
    assert told.metric_args is not None
    assert told.metric_args["epsilon"] == pgd.epsilon
    assert card.data.model_name == "resnet20"


def test_every_attack_within_a_ball_stands_in_the_table(checkup: Checkup) -> None:
    text = rendered(render_model_card(checkup).split("---\n", maxsplit=2)[2])
    rows = [re.sub(r"<[^>]*>", "", row) for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL)]
    within = [each for each in checkup.each(RobustAccuracy) if each.constrained]
    assert sum("after " in row for row in rows) == len(within)
    assert any("91.7" in row and "89.8–93.3" in row and "1,000" in row for row in rows)


def test_hostile_names_are_data_not_structure(hostile: Checkup) -> None:
    card = render_model_card(hostile)
    head = front_matter(card)
    assert set(head) <= {"tags", "pipeline_tag", "model-index"}
    assert "<script" not in rendered(card.split("---\n", maxsplit=2)[2])


@pytest.mark.parametrize("name", ["a: b", "- x", "yes", '"', "a\n---\nb", "😀", "\ufffe", "null", "#", "\\u0041"])
def test_any_name_comes_back_from_yaml(name: str, checkup: Checkup) -> None:
    subject = checkup.subject.model_copy(update={"model": name})
    index = front_matter(render_model_card(checkup.model_copy(update={"subject": subject})))["model-index"]
    assert isinstance(index, list)
    assert isinstance(index[0]["name"], str)
    assert index[0]["name"] == name or not name.isprintable()


def test_what_a_check_cannot_know_is_left_to_be_filled_in(checkup: Checkup) -> None:
    assert "not known from a check: to be filled in" in render_model_card(checkup)


def test_without_measurements_the_card_has_no_results(bare: Checkup) -> None:
    card = render_model_card(bare)
    assert "model-index" not in front_matter(card)
    assert "Neither the accuracy nor an attack was measured." in card


def test_a_measurement_that_failed_is_a_limit(unmeasured: Checkup) -> None:
    assert "- ? Could not run: attacks (pgd), no gradient" in render_model_card(unmeasured)
