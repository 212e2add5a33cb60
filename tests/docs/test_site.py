"""What the documentation site makes of the code, without the tool that builds it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import assay
from assay.verdict import RULES, Evidence

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#([^)\s]+))?\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def hooks() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "site_hooks.py"))


def test_the_catalogue_tells_every_rule_whole(hooks: dict[str, Any]) -> None:
    page = hooks["catalogue"]()
    for rule in RULES:
        assert page.count(f"{{ #{rule.id} }}") == 1
        entry = page[page.index(f"{{ #{rule.id} }}") :].split("\n### ")[0]
        plain = entry.replace("\\", "")
        assert all(text in plain for text in (rule.threshold, rule.why, rule.fix, rule.limits))
        assert f"### {rule.id} {rule.claim} {{ #{rule.id} }}" in page.replace("\\", "")
        failing, passing = (rule.verdict(Evidence(f())) for f in (rule.examples.failing, rule.examples.passing))
        assert f"**Example that fails.** {failing.measured}" in plain
        assert f"**Example that holds.** {passing.measured}" in plain
        assert f"`{rule.needs[0].model_fields['kind'].default}`" in entry


def test_what_would_act_in_markdown_is_escaped(hooks: dict[str, Any]) -> None:
    assert hooks["_text"]("a*b <c> `d_e*` [f] | g") == r"a\*b \<c\> `d_e*` \[f\] \| g"
    assert hooks["_text"]("ends in `code`") == "ends in `code`"


def test_pages_that_are_not_written_are_passed_over(hooks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "index.md").touch()
    nav = [{"Start": ["index.md", {"Later": "later.md"}]}, {"Empty": [{"Later": "later.md"}]}, {"Rules": "rules.md"}]
    config = hooks["on_config"](SimpleNamespace(docs_dir=str(tmp_path), nav=nav))
    assert config.nav == [{"Start": ["index.md"]}, {"Rules": "rules.md"}]


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://a.org/x.js"></script>', ["https://a.org/x.js"]),
        ('<link rel="stylesheet" href="//b.org/y.css">', ["//b.org/y.css"]),
        ('<img src="http://c.org/z.png">', ["http://c.org/z.png"]),
        ('<a href="https://d.org">d</a><link rel="canonical" href="https://e.org"><img src="f.png">', []),
    ],
)
def test_a_page_that_would_fetch_from_elsewhere_is_found(page: str, found: list[str], hooks: dict[str, Any]) -> None:
    assert hooks["fetched"](page) == found


def test_every_public_name_has_one_entry_in_the_reference_and_a_link_to_it(hooks: dict[str, Any]) -> None:
    entries = [
        (name, page.name) for page in (DOCS / "api").glob("*.md") for name in hooks["ENTRY"].findall(page.read_text())
    ]
    assert sorted(name for name, _ in entries) == sorted(assay.__all__)
    contents = (DOCS / "api" / "index.md").read_text()
    assert [
        f"[`{name}`]({page}#assay.{name})" for name, page in entries if f"({page}#assay.{name})" not in contents
    ] == []


def test_references_of_docstrings_become_code_and_links(hooks: dict[str, Any]) -> None:
    page = ":func:<code>assay.judge</code> :class:<code>~assay.verdict.rule.Rule</code> :mod:<code>assay.claims</code>"
    assert hooks["linked"](page, {"judge": "records.md"}) == (
        '<a href="records.html#assay.judge"><code>judge</code></a> <code>Rule</code> <code>assay.claims</code>'
    )


def test_the_picture_of_the_floors_is_that_of_the_import_contract() -> None:
    drawing = runpy.run_path(str(DOCS / "draw_layers.py"))
    assert drawing["draw"]() == drawing["PICTURE"].read_text(encoding="utf-8"), "run python docs/draw_layers.py"
    packages = {name for floor in drawing["floors"]() for name in floor}
    files = {path.stem for path in Path(assay.__file__).parent.iterdir() if path.suffix in {"", ".py"}}
    assert packages == files - {"__init__", "__main__", "__pycache__", "py"}


ROOT = DOCS.parent
SOURCES = [*sorted(DOCS.rglob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md"))]
HEADING = re.compile(r"^#{1,6} +(.+?)(?: +\{ *#([\w.-]+) *\})?$", re.MULTILINE)
ENTRY = re.compile(r"^::: (\S+)", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link may name on this page: its headings as a forge and the site turn them into anchors, its entries."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    made = {
        name or re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", title).lower()).strip().replace(" ", "-")
        for title, name in HEADING.findall(text)
    }
    return made | set(ENTRY.findall(text)) | set(re.findall(r'id="([\w-]+)"', text))


@pytest.mark.parametrize("page", SOURCES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    rules = {rule.id for rule in RULES}
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target == "rules.md":
            assert not anchor or anchor in rules
            continue
        file = page.parent / target
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}#{anchor}"
    inside = re.findall(r"\]\(#([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8")))
    assert [anchor for anchor in inside if anchor not in anchors(page)] == []


def test_the_search_of_pages_opened_from_a_folder_has_its_script() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    assert "\n  - offline" in text
    (script,) = re.findall(r"polyfills: \[([\w./-]+)\]", text)
    assert "iframe-worker" in script  # else the theme adds one that is fetched from elsewhere
    assert (DOCS / script).is_file()
