"""The ``assay`` command: collects the verbs, turns errors into one line, and owns the exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from assay.cli.anatomy import anatomy, groups
from assay.cli.app import app as open_app
from assay.cli.attack import attack, merge
from assay.cli.augment import augment
from assay.cli.check import check
from assay.cli.claims import claims
from assay.cli.compare import compare, history
from assay.cli.compress import compress
from assay.cli.data import data
from assay.cli.factor import factor
from assay.cli.faults import Tolerant, fail, fail_unexpectedly
from assay.cli.look import look
from assay.cli.report import accept, explain, report
from assay.cli.trace import trace
from assay.cli.train import train
from assay.errors import AssayError, InterruptedRunError, ModelError
from assay.files import remove_empty_folders

TYPER_INTERRUPTED = 130  # what typer returns after Ctrl-C when it is not to end the process itself
COMPLETION = "_ASSAY_COMPLETE"  # set by a shell that asks for completions
EXIT_CODES = (
    "Exit codes: 0 nothing found, 1 findings, 2 usage or input error, 3 interrupted (--resume), 4 something could not "
    "be measured, 70 a fault of assay."
)

app = typer.Typer(
    name="assay",
    help="Put a classifier to the test: train it, attack it, see why it fails.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    epilog=EXIT_CODES,
)


def _print_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"assay {version('assay')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, metavar="", help="Print the version and end."
        ),
    ] = False,
) -> None:
    """Put a classifier to the test: train it, attack it, see why it fails."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Test a model": (check, attack, merge, claims),
    "Look inside": (anatomy, trace, look, open_app),
    "Train and compress": (train, groups, compress),
    "Data and matrices": (data, augment, factor),
    "Compare and follow": (compare, history),
    "Findings and reports": (report, accept, explain),
}
for panel, verbs in VERBS.items():
    for verb in verbs:
        app.command(verb.__name__, rich_help_panel=panel)(verb)


def main() -> None:
    """Run the command line; :mod:`assay.errors` lists the exit codes."""
    # Threads that wait by spinning slow small networks down 12 times (measured) on a machine with other work; 2,000
    # turns are some tens of microseconds. libgomp reads it when torch is first imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended like Ctrl-C: resumable
    out, errors = sys.stdout, sys.stderr
    sys.stdout = Tolerant(out or Path(os.devnull).open("w"))  # noqa: SIM115
    sys.stderr = Tolerant(errors or Path(os.devnull).open("w"), needed=False)  # noqa: SIM115
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except AssayError as error:
        fail(error)
    except KeyboardInterrupt:
        code = TYPER_INTERRUPTED
    except SystemExit as error:
        if COMPLETION in os.environ:
            raise
        # No code of ours ends the program, and its exit code would be taken for ours.
        fail(ModelError("the model or the data", expected="code that returns", got=f"SystemExit({error.code})"))
    except Exception as error:
        # Typer carries a copy of click of its own in some releases, so usage errors are known by what they can do.
        if not hasattr(error, "format_message"):
            fail_unexpectedly(error)
        fail(AssayError(error.format_message()))
    finally:
        sys.stdout, sys.stderr = out, errors
        remove_empty_folders()
    if code == TYPER_INTERRUPTED:
        fail(InterruptedRunError("interrupted; go on with --resume"))
    raise SystemExit(code if isinstance(code, int) else 0)
