"""Predictions in a file in place of a model, for ``assay check`` and ``assay compare``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from assay.cli.options import Inputs, MatchClasses, ScoreOver
from assay.errors import OptionError, UnusedOptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.data.dataset import ImageDataset
    from assay.records.checkup import Checkup

FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".pq", ".npz", ".npy")
# What has nothing to act on where there is no model, and what has nothing to act on where there are no pictures.
OF_A_MODEL = (
    "weights", "normalization", "trust_code", "limit", "apply_fixes", "fix_data", "budget", "budget_of", "within",
    "resume", "keep_predictions", "seed", "device",
)  # fmt: skip
OF_DATA = ("split", "data_dir", "image_size", "max_bad", "prepare", "match_classes", "score_over")


class FileChecks:
    """Checks of files against the data of ``inputs``, if some are named: opened once, each note printed once."""

    def __init__(self, inputs: Inputs, console: Console) -> None:
        self._inputs = inputs
        self._console = console
        self._printed: set[str] = set()

    @cached_property
    def dataset(self) -> ImageDataset | None:
        """The data, if some are named."""
        from assay.cli.inputs import data_notes, open_data

        if self._inputs.data is None:
            return None
        dataset = open_data(self._inputs, self._console)
        self._printed.update(data_notes(dataset))
        return dataset

    def check(self, path: Path) -> Checkup:
        """The check of one file. Raises :class:`DataError` for what it holds."""
        from assay.check import check_predictions
        from assay.cli.inputs import print_notes, read_names
        from assay.data import read_predictions

        inputs = self._inputs
        checkup = check_predictions(
            read_predictions(path, classes=None if inputs.classes is None else read_names(inputs.classes)[0]),
            dataset=self.dataset,
            match_classes="position" if inputs.match_classes is MatchClasses.POSITION else "name",
            score_over="all" if inputs.score_over is ScoreOver.ALL else "subset",
        )
        print_notes([note for note in checkup.subject.notes if note not in self._printed], self._console)
        self._printed.update(checkup.subject.notes)
        return checkup


def check_file(path: Path, inputs: Inputs, context: typer.Context, console: Console) -> Checkup:
    """The check of the predictions in a file.

    Raises :class:`OptionError` for a model beside them, and for options that have no effect.
    """
    if inputs.model is not None:
        raise OptionError("MODEL", expected="either a model or --predictions", got=f"both, {inputs.model} and {path}")
    _refuse(OF_A_MODEL, context, reason="no effect on --predictions, where no model is run")
    if inputs.data is None:
        _refuse(OF_DATA, context, reason="no effect on --predictions without --data")
    return FileChecks(inputs, console).check(path)


def _refuse(names: Iterable[str], context: typer.Context, *, reason: str) -> None:
    """Raise :class:`UnusedOptionError` for the first of these parameters that the command line gives."""
    options = {each.name: each.opts[0] for each in context.command.params}
    for name in names:
        source = context.get_parameter_source(name)
        if name in options and source is not None and source.name == "COMMANDLINE":
            raise UnusedOptionError(options[name], reason=reason)
