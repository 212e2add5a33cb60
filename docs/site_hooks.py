"""What the documentation site makes of the code: the catalogue of rules, references. No page may fetch anything."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args

from assay.records.base import Record
from assay.records.finding import Category
from assay.verdict import RULES, Evidence, Rule

FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADED = {"stylesheet", "preconnect", "preload", "dns-prefetch", "icon", "modulepreload", "manifest"}


def catalogue() -> str:
    """Every rule as Markdown, by category, each under an anchor of its id."""
    lines = [
        "# Rules",
        "",
        "Made from the code when this site is built. A rule reads records and nothing else; its id never changes. "
        "`assay explain A202` prints one on the terminal, and every verdict of a report names its own.",
        "",
    ]
    for category in get_args(Category):
        rules = [rule for rule in RULES if rule.category == category]
        lines += [f"## {category.capitalize()}", "", "| rule | holds when this is true |", "|---|---|"]
        lines += [f"| [{rule.id}](#{rule.id}) | {_text(rule.claim)} |" for rule in rules]
        lines += ["", *(line for rule in rules for line in _entry(rule))]
    return "\n".join(lines) + "\n"


def _entry(rule: Rule) -> list[str]:
    about = "the model" if rule.scored else "the measurement; it raises no score"
    facts = [
        ("Holds when", _text(rule.threshold)),
        ("Else", _text(rule.fault)),
        ("Why it matters", _text(rule.why)),
        ("What to do", _text(rule.fix)),
        ("Shown by", f"`{rule.command}`"),
        ("Mended by", " ".join(f"`{line.strip()}`" for line in rule.mend.splitlines())),
        ("Known limits", _text(rule.limits)),
        ("Example that fails", _example(rule, rule.examples.failing)),
        ("Example that holds", _example(rule, rule.examples.passing)),
        ("Judges", about),
        ("Read from", ", ".join(f"`{need.model_fields['kind'].default}`" for need in rule.needs)),
        ("Reference", _linked(rule.reference)),
    ]
    return [
        f"### {rule.id} {_text(rule.claim)} {{ #{rule.id} }}",
        "",
        *(line for name, text in facts for line in (f"**{name}.** {text}", "")),
    ]


def _example(rule: Rule, records: Callable[[], tuple[Record, ...]]) -> str:
    verdict = rule.verdict(Evidence(records()))
    return _text(verdict.measured + (f" ({verdict.where})" if verdict.where else ""))


def _text(text: str) -> str:
    """Plain text as Markdown: what would act is escaped, code in backticks stays."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if place % 2 else re.sub(r"([\\*_<>\[\]|#{}])", r"\\\1", piece) for place, piece in enumerate(pieces)
    )


def _linked(text: str) -> str:
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", _text(text))


def on_config(config: Any) -> Any:
    """Pass over pages that are listed and not written yet."""
    there = {path.name for path in Path(config.docs_dir).rglob("*.md")} | {"rules.md"}
    config.nav = [entry for entry in (_present(entry, there) for entry in config.nav) if entry]
    return config


def _present(entry: Any, there: set[str]) -> Any:
    if isinstance(entry, str):
        return entry if Path(entry).name in there else None
    ((title, inner),) = entry.items()
    if isinstance(inner, str):
        return entry if Path(inner).name in there else None
    kept = [each for each in (_present(each, there) for each in inner) if each]
    return {title: kept} if kept else None


def on_files(files: Any, *, config: Any) -> Any:
    """Add the catalogue."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "rules.md", content=catalogue()))
    return files


ROLE = re.compile(r":(?:func|class|meth|data|mod|attr|exc):<code>(~?[\w.]+)</code>")
ENTRY = re.compile(r"^::: assay\.(\w+)$", re.MULTILINE)


def entries(docs: Path) -> dict[str, str]:
    """The page of the API reference that has an entry for each public name."""
    return {name: page.name for page in sorted((docs / "api").glob("*.md")) for name in ENTRY.findall(page.read_text())}


def linked(page: str, known: dict[str, str]) -> str:
    """References of docstrings as code; of public names as links to their entry."""

    def one(match: re.Match[str]) -> str:
        name = match[1].lstrip("~").split(".")[-1]
        shown = f"<code>{name if match[1].startswith('~') or name in known else match[1]}</code>"
        if name not in known:
            return shown
        return f'<a href="{Path(known[name]).stem}.html#assay.{name}">{shown}</a>'

    return ROLE.sub(one, page)


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """Resolve the references of docstrings."""
    return linked(html, entries(Path(config.docs_dir))) if page.file.src_uri.startswith("api/") else html


def on_post_build(*, config: Any) -> None:
    """End the build when a page would fetch anything from elsewhere."""
    from mkdocs.exceptions import PluginError

    for page in sorted(Path(config.site_dir).rglob("*.html")):
        outside = fetched(page.read_text())
        if outside:
            raise PluginError(f"{page.name} would ask the outside for {outside[0]}")


def fetched(page: str) -> list[str]:
    """The addresses outside the site that a page loads by itself; links to follow are none."""
    reader = _Fetches()
    reader.feed(page)
    return reader.found


class _Fetches(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element loads."""
        have = dict(attrs)
        address = have.get(FETCHING.get(tag, "")) or ""
        if tag == "link" and LOADED & set((have.get("rel") or "").split()):
            address = have.get("href") or ""
        if re.match(r"(https?:)?//", address):
            self.found.append(address)
