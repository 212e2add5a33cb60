"""The script that lets the documentation's search run in pages that were opened from a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser
SCRIPT = Path(__file__).parents[2] / "docs" / "iframe-worker.js"
PAGE = """<!doctype html><body><script src="iframe-worker.js"></script><script>
const worker = new Worker("workers/double.js")
worker.onmessage = event => { document.title = event.data }
worker.postMessage(21)
</script>"""
WORKER = """addEventListener("message", async event => {
  await importScripts("factor.js")
  postMessage("answer " + event.data * factor)
})"""


def test_a_worker_answers_and_imports_in_a_page_from_a_folder(browser, tmp_path: Path) -> None:
    shutil.copy(SCRIPT, tmp_path)
    (tmp_path / "workers").mkdir()
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "workers" / "double.js").write_text(WORKER)
    (tmp_path / "workers" / "factor.js").write_text("var factor = 2")
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_function("document.title !== ''", timeout=10_000)
    assert page.title() == "answer 42"
    page.close()
