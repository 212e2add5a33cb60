"""A page of its own kind in the dress of the report: a finding on top, tiles, then sections of parts."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from markupsafe import Markup

from assay.report.page import SIGNS, page_environment, page_script, page_style
from assay.report.parts import Section


@dataclass(frozen=True)
class Fact:
    """One tile: a name, a number, a line below it, and the status (``pass``, ``warn``, …) whose colour it wears."""

    name: str
    number: str
    detail: str
    status: str = ""
    anchor: str = ""


@dataclass(frozen=True)
class Sheet:
    """What the page says: ``headline`` the finding, ``tally`` the rest of it in a line."""

    title: str
    subject: str
    headline: str
    tally: str
    tiles: tuple[Fact, ...]
    sections: tuple[Section, ...]
    version: str


def render_sheet(sheet: Sheet, *, footer: str) -> str:
    """The whole page as text, one offline file; names are escaped and made inert as in the report."""
    environment = page_environment()
    script = page_script(environment)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return environment.get_template("sheet.html").render(
        sheet=sheet,
        footer=footer,
        signs=SIGNS,
        style=Markup(page_style(environment)),  # noqa: S704 - our own file
        script=Markup(script),  # noqa: S704 - our own file
        script_digest=digest,
    )
