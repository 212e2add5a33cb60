"""The ``assay`` command: collects the verbs, turns errors into one line, and owns the exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from assay.errors import AssayError, InterruptedRunError

app = typer.Typer(
    name="assay",
    help="Put a classifier to the test: train it, break it, see why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"assay {version('assay')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Put a classifier to the test: train it, break it, see why."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 nothing found, 1 findings, 2 usage or input error (one line), 3 interrupted and resumable.
    """
    try:
        app()
    except KeyboardInterrupt:
        fail(InterruptedRunError("interrupted"))
    except AssayError as error:
        fail(error)


def fail(error: AssayError) -> None:
    """Print the error as one line on standard error and end with its exit code."""
    print(f"assay: {' '.join(str(error).split())}", file=sys.stderr)
    raise SystemExit(error.exit_code)
