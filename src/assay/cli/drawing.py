"""Pages are drawn last, from results that are on disk: whatever ends the drawing, they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assay.cli.faults import say
from assay.errors import InterruptedRunError, OutputError


@contextmanager
def drawing(results: Path, *, again: str = "") -> Iterator[None]:
    """Draw a page from ``results`` in a block; where it fails or is stopped, say where they are.

    ``again`` is the command that draws it from them, where there is one. The error goes on, with its exit code.
    """
    where = f"the results are in {results}" + (f"; `{again}` draws the page from them" if again else "")
    try:
        yield
    except KeyboardInterrupt:
        raise InterruptedRunError(f"interrupted while the page was drawn; {where}") from None
    except OutputError:  # says itself what is missing, and may be about the results
        raise
    except Exception:
        say(f"the page could not be drawn; {where}")
        raise
