"""The report of ``assay check``: scores, verdicts and evidence on one page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from assay.arguments import checked
from assay.records.checkup import Checkup
from assay.records.finding import Status, Verdict
from assay.report.answers import answer, conclude
from assay.report.page import Page, render
from assay.report.parts import Prose
from assay.report.sections import build_sections
from assay.report.summary import (
    FORMULA,
    SEVERITY,
    CategoryState,
    circumstances,
    describe_uses,
    headline,
    in_order,
    key_figures,
    size_of_change,
    states,
    subject_line,
    tally_sentence,
    warning,
)
from assay.wording import clip

TRACE = "trace"  # the budget that a trace states


@dataclass(frozen=True)
class Categories:
    """The scores of the categories (of a trace, of those it judged), and how they are computed."""

    template: ClassVar[str] = "categories.html"
    states: tuple[CategoryState, ...]
    tally: str
    formula: str = FORMULA


@dataclass(frozen=True)
class Uses:
    """For each use, whether the model is fit for it: a status and a sentence."""

    template: ClassVar[str] = "uses.html"
    sentences: tuple[tuple[Status, str], ...]


@dataclass(frozen=True)
class Circumstances:
    """Budget, seed and time in a line, with a link to the rest."""

    template: ClassVar[str] = "circumstances.html"
    text: str


@dataclass(frozen=True)
class Verdicts:
    """All verdicts, errors and warnings open, the others folded; ``titles`` names the section of each record kind."""

    template: ClassVar[str] = "verdicts.html"
    verdicts: dict[Status, list[Verdict]]
    titles: dict[str, str]
    id: str = "verdicts"
    title: str = "Verdicts"


@checked
def render_page(checkup: Checkup) -> str:
    """The report of a check: one offline HTML file below 3 MB, with light and dark colours.

    Args:
        checkup: what :func:`assay.run_check` returned, or :func:`assay.read_checkup` read.

    Returns:
        The page as text. It fetches nothing; its one script is named by its hash in a content security policy, and
        every name from the checkup is escaped.

    Example:
        >>> import assay
        >>> from assay.records.checkup import Subject
        >>> from assay.runtime import describe_environment
        >>> checkup = assay.Checkup(
        ...     subject=Subject(model="mlp", weights=None, data="digits", split="test", n=32, available=32, classes=(),
        ...                     image_shape=(1, 8, 8)),
        ...     budget="quick", seed=0, started="2026-01-01", seconds=0.0, environment=describe_environment("cpu"),
        ...     stages=(), records=(), verdicts=assay.judge([]),
        ... )  # or what assay.run_check returned
        >>> page = assay.render_page(checkup)
        >>> page.startswith("<!doctype html>"), len(page.encode()) < 3_000_000
        (True, True)
    """
    traced = checkup.budget == TRACE
    if traced:  # which asks a few rules only: the others are no gap in it
        ran = tuple(verdict for verdict in checkup.verdicts if verdict.status != "not run")
        checkup = checkup.model_copy(update={"verdicts": ran})
    ordered = in_order(checkup.verdicts)
    judged = tuple(state for state in states(checkup.verdicts) if state.status != "not run" or not traced)
    sections = build_sections(checkup)
    size = size_of_change(checkup)
    how = f"{size + '. ' if size else ''}{circumstances(checkup)} on {checkup.environment.device}."
    answers, conclusion = answer(checkup), conclude(checkup)
    answered = [figure.proportion for figure in answers.figures if figure.proportion] if answers else []
    subject, version = checkup.subject, checkup.environment.assay
    of_data = subject.source == "data"
    document = "data" if of_data else "check"
    verdicts = Verdicts(
        {status: [verdict for verdict in ordered if verdict.status == status] for status in SEVERITY},
        {kind: section.title for section in sections for kind in section.kinds},
    )
    return render(
        Page(
            title=clip(subject.data, 80) if of_data else f"{clip(subject.model, 80)} · {clip(subject.data, 80)}",
            subject=subject_line(checkup),
            headline=conclusion,
            badge=warning(checkup.verdicts),
            before_figures=(
                *([answers] if answers else []),
                *([] if traced or of_data else [Uses(describe_uses(checkup.fitness))]),
                *([Prose(measured)] if (measured := headline(checkup)) != conclusion else []),
                Circumstances(how),
                *([Categories(judged, tally_sentence(checkup.verdicts))] if judged and not of_data else []),
            ),
            key_figures=tuple(each for each in key_figures(checkup) if each.proportion not in answered),
            sections=(verdicts, *sections),
            skip=("verdicts", "verdicts"),
            version=version,
            footer=f"Made by assay {version} from {document}.json, schema {checkup.schema_version}.",
        )
    )
