from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image

from assay.records.attack import SampleGallery
from assay.records.checkup import Checkup
from assay.report.check_page import render_page
from assay.report.parts import SampleGrid
from assay.report.sections import build_sections


@pytest.fixture
def record(checkup: Checkup) -> SampleGallery:
    found = checkup.first(SampleGallery)
    assert found is not None
    return found


def grid_of(checkup: Checkup, record: SampleGallery) -> SampleGrid:
    section, *_ = build_sections(checkup.model_copy(update={"records": (record,)}))
    (grid,) = section.parts
    assert isinstance(grid, SampleGrid)
    return grid


def test_every_sample_is_told_by_its_fate(checkup: Checkup, record: SampleGallery) -> None:
    grid = grid_of(checkup, record)
    assert [tile.fate for tile in grid.tiles[:3]] == ["wrong", "broken", "held"]
    tips = [tile.tip.replace("\u00a0", " ") for tile in grid.tiles[:3]]
    assert tips[0] == "airplane, test/0: taken for automobile (60.0 %) before any attack"
    assert tips[1] == (
        "automobile, test/1: known as automobile (60.3 %), then taken for bird (90.0 %), broken after 3 steps"
    )
    assert tips[2] == "bird, test/2: known as bird (60.7 %), and after the attack (90.0 %)"


def test_a_tile_lies_where_its_picture_is_on_the_sheet(checkup: Checkup, record: SampleGallery) -> None:
    grid = grid_of(checkup, record)
    assert (grid.width, grid.height, grid.sheet_width, grid.sharp) == (64, 64, 20 * 64, True)
    assert [(grid.tiles[i].x, grid.tiles[i].y) for i in (0, 1, 19, 20, 41)] == [
        (0, 0), (64, 0), (19 * 64, 0), (0, 64), (64, 128),
    ]  # fmt: skip


def test_a_large_tile_is_shown_at_half_its_size(checkup: Checkup, record: SampleGallery) -> None:
    encoded = base64.b64encode(_jpeg(20 * 128, 5 * 96)).decode()
    grid = grid_of(checkup, record.model_copy(update={"tile": (96, 128), "sheet": encoded}))
    assert (grid.width, grid.height, grid.sheet_width, grid.sharp) == (64, 48, 20 * 64, False)
    assert [(grid.tiles[i].x, grid.tiles[i].y) for i in (1, 20)] == [(64, 0), (0, 48)]
    page = render_page(checkup.model_copy(update={"records": (record.model_copy(update={"sheet": encoded}),)}))
    assert "background-image: url(data:image/jpeg;base64," in page


def _jpeg(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="JPEG")
    return buffer.getvalue()


def test_choices_count_their_tiles(checkup: Checkup, record: SampleGallery) -> None:
    grid = grid_of(checkup, record)
    assert [name for _, name, _ in grid.labels] == list(record.classes)
    assert sum(n for _, _, n in grid.labels) == 90
    assert sum(n for _, _, n in grid.takens) == 60
    assert (grid.count("wrong"), grid.count("broken", "held")) == (30, 60)


@pytest.mark.parametrize(
    "damage", [{"sheet": "x"}, {"tile": (0, 0)}, {"tile": (32, 64)}, {"columns": 0, "sheet": ""}, {"classes": ()}]
)
def test_a_damaged_record_keeps_its_words(checkup: Checkup, record: SampleGallery, damage: dict[str, object]) -> None:
    grid = grid_of(checkup, record.model_copy(update=damage))
    assert len(grid.tiles) == 90
    assert (grid.sheet is None) == (damage.keys() != {"classes"})


def test_an_output_that_is_not_finite_has_no_class(checkup: Checkup, record: SampleGallery) -> None:
    lost = record.samples[0].model_copy(update={"before": -1})
    grid = grid_of(checkup, record.model_copy(update={"samples": (lost,)}))
    assert "taken for no class" in grid.tiles[0].tip


def test_the_sheet_stands_on_the_page_once(checkup: Checkup, record: SampleGallery) -> None:
    page = render_page(checkup)
    assert page.count(record.sheet) == 1
    assert len(re.findall(r"<li class=\"[a-z-]+\" data-before=", page)) == 90
