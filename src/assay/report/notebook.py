"""What a notebook shows of a check, a trace, a comparison, an attack or a factorisation: finding, verdicts, charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from pydantic import BaseModel

from assay.records.attack import RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.comparison import Comparison
from assay.records.factorization import Certificate, FactorizationReport
from assay.records.finding import Status
from assay.records.notebook import render_record
from assay.report.parts import Figure, Section
from assay.report.theme import custom_properties
from assay.wording import count, percent, plural

MOST_ITEMS = 8
MOST_FIGURES = 4


@dataclass(frozen=True)
class NotebookView:
    """The finding and the evidence, in the order of the cell; ``table`` is the record in full."""

    subject: str
    headline: str
    texts: tuple[str, ...] = ()
    items: tuple[tuple[Status, str], ...] = ()
    further: str = ""
    figures: tuple[Figure, ...] = ()
    table: Markup | None = None


def show_checkup(checkup: Checkup) -> str:
    """What the model is fit for, the findings, how many verdicts there are, and the first chart of each section."""
    from assay.report.answers import conclude
    from assay.report.sections import build_sections
    from assay.report.summary import describe_uses, headline, in_order, subject_line, tally_sentence

    conclusion, measured = conclude(checkup), headline(checkup)
    findings = [
        (verdict.status, f"{verdict.fault} ({verdict.rule}): {verdict.measured}")
        for verdict in in_order(checkup.verdicts)
        if verdict.status in {"error", "warn", "could not run"}
    ]
    left_out = max(0, len(findings) - MOST_ITEMS)
    more = f"{plural(left_out, 'further finding')}. " if left_out else ""
    uses = tuple((status, text) for status, text in describe_uses(checkup.fitness) if status != "not run")
    return _render(
        NotebookView(
            subject=subject_line(checkup),
            headline=conclusion,
            texts=(measured,) if measured != conclusion else (),
            items=(*uses, *findings[:MOST_ITEMS]),
            further=f"{more}{tally_sentence(checkup.verdicts)}",
            figures=tuple(_first_figures(build_sections(checkup))),
        )
    )


def show_comparison(comparison: Comparison) -> str:
    """What is better and what is worse, and by how much."""
    from assay.records.reading import made_inert
    from assay.report import comparison_wording as words
    from assay.report.comparison_page import draw_differences

    comparison = made_inert(comparison)
    candidates = ", ".join(each.name for each in comparison.candidates)
    return _render(
        NotebookView(
            subject=f"{candidates}, held against {comparison.reference.name}",
            headline=words.headline(comparison),
            texts=(words.tally(comparison),),
            figures=tuple(draw_differences(comparison))[:MOST_FIGURES],
        )
    )


def show_attack(record: RobustAccuracy) -> str:
    """The accuracy under an attack with its interval, the course of loss and accuracy, and every field."""
    from assay.report.sections.attacks import attack_title, draw_steps
    from assay.wording import accuracy

    before = percent(record.clean_correct / record.n if record.n else math.nan)
    return _render(
        NotebookView(
            subject=attack_title(record),
            headline=f"Robust accuracy {accuracy(record)}",
            texts=(f"{before} of the same images are right untouched.",),
            figures=tuple(figure for figure in draw_steps([record]) if figure is not None),
            table=_table(record),
        )
    )


def show_factorization(report: FactorizationReport) -> str:
    """How near the factors are to the matrix and to the best ones, and the spectrum."""
    from assay.report.factor_charts import draw_error, draw_spectrum
    from assay.report.lowrank_wording import factor_headline

    figures = [
        draw_spectrum(report) if any(value > 0 for value in report.singular_values) else None,
        draw_error(report),
    ]
    return _render(
        NotebookView(
            subject=f"{count(report.rows)} × {count(report.columns)}, rank {count(report.rank)}",
            headline=factor_headline(report),
            figures=tuple(each for each in figures if each is not None),
            table=_table(report),
        )
    )


def show_factors(
    shape: tuple[int, int], *, rank: int, spectrum: Sequence[float], certificate: Certificate, missed: str
) -> str:
    """Factors (m, r) and (r, n): what is proved of them, and the singular values that are known."""
    from assay.report.curves import Axes, Series, draw_curves
    from assay.report.lowrank_wording import state_proof

    m, n = shape
    places = [i for i, value in enumerate(spectrum, 1) if 0 < value < math.inf]
    values = [spectrum[i - 1] for i in places]
    tips = [f"σ{i} = {value:.4g}" for i, value in zip(places, values, strict=True)]
    axes = Axes("i", "singular value σ_i", y_log=bool(values) and max(values) > 30 * min(values))
    chart = draw_curves(
        [Series("σ", places, values, tips=tips)], axes, finding="Singular values of the matrix", lines=False
    )
    relative = certificate.error / certificate.energy if certificate.energy else 0.0
    return _render(
        NotebookView(
            subject=f"{count(m)} × {count(n)} in {count(m)} × {count(rank)} times {count(rank)} × {count(n)}",
            headline=f"Rank {count(rank)}, squared error {percent(relative)} of ‖X‖²",
            texts=tuple(filter(None, (state_proof(certificate), missed and f"Not met: {missed}."))),
            figures=() if chart is None else (chart,),
        )
    )


def _table(record: BaseModel) -> Markup:
    return Markup(render_record(record))  # noqa: S704 - it escapes every text


def _render(view: NotebookView) -> str:
    from assay.report.page import SIGNS, environment
    from assay.report.summary import LOOKS

    html = environment().get_template("notebook.html").render(view=view, looks=LOOKS, signs=SIGNS)
    for theme, dark in (("light", False), ("dark", True)):
        html = html.replace(f"/* {theme} */", custom_properties(dark=dark))
    return html


def _first_figures(sections: Sequence[Section]) -> Iterator[Figure]:
    """One of each section that is open, in the order of the page."""
    firsts = (next((part for part in s.parts if isinstance(part, Figure)), None) for s in sections if not s.folded)
    figures = [figure for figure in firsts if figure is not None]
    yield from figures[:MOST_FIGURES]
