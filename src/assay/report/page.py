"""The report: one HTML file that asks nothing of the network."""

from __future__ import annotations

import base64
import hashlib
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from assay.records.checkup import Checkup
from assay.report.sections import build_sections
from assay.report.summary import (
    FORMULA,
    LOOKS,
    SEVERITY,
    headline,
    in_order,
    states,
    subject_line,
    tally_sentence,
    tiles,
)
from assay.report.theme import custom_properties
from assay.wording import clip, inert, kind_title, seconds

# the signs of drawing.SHAPES, in a box from −6 to 6
SIGNS = (
    "M-5,0a5,5 0 1 0 10,0a5,5 0 1 0 -10,0",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6L4,0L0,6L-4,0z",
    "M0,-5.5L5.5,4.5h-11z",
    "M-2,-6h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "M0,5.5L5.5,-4.5h-11z",
)
SCRIPTS = ("page.js", "tip.js", "samples.js", "copy.js")
_LINK = re.compile(r"https?://[^\s<>\"'`⟨]+[^\s<>\"'`⟨.,;:)\]]|arXiv:\d{4}\.\d{4,5}")


def render_page(checkup: Checkup) -> str:
    """The whole page as text: style, script, charts and pictures inside.

    Every name from the document is escaped and made inert; the script is named by its hash in the content security
    policy, so nothing that a document might smuggle in can run.
    """
    environment = page_environment()
    sections = build_sections(checkup)
    script = page_script(environment)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("page.html").render(
        checkup=checkup,
        subject=subject_line(checkup),
        headline=headline(checkup),
        tally=tally_sentence(checkup.verdicts),
        tiles=tiles(checkup),
        categories=states(checkup.verdicts),
        formula=FORMULA,
        took=seconds(checkup.seconds),
        verdicts={status: [v for v in in_order(checkup.verdicts) if v.status == status] for status in SEVERITY},
        looks=LOOKS,
        signs=SIGNS,
        sections=sections,
        judged={
            section.id: [v for v in in_order(checkup.verdicts) if not set(section.kinds).isdisjoint(v.evidence)]
            for section in sections
        },
        titles={kind: section.title for section in sections for kind in section.kinds},
        style=Markup(page_style(environment)),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_digest=digest,
    )


def page_environment() -> Environment:
    """The templates, with every expression escaped and made inert."""
    environment = Environment(
        loader=PackageLoader("assay.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(bound=_bound, prose=_prose, linked=_linked, clip=clip, kind_title=kind_title)
    return environment


def _read(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def page_script(environment: Environment) -> str:
    """The script of every page; what a page has no elements for does nothing there."""
    return "\n".join(_read(environment, name) for name in SCRIPTS)


def page_style(environment: Environment) -> str:
    """The style sheet of every page, both sets of colours in it."""
    style = _read(environment, "page.css")
    for theme, dark in (("light", False), ("dark", True)):
        style = style.replace(f"/* {theme} */", custom_properties(dark=dark))
    return style


def _shown(value: object) -> object:
    """What every expression of a template passes through: text is made inert, markup of our own stays."""
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
