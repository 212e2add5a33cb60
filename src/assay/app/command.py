"""The command line that shows what a view shows."""

from __future__ import annotations

import shlex

from assay.app.subject import Subject


def command(verb: str, *words: str) -> str:
    """``assay VERB …``, quoted for a shell."""
    return shlex.join(["assay", verb, *words])


def about(subject: Subject, *words: str) -> str:
    """``assay look MODEL --data …`` and what follows."""
    return command("look", *subject.words, *words)
