from __future__ import annotations

import base64
import io
import re
import shlex
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from assay.app.panels import (
    head,
    show_attack,
    show_error,
    show_factorization,
    show_header,
    show_map,
    show_picture,
    show_prediction,
    show_recurrence,
    show_samples,
    style,
)
from assay.data.dataset import ImageDataset
from assay.report.theme import COLOURS
from assay.views.attack import AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.context import ViewContext
from assay.views.explanation import explain_picture
from assay.views.factorization import factor_picture
from assay.views.picture import apply_operations, predict_picture, sample_at
from assay.views.recurrence import RecurrenceChoice, measure_recurrence
from assay.views.samples import SampleSearch

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
    prediction = predict_picture(network_context, picture)
    assert show_picture(prediction).count("data:image/png;base64,") == 2
    html = show_prediction(network_context, prediction)
    assert len(re.findall(r"<i style=\"width:[\d.]+%\"></i>", html)) == 4
    words = ["assay", "look", "net.py:build", "--data", "x", "--sample", "11", "--apply", "rotate=15"]
    assert command_of(html) == words
    command, numbers = copied(html, "command"), copied(html, "numbers")
    assert shlex.split(command) == words
    rows = [line.split("\t") for line in numbers.split("\n")]
    assert rows[0] == ["class", "probability"]
    assert [row[0] for row in rows[1:]] == list(network_context.classes)
    assert [float(row[1]) for row in rows[1:]] == pytest.approx(prediction.probabilities, rel=1e-5)


def copied(html: str, what: str) -> str:
    """What the button that copies this puts into the clipboard."""
    found = re.search(rf'data-copy="([^"]*)" aria-label="Copy the {what}"', html)
    assert found is not None
    return unescape(found[1])


@pytest.mark.parametrize(("side", "kind"), [(32, "png"), (128, "png"), (129, "webp"), (224, "webp"), (900, "webp")])
def test_large_pictures_are_sent_as_webp_of_the_size_they_are_shown_in(side, kind):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3))
    ramp = torch.linspace(0, 255, side).byte()
    images = torch.stack([ramp.expand(side, side), ramp[:, None].expand(side, side), ramp.expand(side, side)])[None]
    data = ImageDataset(images=images, labels=torch.tensor([0]), classes=("a", "b", "c"))
    context = ViewContext(model, data, words=("m",))
    picture = sample_at(data, 0)
    seen = show_picture(predict_picture(context, picture))
    html = seen + show_attack(context, attack_picture(context, picture.with_label(0, name="a"), AttackChoice(steps=2)))
    kinds = re.findall(r"data:image/(\w+);base64,([\w+/=]+)", seen)
    assert kinds[0][0] == kind
    with Image.open(io.BytesIO(base64.b64decode(kinds[0][1]))) as shown:
        assert shown.size == (min(side, 704), min(side, 704))
        if kind == "png":
            assert torch.equal(torch.from_numpy(np.asarray(shown).copy()).permute(2, 0, 1), images[0])
    assert (' class="picture pixels"' in html) == (kind == "png")


def test_thumbnails_are_small_and_named_as_the_command_line_does(network_context):
    search = SampleSearch(network_context)
    html = show_samples(network_context, search.find(start=3, most=5), what="samples")
    assert re.findall(r'data-sample="(\d+)"', html) == ["14", "17", "20", "23", "26"]
    assert html.count("data:image/webp;base64,") == 5
    assert "data:image/png" not in html
    assert "5 samples in places 3 to 7 of 40." in html
    assert 'data-start="&lt;3">Back' in html
    assert 'data-start="8">Further' in html
    last = show_samples(network_context, search.find("wrong", start=0), what="wrong samples")
    assert "No wrong samples in places 0 to 39 of 40." in last
    assert last.count(" disabled") == 2


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
    prediction = predict_picture(hostile, picture)
    html = show_picture(prediction) + show_prediction(hostile, prediction)
    html += show_samples(hostile, SampleSearch(hostile).find(), what="samples")
    html += show_header(replace(hostile, name=HOSTILE))
    html += show_attack(hostile, attack_picture(hostile, picture, AttackChoice(epsilon=0.0 if quiet else 0.2)))
    html += show_map(hostile, replace(explain_picture(hostile, picture, "gradient"), layer=HOSTILE))
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
    assert head().count("</script>") == head().count("</style>") == 1
    assert "http" not in head()
