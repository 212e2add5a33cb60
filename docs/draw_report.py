"""Photograph a report for these pages, in light colours.

assay check resnet20 --weights resnet20-12fca82f.th --data ./cifar10 --limit 1000
python docs/draw_report.py assay-report/report.html docs/images/report.png
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import sync_playwright


def draw_report(page: Path, picture: Path, *, width: int, height: int, at: str) -> None:
    """Write what a screen of ``width`` by ``height`` pixels shows of ``page``, from the anchor ``at`` on."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox", "--disable-gpu"])
        view = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
        view.goto(f"{page.resolve().as_uri()}{f'#{at}' if at else ''}")
        view.wait_for_timeout(500)  # scrolling is smooth
        view.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1440)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--at", default="", help="the anchor to begin at, such as scores")
    draw_report(**vars(parser.parse_args()))
