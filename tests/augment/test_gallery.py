"""Galleries: what they show is what the operations do, safely named."""

import base64
import hashlib
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from assay.augment.gallery import draw_operations, draw_policy, render_gallery, sweep_operation
from assay.augment.operations import TWELVE
from assay.augment.plan import apply_operation
from assay.augment.policies import flip_crop
from assay.augment.sheet import render_sheet
from assay.errors import OptionError


@pytest.fixture
def picture():
    return torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_preset_shows_the_twelve_as_the_batch_function_makes_them(picture):
    gallery = draw_operations(picture, title="x")
    panels = {panel.name: panel for panel in gallery.panels}
    assert set(panels) == {*TWELVE, "Hue"}
    assert torch.equal(panels["Rotate"].image, apply_operation(picture[None], "Rotate", 20.0)[0])
    assert (panels["Posterize"].detail, panels["ShearX"].detail, panels["Sharpness"].detail) == (
        "3 bits",
        "−10°",
        "×20",
    )
    assert {strip.name for strip in gallery.strips} >= set(TWELVE) - {"ShearY", "TranslateY"}


def test_a_large_photograph_moves_by_200_pixels_and_a_small_one_by_its_share():
    for side, expected in ((640, "200 px"), (32, "12 px")):
        gallery = draw_operations(torch.zeros(1, side, side, dtype=torch.uint8), title="x", sweep=False)
        assert next(panel.detail for panel in gallery.panels if panel.name == "TranslateX") == expected


def test_a_sweep_runs_from_end_to_end_through_the_picture_itself(picture):
    strip = sweep_operation(picture, "rotate")
    assert [panel.name for panel in strip.panels] == ["−45°", "−30°", "−15°", "0°", "15°", "30°", "45°"]
    assert torch.equal(strip.panels[3].image, picture)
    assert [panel.name for panel in sweep_operation(picture, "Equalize").panels] == ["before", "after"]


def test_a_policy_strip_shows_what_each_epoch_makes_of_a_sample(picture):
    images, ids = torch.stack([picture, picture]), torch.tensor([4, 9])
    gallery = draw_policy(images, ids, ["one", "two"], policy=flip_crop(), title="x", seed=2, draws=3)
    assert [strip.name for strip in gallery.strips] == ["one", "two"]
    assert torch.equal(gallery.strips[1].panels[3].image, flip_crop()(images, ids, seed=2, epoch=2)[1])


def test_the_page_holds_the_pictures_and_asks_nothing_of_the_network(picture):
    page = render_gallery(draw_operations(picture, title="<script>alert(1)</script>"))
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert page.count("<script") == 1
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert re.findall(r"""(?:src|href)=["'](?!data:|#)""", page) == []
    assert re.findall(r"url\((?!data:)", page) == []
    assert "http" not in page.replace(script, "").replace("http-equiv", "")
    encoded = re.search(r'alt="Solarize[^"]*"', page)
    assert encoded is not None
    shown = page[: encoded.start()].rpartition("base64,")[2].partition('"')[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown))))
    solarized = apply_operation(picture[None], "Solarize", 200.0)[0]
    assert np.array_equal(pixels, solarized.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_the_sheet_is_a_png_with_the_pictures_in_it(channels, picture):
    gallery = draw_operations(picture[:channels], title="a long title " * 12)
    sheet = np.asarray(Image.open(io.BytesIO(render_sheet(gallery))))
    assert sheet.shape[1] == 1680
    assert sheet.shape[0] > 1200
    wanted = gallery.original.image[:, 0, 0].expand(3).numpy()
    assert (sheet == wanted).all(axis=2).sum() > 100  # its first pixel, enlarged


def test_a_policy_shows_a_photograph_larger_than_small_pictures():
    def widths(side):
        image = torch.full((1, 1, side, side), 9, dtype=torch.uint8)
        gallery = draw_policy(image, torch.tensor([0]), ["x"], policy=flip_crop(), title="x", draws=7)
        sheet = np.asarray(Image.open(io.BytesIO(render_sheet(gallery))))
        return render_gallery(gallery), int((sheet == 9).all(axis=2).sum(axis=1).max())

    small_page, small = widths(32)
    large_page, large = widths(200)
    assert large > 4 * small / 8 * 1.9
    assert ('class="row large"' in small_page, 'class="row large"' in large_page) == (False, True)


def test_the_sheet_spells_what_its_font_lacks():
    from assay.augment.sheet import _plain

    assert _plain("Käfer · ×0.5 ≥ −3°") == "Kafer · x0.5 from -3°"


def test_one_of_a_kind_is_counted_as_one(picture):
    gallery = draw_operations(picture, title="x", magnitudes={"Rotate": 5})
    assert gallery.subtitle == "30 × 20 pixels, 1 operation"
    shown = draw_policy(picture[None], torch.tensor([0]), ["x"], policy=flip_crop(), title="x")
    assert shown.subtitle.startswith("1 sample of ")


def test_the_page_begins_with_what_was_made_of_what(picture):
    one = draw_operations(picture, title="x", magnitudes={"Hue": 0.1})
    made = {"x": draw_operations(picture, title="x"), "one": one}
    made["policy"] = draw_policy(
        picture[None], torch.tensor([3]), ["a"], policy=flip_crop(padding=2), title="flip", draws=1
    )
    headlines = {name: re.findall(r"<h1>(.*?)</h1>", render_gallery(gallery)) for name, gallery in made.items()}
    assert headlines == {
        "x": ["What 13 operations make of x"],
        "one": ["What 1 operation makes of x"],
        "policy": ["What flip makes of 1 sample"],
    }


def test_names_and_magnitudes_are_checked(picture):
    with pytest.raises(OptionError, match=r"magnitude of Posterize: expected 0..8 \(bits\), got 9"):
        draw_operations(picture, title="x", magnitudes={"Posterize": 9})
    with pytest.raises(OptionError, match="operation: expected one of Identity, .*, got 'Swirl'"):
        draw_operations(picture, title="x", magnitudes={"Swirl": 1})
