from __future__ import annotations

import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import pytest
import torch

from assay.app.panels import show_attack, show_error, show_factorization, show_prediction, show_recurrence, style
from assay.report.theme import COLOURS
from assay.views.attack import AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.factorization import factor_picture
from assay.views.picture import apply_operations, predict_picture, sample_at
from assay.views.recurrence import RecurrenceChoice, measure_recurrence

HOSTILE = '"><img src=x onerror=alert(1)>\u202e'


def command_of(html: str) -> list[str]:
    """The words of the printed command, as a shell would split them."""

    class Reader(HTMLParser):
        inside, text = False, ""

        def handle_starttag(self, tag, attrs):
            self.inside = tag == "code"

        def handle_endtag(self, tag):
            self.inside = False

        def handle_data(self, data):
            self.text += data if self.inside else ""

    reader = Reader()
    reader.feed(html)
    return shlex.split(reader.text)


def test_a_look_shows_picture_gradient_probabilities_and_its_command(network_context):
    picture = apply_operations(sample_at(network_context.dataset, 2), {"Rotate": 15.0})
    html = show_prediction(network_context, predict_picture(network_context, picture))
    assert html.count("data:image/png;base64,") == 2
    assert len(re.findall(r"<i style=\"width:[\d.]+%\"></i>", html)) == 4
    assert command_of(html) == [
        "assay",
        "look",
        "net.py:build",
        "--data",
        "x",
        "--sample",
        "11",
        "--apply",
        "rotate=15",
    ]


def test_a_breakage_shows_three_pictures_and_the_loss(network_context):
    picture = sample_at(network_context.dataset, 2)
    html = show_attack(network_context, attack_picture(network_context, picture, AttackChoice(steps=4, epsilon=0.1)))
    assert html.count("data:image/png;base64,") == 3
    assert html.count("<svg") == 1
    assert command_of(html)[-8:] == ["--attack", "pgd", "--norm", "linf", "--epsilon", "25.5/255", "--steps", "4"]
    html = show_attack(network_context, find_smallest_perturbation(network_context, picture, norm="l2"))
    assert "The smallest perturbation found is L2" in html
    assert command_of(html)[-3:] == ["--smallest", "--norm", "l2"]


def test_the_best_attempt_of_an_attack_that_failed_is_shown(network_context):
    picture = sample_at(network_context.dataset, 2)
    held = attack_picture(network_context, picture, AttackChoice(steps=3, epsilon=0.2 / 255))
    html = show_attack(network_context, held)
    assert "Held: the best attempt of pgd within L∞ 0.2/255 lowered" in unescape(html)
    assert "<b>best attempt</b>" in html
    assert f"<b>perturbation, ×{held.magnified:g}</b>" in html
    assert held.magnified == 512
    assert "<dt>distance of the best attempt, L∞</dt><dd>0.2/255</dd>" in html


def test_a_picture_that_was_wrong_before_is_shown_once(network_context):
    picture = sample_at(network_context.dataset, 2)
    wrong = picture.with_label((picture.label + 1) % 4, name="x")
    html = show_attack(network_context, attack_picture(network_context, wrong, AttackChoice()))
    assert "Misclassified before any attack" in html
    assert "<img" not in html
    assert "distance" not in html


@pytest.mark.parametrize("quiet", [True, False])
def test_names_from_outside_are_text(network_context, quiet):
    classes = tuple(HOSTILE + str(i) for i in range(4))
    hostile = replace(network_context, dataset=replace(network_context.dataset, classes=classes))
    picture = replace(sample_at(hostile.dataset, 0), name=HOSTILE, words=("--image", HOSTILE))
    html = show_prediction(hostile, predict_picture(hostile, picture))
    html += show_attack(hostile, attack_picture(hostile, picture, AttackChoice(epsilon=0.0 if quiet else 0.2)))
    html += show_factorization(factor_picture(torch.rand(1, 5, 5), name=HOSTILE, rank=2, words=(HOSTILE,)))
    html += show_error(HOSTILE)
    assert "<img src=x" not in html
    assert "onerror=alert(1)&gt;" in html
    assert "\u202e" not in html


def test_factors_and_recurrences_print_their_commands():
    html = show_factorization(factor_picture(torch.rand(3, 9, 8), name="p", rank=2, scale=2, words=("p q.png",)))
    assert command_of(html) == ["assay", "factor", "p q.png", "--rank", "2", "--scale", "2"]
    assert html.count("<svg") == 2
    html = show_recurrence(measure_recurrence(RecurrenceChoice(radius=1.1, norm=4, hidden=4, length=150)))
    assert command_of(html)[:3] == ["assay", "trace", "rnn-linear"]
    assert "grows to" in html
    assert "necessary for exploding, not sufficient" in html


@pytest.mark.parametrize(("radius", "norm", "change"), [(0, 0, "shrinks"), (0, 3, "shrinks"), (1.5, 5, "grows")])
def test_recurrences_at_the_ends_are_drawn(radius, norm, change):
    recurrence = measure_recurrence(RecurrenceChoice(hidden=4, length=80, radius=radius, norm=norm))
    assert recurrence.matrix.spectral_radius == pytest.approx(radius, abs=1e-3)
    assert recurrence.matrix.norm == pytest.approx(norm, abs=1e-6)
    html = show_recurrence(recurrence)
    assert html.count("<svg") == 1
    assert f"Over 79 steps the gradient {change} to " in html


def test_the_style_sheet_wears_the_colours_of_the_report_and_fetches_nothing():
    sheet = style()
    assert all(colour in sheet for pair in COLOURS.values() for colour in pair)
    assert "url(" not in sheet
    assert "@import" not in sheet
    assert "<" not in sheet
