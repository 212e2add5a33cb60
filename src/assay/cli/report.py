"""``assay report``: draw the page, or another form of it, from a check.json."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg

if TYPE_CHECKING:
    from assay.records.checkup import Checkup


class Form(StrEnum):
    """What a check.json can be turned into."""

    HTML = "html"
    TEXT = "text"
    JUNIT = "junit"
    SARIF = "sarif"


_NAMES = {Form.HTML: "report.html", Form.JUNIT: "check.junit.xml", Form.SARIF: "check.sarif"}


def report(
    document: Annotated[
        Path, typer.Argument(metavar="CHECK", help="A check.json, or the folder that holds one.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The file to write; `-` writes to standard output. Default: beside CHECK; for text the terminal.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="What to write.")] = Form.HTML,
    baseline: arg.BaselineFile = None,
) -> None:
    """Draw a report from a check.json: one offline page, a text, JUnit XML or SARIF. Needs no model and no data."""
    from assay.files import write_atomically
    from assay.records.reading import read_baseline, read_checkup
    from assay.verdict.baseline import apply_baseline

    path = document / "check.json" if document.is_dir() else document
    checkup = read_checkup(path)
    if baseline is not None:
        checkup = apply_baseline(checkup, read_baseline(baseline), today=datetime.now(UTC).date())
    if form is Form.TEXT and out is None:
        from rich.console import Console

        from assay.report.terminal.check import print_summary

        print_summary(checkup, Console())
        return
    content = _render(checkup, form)
    if str(out) == "-":
        typer.echo(content, nl=False)
        return
    target = out or path.with_name(_NAMES[form])
    write_atomically(target, content)
    typer.echo(f"Report: {target}")


def _render(checkup: Checkup, form: Form) -> str:
    if form is Form.TEXT:
        from rich.console import Console

        from assay.report.terminal.check import print_summary

        console = Console(file=StringIO(), width=80, no_color=True, record=True)
        print_summary(checkup, console)
        return console.export_text()
    if form is Form.JUNIT:
        from assay.report.junit import render_junit

        return render_junit(checkup)
    if form is Form.SARIF:
        from assay.report.sarif import render_sarif

        return render_sarif(checkup)
    from assay.report.check_page import render_page

    return render_page(checkup)
