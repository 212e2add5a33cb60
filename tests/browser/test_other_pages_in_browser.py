"""The pages of factor and augment in a real browser: the same frame, so the same promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.augment.gallery import draw_operations, render_gallery
from assay.lowrank import as_matrix, factorize, measure_landscape
from assay.lowrank.summary import SCALES, describe_factorization
from assay.report.factor_page import render_factor_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, reports: dict[str, Path]) -> None:
    """Both pages, put where ``open_report`` finds them."""
    source = torch.Generator().manual_seed(0)
    x = torch.randn(12, 9, generator=source, dtype=torch.float64)
    record = describe_factorization(
        factorize(x, 3), as_matrix(x), source="x" * 80, landscape=measure_landscape(x, 3), scales=SCALES
    )
    picture = torch.randint(0, 256, (3, 24, 32), generator=source, dtype=torch.uint8)
    folder = tmp_path_factory.mktemp("pages")
    for name, page in (
        ("factor", render_factor_page(record)),
        ("gallery", render_gallery(draw_operations(picture, title="a picture"))),
    ):
        reports[name] = folder / f"{name}.html"
        reports[name].write_text(page)


@pytest.mark.parametrize("name", ["factor", "gallery"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1440, "dark")])
def test_pages_fit_ask_for_nothing_and_switch_their_colours(
    name: str, width: int, scheme: str, pages: None, open_report: Callable[..., Any]
) -> None:
    visit = open_report(name, width=width, scheme=scheme)
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").count() == 1
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    button = page.get_by_role("button", name="Colours")
    button.click()  # auto → light
    if scheme == "light":
        button.click()  # light → dark
    assert page.evaluate(ground) != before
    assert visit.requests == []
    assert visit.complaints == []


def test_the_error_of_a_factorisation_is_read_by_arrow_keys(pages: None, open_report: Callable[..., Any]) -> None:
    page = open_report("factor", width=1440).page
    chart = page.locator("figure", has_text="The best of rank 3").locator(".wide")
    chart.focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tooltip").inner_text().startswith("rank ")
    assert page.locator("#announcement").inner_text().startswith("rank ")
