from __future__ import annotations

import math
import runpy
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest

from assay.records.attack import AdversarialExample, AdversarialGallery, RobustAccuracy
from assay.records.checkup import Measurement
from assay.records.notebook import ROWS, render_record

HELPERS = runpy.run_path(str(Path(__file__).parents[1] / "report" / "test_every_record.py"))
HOSTILE = '"><script>alert(1)</script>'
EMPTY = {"img", "polyline", "br"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed out of order or never; collects tags and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in EMPTY or self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def read(html: str) -> Balanced:
    reader = Balanced()
    reader.feed(html)
    assert reader.open == []
    return reader


def robust(**changes) -> RobustAccuracy:
    values = {
        "attack": "pgd", "norm": "linf", "epsilon": 8 / 255, "step_size": 0.01, "steps": 10, "restarts": 1, "seed": 0,
        "clean_correct": 90, "loss_per_step": tuple(float(i) for i in range(11)), "seconds": 1.5,
    }  # fmt: skip
    return RobustAccuracy.of(25, 100, **(values | changes))


def test_a_record_shows_its_fields_and_a_course():
    seen = read(robust()._repr_html_())
    for text in ("robust accuracy", "loss per step", "0 … 10 (11 values)", "0.03137", "clean correct"):
        assert text in seen.text
    assert seen.tags.count("polyline") == 1
    assert "correct after rounding" not in seen.text  # what is not there takes no line


@pytest.mark.parametrize("fills", HELPERS["FILLS"])
@pytest.mark.parametrize("kind", get_args(get_args(Measurement)[0]), ids=lambda kind: kind.__name__)
def test_every_kind_of_record_is_well_formed_and_small(kind, fills):
    html = HELPERS["fill"](kind, HELPERS["FILLS"][fills])._repr_html_()
    read(html)
    assert len(html) < 400_000
    assert "nan,nan" not in html


def test_texts_are_escaped_and_pictures_are_pictures():
    seen = read(robust(attack=HOSTILE)._repr_html_())
    assert "script" not in seen.tags
    assert HOSTILE in seen.text
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    example = AdversarialExample(
        sample_id=HOSTILE, label="cat", clean_prediction="cat", clean_confidence=1, adversarial_prediction="dog",
        adversarial_confidence=0.9, distance=math.inf, magnified=8, image=png, perturbation=png + '"x', adversarial=png,
    )  # fmt: skip
    gallery = AdversarialGallery(attack="pgd", norm="l2", epsilon=0.5, examples=(example,) * (ROWS + 3))
    seen = read(render_record(gallery))
    assert seen.tags.count("img") == 2 * ROWS
    assert "and 3 more" in seen.text
    assert "script" not in seen.tags


def test_it_brings_no_colour_of_its_own_and_fetches_nothing():
    html = robust()._repr_html_()
    assert "currentColor" in html
    assert "#" not in html.replace("&#", "")
    assert "http" not in html
    assert "<script" not in html
