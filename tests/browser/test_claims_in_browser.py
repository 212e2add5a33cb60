"""The page of claims in a real browser."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from assay.report.claims_page import render_claims
from assay.report.theme import contrast

pytestmark = pytest.mark.browser
REPORT = runpy.run_path(str(Path(__file__).with_name("test_report_in_browser.py")))
MAKERS = runpy.run_path(str(Path(__file__).parents[1] / "report" / "test_claims_page.py"))


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = [MAKERS["result"](), MAKERS["result"]("other", "refuted"), MAKERS["result"]("third", "undecided")]
    path = tmp_path_factory.mktemp("claims") / "claims.html"
    path.write_text(render_claims(MAKERS["report"](*results, failed=(MAKERS["FAILED"],))))
    return path


@pytest.mark.parametrize("width", [360, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_asks_for_nothing_and_complains_of_nothing(
    browser: Browser, page_file: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page, seen, complaints = context.new_page(), [], []
    page.on("request", lambda request: seen.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"file://{page_file}#other")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in seen if not url.startswith(("file:", "data:"))] == []
    assert complaints == []
    assert page.locator("#other h2").is_visible()
    hex_of = REPORT["hex_of"]
    for found in page.evaluate(REPORT["TEXTS"]):
        ratio = contrast(hex_of(found["colour"]), hex_of(found["ground"]))
        assert ratio >= (3 if found["large"] else 4.5), found
    context.close()


def test_a_strip_lies_within_its_row_and_its_interval_within_the_strip(browser: Browser, page_file: Path) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(f"file://{page_file}")
    strip = page.locator(".strip").first
    outer, bar = strip.bounding_box(), strip.locator("i").bounding_box()
    assert outer is not None
    assert bar is not None
    assert outer["x"] < bar["x"]
    assert bar["x"] + bar["width"] < outer["x"] + outer["width"]
    assert bar["width"] > 10
    context.close()
