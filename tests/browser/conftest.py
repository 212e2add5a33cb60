"""A real browser on the report.

open_report   opens a rendered checkup at a width, in a colour scheme; records requests and console errors
"""

from __future__ import annotations

import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, sync_playwright

from assay.report.check_page import render_page

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


@dataclass
class Visit:
    """An open page, and what it asked for and complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def note_request(self, route: Route) -> None:
        url = route.request.url
        if url.startswith(("file:", "data:")):
            route.continue_()
        else:
            self.requests.append(url)
            route.abort()

    def note_console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.complaints.append(message.text)


# While it is open its event loop is the running one, and tests of other modules start their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        pytest.skip("Chromium is not on this machine (apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The ordinary report, the hostile one and one of many classes, rendered once."""
    makers = runpy.run_path(str(Path(__file__).parents[1] / "report" / "conftest.py"))
    folder = tmp_path_factory.mktemp("reports")
    files = {}
    for name, maker in (("ordinary", "checkup"), ("hostile", "hostile"), ("many classes", "many_classes")):
        make = makers[f"build_{maker}"]
        files[name] = folder / f"{name}.html"
        files[name].write_text(render_page(make()))
    return files


@pytest.fixture
def open_report(browser: Browser, reports: dict[str, Path]) -> Iterator[Callable[..., Visit]]:
    contexts = []

    def visit(name: str = "ordinary", *, width: int = 1280, scheme: str = "light", anchor: str = "") -> Visit:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        opened = Visit(context.new_page())
        opened.page.route("**/*", opened.note_request)
        opened.page.on("console", opened.note_console)
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("dialog", lambda dialog: (opened.complaints.append(dialog.message), dialog.dismiss()))
        opened.page.goto(f"file://{reports[name]}{anchor}")
        return opened

    yield visit
    for context in contexts:
        context.close()
