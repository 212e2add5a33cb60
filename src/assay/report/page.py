"""The frame of every page: one HTML file with header, contents, key figures and sections; nothing is fetched."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import ClassVar, Protocol

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from assay.report.claims_wording import LOOKS as CLAIM_LOOKS
from assay.report.parts import KeyFigure
from assay.report.summary import LOOKS
from assay.report.theme import custom_properties
from assay.wording import clip, inert, kind_title, seconds

# the signs of charts.SHAPES, in a box from −6 to 6
SIGNS = (
    "M-5,0a5,5 0 1 0 10,0a5,5 0 1 0 -10,0",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6L4,0L0,6L-4,0z",
    "M0,-5.5L5.5,4.5h-11z",
    "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M0,5.5L5.5,-4.5h-11z",
)
SCRIPTS = ("header.js", "page.js", "tip.js", "search.js", "samples.js", "zoom.js", "copy.js")
STYLES = ("page.css", "header.css", "claims.css", "shots.css")
_LINK = re.compile(r"https?://[^\s<>\"'`⟨]+[^\s<>\"'`⟨.,;:)\]]|arXiv:\d{4}\.\d{4,5}")


class Block(Protocol):
    """Anything that a template of its own shows, as ``part`` or ``section`` in it."""

    template: ClassVar[str]


class Chapter(Block, Protocol):
    """A block with a place in the contents: a section of evidence, the verdicts, a claim."""

    @property
    def id(self) -> str:
        """The anchor, unique on the page."""

    @property
    def title(self) -> str:
        """What the contents call it."""


@dataclass(frozen=True)
class Page:
    """What a page consists of, from top to bottom.

    Attributes:
        title: names the page in the browser's tab and in its header.
        subject: what was measured, in small print above the headline.
        headline: the finding, one sentence.
        sections: the chapters, in the order of the contents.
        text: what the headline leaves out.
        badge: a status (``pass``, ``warn``, …) and what it stands for.
        key_figures: the few numbers that matter most, with blocks before and after them.
        skip: anchor and name of where the first link leads.
        lead_title: what the contents call the top of the page; not listed without one.
        version: the assay that measured.
        footer: what the page was made from.
    """

    title: str
    subject: str
    headline: str
    sections: tuple[Chapter, ...]
    text: str = ""
    badge: tuple[str, str] | None = None
    key_figures: tuple[KeyFigure, ...] = ()
    before_figures: tuple[Block, ...] = ()
    after_figures: tuple[Block, ...] = ()
    skip: tuple[str, str] = ("lead", "result")
    lead_title: str = ""
    version: str = ""
    footer: str = ""

    @property
    def contents(self) -> tuple[tuple[str, str], ...]:
        """Anchor and title of each chapter; none where there are too few to look for one."""
        if len(self.sections) <= 2:
            return ()
        lead = (("lead", self.lead_title),) if self.lead_title else ()
        return (*lead, *((section.id, section.title) for section in self.sections))


def render(page: Page) -> str:
    """The page as text: style, script, charts and pictures inside.

    Every string is escaped and made inert; the script is named by its hash in the content security policy, so nothing
    that a document might smuggle in can run.
    """
    templates = environment()
    script = "\n".join(_read(templates, name) for name in SCRIPTS)
    style = "\n".join(_read(templates, name) for name in STYLES)
    for theme, dark in (("light", False), ("dark", True)):
        style = style.replace(f"/* {theme} */", custom_properties(dark=dark))
    return templates.get_template("page.html").render(
        page=page,
        header=draw_header(page.title, contents=bool(page.contents)),
        looks=LOOKS,
        claim_looks=CLAIM_LOOKS,
        signs=SIGNS,
        style=Markup(style),  # noqa: S704 - our own files
        script=Markup(script),  # noqa: S704 - our own files
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )


def draw_header(title: str, *, contents: bool = False) -> Markup:
    """The head of every page: name, title, the button of the contents where there are any, the switch of the colours.

    Its style is ``header.css``, its script ``header.js``.
    """
    return Markup(environment().get_template("header.html").render(title=title, contents=contents))  # noqa: S704 - ours


def environment() -> Environment:
    """The templates, with every expression escaped and made inert."""
    templates = Environment(
        loader=PackageLoader("assay.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_inert,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(
        bound=_bound, prose=_prose, words=_words, linked=_linked, clip=clip, kind_title=kind_title, seconds=seconds
    )
    return templates


def _read(templates: Environment, name: str) -> str:
    assert templates.loader is not None
    return templates.loader.get_source(templates, name)[0]


def _make_inert(value: object) -> object:
    """What every expression of a template passes through; markup of our own stays."""
    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _bound(text: str) -> str:
    """Numbers stay on one line with their units."""
    return re.sub(r"(?<=\d) %|(?<=\bn) = (?=\d)", lambda match: match[0].replace(" ", "\u00a0"), text)


def _prose(text: str) -> Markup:
    """Text with `` `code` `` set as code."""
    pieces = inert(text).split("`")
    if len(pieces) % 2 == 0:  # a lone backtick is a backtick
        return escape(inert(text))
    return Markup("").join(
        Markup("<code>{}</code>").format(piece) if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    )


def _words(command: str) -> Markup:
    """A command whose words break only where they are longer than the line: no option loses a dash."""
    pieces = re.split(r"(\s+)", inert(command))
    word = Markup('<span class="word">{}</span>')
    return Markup("").join(escape(piece) if piece.isspace() or not piece else word.format(piece) for piece in pieces)


def _linked(text: str) -> Markup:
    """Text whose web addresses and arXiv numbers are links."""
    text, end, pieces = inert(text), 0, []
    for match in _LINK.finditer(text):
        address = match[0].replace("arXiv:", "https://arxiv.org/abs/")
        pieces += [
            escape(text[end : match.start()]),
            Markup('<a href="{}" rel="noreferrer">{}</a>').format(address, match[0]),
        ]
        end = match.end()
    return Markup("").join((*pieces, escape(text[end:])))
