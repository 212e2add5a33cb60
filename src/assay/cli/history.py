"""``assay history``: a folder of checks as a trend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def history(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Holds checks: every check.json below it, every *.json in it.", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; by default history.html in DIR.", show_default=False)
    ] = None,
) -> None:
    """Show a folder of checks as a trend, each tested against the one before it on the same images.

    Checks are ordered by the time recorded in them. Files that cannot be read are named and skipped.
    """
    from rich.console import Console

    from assay.comparison import trace_history
    from assay.files import write_atomically
    from assay.report.folder import read_folder
    from assay.report.history_page import render_history
    from assay.report.history_text import print_history

    checkups, broken = read_folder(folder)
    found = trace_history(checkups, folder=folder.resolve().name, skipped=broken)
    target = out or folder / "history.html"
    write_atomically(target, render_history(found))
    print_history(found, Console())
    typer.echo(f"Page: {target}")
