"""How the verbs declare their options: the panels of ``--help``, and the group of inputs that all verbs share."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

MODEL_SPELLINGS = (
    "A run folder of `assay train`, an architecture (resnet20, allcnn, …), torchvision:NAME, timm:NAME, "
    "transformers:FOLDER or OWNER/NAME of its hub, "
    "a program in a file (.onnx, .pt2, TorchScript), path/to/file.py:factory, or package.module:factory."
)


# How the outputs of a model and the classes of data belong together
MatchClasses = StrEnum("MatchClasses", "NAME POSITION")
# Of a model with more classes than the data: which of them a prediction can be
ScoreOver = StrEnum("ScoreOver", "SUBSET ALL")


# The options of a model, which a verb without one leaves out
OF_THE_MODEL = (
    "model", "weights", "normalization", "prepare", "match_classes", "classes", "score_over", "trust_code",
)  # fmt: skip

# The options of tables with named columns
TABLE_OPTIONS = ("image_column", "label_column", "split_column", "root")


def argument(help: str, *, metavar: str | None = None) -> Any:
    """A positional argument."""
    return typer.Argument(help=help, metavar=metavar, show_default=False)


def option(panel: str, help: str, *names: str, metavar: str | None = None, **settings: Any) -> Any:
    """An option that ``--help`` shows in the panel of that name; ``metavar`` names the unit of its value."""
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, **settings)


def flag(panel: str, help: str, *names: str, **settings: Any) -> Any:
    """An option without a value."""
    return option(panel, help, *names, metavar="", **settings)


@dataclass(frozen=True)
class Inputs:
    """What a verb works on: a model, its data, and how the images are prepared.

    Each annotation is the declaration of the option; :func:`takes_inputs` adds them to a verb. ``data`` left out is the
    data of the run folder, or the digits where there is no model either (see :mod:`assay.cli.inputs`).
    """

    model: Annotated[
        str | None,
        argument(f"{MODEL_SPELLINGS} Without one, a small network is trained on the digits first.", metavar="MODEL"),
    ] = None
    weights: Annotated[
        Path | None,
        option("Model", "Weights of the architecture: .safetensors, or a checkpoint that loads with weights_only.",
               metavar="FILE"),
    ] = None  # fmt: skip
    normalization: Annotated[
        str | None,
        option("Model", "Mean and standard deviation of an architecture of ours: imagenet (the default for colour), "
               "cifar10, none, or m1,m2,m3/s1,s2,s3.", metavar="NAME"),
    ] = None  # fmt: skip
    prepare: Annotated[
        str | None,
        option("Model", "How pictures are made into inputs, in place of what the model's source states: "
               "resize=256:bicubic,crop=224, also squash=HxW, mean=…, std=…, bgr, scale=255.", metavar="PREPARATION"),
    ] = None  # fmt: skip
    match_classes: Annotated[
        MatchClasses,
        option("Model", "How outputs and classes of the data belong together: by name, or by position where the names "
               "differ and mean the same.", metavar="HOW"),
    ] = MatchClasses.NAME  # fmt: skip
    trust_code: Annotated[
        bool,
        flag("Model", "Open a file or folder that can run code of its own, such as a TorchScript program.",
             "--trust-code"),
    ] = False  # fmt: skip
    classes: Annotated[
        str | None,
        option("Model", "Names of the model's outputs, in their order: a text file with one a line, JSON, or imagenet.",
               metavar="FILE"),
    ] = None  # fmt: skip
    score_over: Annotated[
        ScoreOver,
        option("Model", "Of a model with more classes than the data: predictions among those of the data (subset), or "
               "among all, where any other one is wrong.", metavar="CLASSES"),
    ] = ScoreOver.SUBSET  # fmt: skip
    data: Annotated[
        str | None,
        option("Data", "digits, cifar10, mnist, fashion-mnist, a folder of class folders, a table of paths and labels "
               "(*.csv, *.tsv, *.jsonl), *.parquet, *.npz, IDX files, "
               "or hf:owner/name. A run folder brings its own.", metavar="DATA"),
    ] = None  # fmt: skip
    split: Annotated[str, option("Data", "The split to use: test, train or validation.", metavar="SPLIT")] = "test"
    limit: Annotated[
        int | None,
        option("Data", "Use only the first N samples (spread over the classes of class folders).", metavar="N", min=1),
    ] = None
    data_dir: Annotated[
        Path | None,
        option("Data", "Where named data sets are looked for first; then $ASSAY_DATA, then the cache.", metavar="DIR"),
    ] = None
    image_size: Annotated[
        int | None, option("Data", "Resize the shorter side to this, then crop the centre.", metavar="PIXELS", min=1)
    ] = None
    max_bad: Annotated[
        int, option("Data", "Leave out up to this many unreadable pictures; each is named.", metavar="N", min=0)
    ] = 0
    image_column: Annotated[
        str | None,
        option("Data", "The column of pictures, or of paths to them, of a table; an array of .npz.", metavar="NAME"),
    ] = None
    label_column: Annotated[
        str | None, option("Data", "The column of labels of a table; an array of .npz.", metavar="NAME")
    ] = None
    split_column: Annotated[
        str | None, option("Data", "The column of a table that names the split of each row.", metavar="NAME")
    ] = None
    root: Annotated[
        Path | None, option("Data", "Where paths in a table start, in place of the table's folder.", metavar="DIR")
    ] = None
    seed: Annotated[int, option("Run", "Seed of every random choice.", metavar="N")] = 0
    device: Annotated[str, option("Run", "auto, cpu, cuda, cuda:1 or mps.", metavar="DEVICE")] = "auto"

    @property
    def words(self) -> tuple[str, ...]:
        """The same on a command line, of a verb that looks samples up by their id."""
        options = {
            "--weights": self.weights,
            "--data": self.data,
            "--data-dir": self.data_dir,
            "--split": None if self.split == "test" else self.split,
            "--image-size": self.image_size,
            "--max-bad": self.max_bad or None,
            "--image-column": self.image_column,
            "--label-column": self.label_column,
            "--split-column": self.split_column,
            "--root": self.root,
            "--normalization": self.normalization,
            "--prepare": self.prepare,
            "--match-classes": None if self.match_classes is MatchClasses.NAME else self.match_classes,
            "--classes": self.classes,
            "--score-over": None if self.score_over is ScoreOver.SUBSET else self.score_over,
        }
        words = [word for name, value in options.items() if value is not None for word in (name, str(value))]
        words += ["--trust-code"] if self.trust_code else []
        return (*(() if self.model is None else (self.model,)), *words)


def takes_inputs(
    *,
    model_required: bool = False,
    omit: Sequence[str] = (),
    defaults: Mapping[str, object] | None = None,
    helps: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a verb the options of :class:`Inputs` in place of its parameter ``inputs``; those of the run come last.

    ``omit`` leaves options out, ``defaults`` and ``helps`` change a default or a help text. The signature that typer
    reads is that of the result.
    """
    hints = get_type_hints(Inputs, include_extras=True)
    group: list[inspect.Parameter] = []
    for field in fields(Inputs):
        if field.name in omit:
            continue
        kind, declaration = hints[field.name].__origin__, copy(hints[field.name].__metadata__[0])
        declaration.help = (helps or {}).get(field.name, declaration.help)
        default = (defaults or {}).get(field.name, field.default)
        if field.name == "model" and model_required:
            kind, default, declaration.help = str, inspect.Parameter.empty, MODEL_SPELLINGS
        group.append(
            inspect.Parameter(
                field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, declaration]
            )
        )

    def add(verb: Callable[..., None]) -> Callable[..., None]:
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(verb, eval_str=True).parameters.values():
            if parameter.name == "inputs":
                parameters += [each for each in group if each.name not in {"seed", "device"}]
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        parameters += [each for each in group if each.name in {"seed", "device"}]

        @wraps(verb)
        def run(**options: Any) -> None:
            inputs = Inputs(**{each.name: options.pop(each.name) for each in group})
            if not (options.get("show") or options.get("listed")):
                _announce()
            verb(inputs=inputs, **options)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return add


def _announce() -> None:
    """A line on a terminal at once: importing torch and opening data take seconds."""
    if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        typer.secho("opening the model and the data", err=True, dim=True)


Norm = Annotated[str, option("Attack", "Norm of the perturbation: linf, l2 or l1.", metavar="NORM")]
Epsilon = Annotated[str, option("Attack", "Radius of the ball, in pixels of [0, 1]: 8/255 or 0.031.", metavar="PIXELS")]
Resume = Annotated[bool, flag("Run", "Continue an interrupted run from what it finished.", "--resume")]
AsJson = Annotated[bool, flag("Output", "Print the record as JSON.", "--json")]
BaselineFile = Annotated[
    Path | None,
    option("Output", "Accepted findings (see `assay accept`): shown, but they do not fail.", "--baseline",
           metavar="FILE"),
]  # fmt: skip
CheckFile = Annotated[Path, argument("A check.json, or the folder that holds one.", metavar="CHECK")]

# How much work a check may spend
BudgetName = StrEnum("BudgetName", "QUICK STANDARD FULL")

Budget = Annotated[BudgetName, option("Run", "How much work to spend: quick, standard or full.", metavar="LEVEL")]
