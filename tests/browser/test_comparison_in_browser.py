"""The pages of compare (checks, models) and history in a real browser: nothing overflows, nothing is fetched."""

from __future__ import annotations

import copy
import random
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from assay.check import compare_models
from assay.comparison import compare, trace_history
from assay.data.dataset import ImageDataset
from assay.report.comparison_page import render_comparison
from assay.report.history_page import render_history
from assay.report.models_page import render_models

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, reports: dict[str, Path]) -> None:
    """Both pages, drawn from small checkups and put where ``open_report`` finds them."""
    make = runpy.run_path(str(Path(__file__).parents[1] / "comparison" / "conftest.py"))["make_checkup"]
    source = random.Random(0)
    checks = []
    for day, share in enumerate((0.7, 0.8, 0.75), start=1):
        right = [source.random() < share for _ in range(200)]
        robust = [value and source.random() < 0.4 for value in right]
        levels = [source.randint(1, 4) if value else 0 for value in right]
        checks.append(
            make(right, robust, levels, started=f"2026-01-0{day}T00:00:00+00:00", model=f"net-{'x' * 60}{day}")
        )
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (80, 3, 8, 8), dtype=torch.uint8, generator=draws)
    data = ImageDataset(images, torch.arange(80) % 2, classes=("a" * 60, "<b>"))
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 2))
    others = [copy.deepcopy(net).bfloat16(), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))]
    models = compare_models([net, *others], data, names=("net", "x" * 90, "<i>other"), attacked=8)
    folder = tmp_path_factory.mktemp("pages")
    for name, page in (
        ("compare", render_comparison(compare(checks))),
        ("models", render_models(models)),
        ("history", render_history(trace_history({f"{i}/check.json": c for i, c in enumerate(checks)}, folder="f"))),
    ):
        reports[name] = folder / f"{name}.html"
        reports[name].write_text(page)


@pytest.mark.parametrize("name", ["compare", "models", "history"])
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "dark"), (1440, "light")])
def test_pages_fit_every_width_and_ask_for_nothing(
    name: str, width: int, scheme: str, pages: None, open_report: Callable[..., object]
) -> None:
    visit = open_report(name, width=width, scheme=scheme)
    visit.page.wait_for_selector("h1")
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width
    assert visit.requests == []
    assert visit.complaints == []
    assert visit.page.locator("svg[role=img]").count() >= 2
    titles = visit.page.locator("section.evidence h2").all_inner_texts()
    assert "How this was compared" in titles
