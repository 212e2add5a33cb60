"""The page of ``assay factor``, drawn from a :class:`FactorizationReport` alone."""

from __future__ import annotations

import math

from assay.records.factorization import FactorizationReport, Landscape, PictureRank
from assay.report.factor_charts import draw_error, draw_gauge, draw_hessian, draw_saddle, draw_spectrum
from assay.report.lowrank_wording import factor_headline, state_badge, state_miss, state_proof
from assay.report.page import Page, render
from assay.report.parts import Card, Facts, Gallery, KeyFigure, Section, build_section, read_picture, table, tabulate

MOST_POINTS = 8  # critical points that are listed


def render_factor_page(report: FactorizationReport) -> str:
    """The whole page as text; every name is escaped, nothing is fetched."""
    c = report.certificate
    tone, badge = state_badge(report)
    pictures = _pictures(report.pictures) if report.pictures else None
    gauge = _gauge(report) if report.gauge else None
    landscape = None if report.landscape is None else _landscape(report.landscape)
    sections = (pictures, _spectrum(report), gauge, landscape, _method(report))
    size = f"{report.rows:,} × {report.columns:,}"
    return render(
        Page(
            title=f"{report.source}, rank {report.rank}",
            subject=f"{report.source}: {size}, by {report.method} in {report.seconds:.2g} s",
            headline=factor_headline(report),
            badge=(tone, badge.capitalize()),
            text=f"{state_miss(report)} {state_proof(c)}".strip(),
            key_figures=(
                KeyFigure("rank", f"{report.rank}", f"chosen by: {report.rule}", "spectrum"),
                KeyFigure("relative error", f"{100 * report.relative_error:.4g} %", "‖X − AB‖ / ‖X‖", "spectrum"),
                KeyFigure("energy kept", f"{100 * report.energy_kept:.4g} %", "of ‖X‖²", "spectrum"),
                KeyFigure(
                    "gap to the optimum", "unknown" if c.guarantee == "none" else f"{c.relative_gap:.1e}", "at most"
                ),
                KeyFigure("uniqueness", c.uniqueness.removeprefix("unique "), "of the product and its factors"),
            ),
            sections=tuple(section for section in sections if section is not None),
            footer="Made by assay factor.",
        )
    )


def _spectrum(report: FactorizationReport) -> Section:
    spectrum = draw_spectrum(report) if sum(value > 0 for value in report.singular_values) > 1 else None
    error = draw_error(report) if len(report.curve) > 1 else None
    return build_section("spectrum", "Spectrum", f"Chosen by: {report.rule}.", spectrum, error)


def _pictures(pictures: tuple[PictureRank, ...]) -> Section:
    cards = []
    for picture in pictures:
        name = "the original" if picture.rank == 0 else f"rank {picture.rank}"
        psnr = f"{picture.psnr:.1f} dB" if math.isfinite(picture.psnr) else "no difference"
        energy = f"{100 * picture.energy_kept:.4g} % of the energy, {100 * picture.share:.3g} % of the numbers"
        lines = (name.capitalize(), *((f"{psnr}, {energy}",) if picture.rank else ()))
        cards.append(Card((("", read_picture(picture.png, text=name)),), lines))
    note = "Each channel is a matrix; each picture is its best factorisation of that rank."
    gallery = Gallery("The picture at a few ranks", "", tuple(cards), large=True)
    return Section("pictures", "Pictures", note, (gallery,))


def _gauge(report: FactorizationReport) -> Section:
    numbers = tabulate(
        "Along the gauge",
        report.gauge,
        {
            ">c": lambda p: f"{p.scale:.3g}",
            ">loss": lambda p: f"{p.loss:.8g}",
            ">sharpness λmax": lambda p: f"{p.sharpness:.4g}",
            ">condition number": lambda p: f"{p.condition:.4g}",
        },
    )
    summary = (
        "(cA, B/c) has the same product for every c: one loss, many pairs (the gauge freedom). What changes is the "
        "sharpness of the loss, and with it the largest stable step of gradient descent. The balanced pair, c = 1, "
        "is the flattest."
    )
    return Section("gauge", "Not unique: the gauge", summary, (draw_gauge(report.gauge, table=numbers),))


def _landscape(landscape: Landscape) -> Section:
    p, q, middle = landscape.witness
    summary = (
        f"Not convex: f = {p:.6g} at (A, B) and {q:.6g} at (−A, −B), but {middle:.6g} half-way between them. "
        f"Gradient descent is stable below a step of {landscape.safe_step:.4g}."
    )
    if landscape.tied:
        summary += " σ_r = σ_{r+1}: the minimisers form a larger family than the gauge explains."
    hessian = draw_hessian(landscape) if landscape.computed and landscape.predicted else None
    listed = landscape.critical_points
    nearest = listed if len(listed) <= MOST_POINTS else (*listed[: MOST_POINTS - 1], listed[-1])
    caption = "Critical points: the minimum, the saddles next to it, and the origin"
    points = tabulate(
        caption if nearest == listed else f"{caption}; {len(nearest)} of {len(listed)}",
        nearest,
        {
            "singular values": lambda point: _places(point.chosen),
            "kind": lambda point: point.kind,
            ">loss": lambda point: f"{point.loss:.6g}",
            ">smallest eigenvalue": lambda point: f"{point.most_negative:.4g}",
            ">dimension of the set": lambda point: f"{point.gauge_dimension}" if point.kind == "global minimum" else "",
        },
    )
    return build_section("landscape", "Not convex: the loss surface", summary, draw_saddle(landscape), hessian, points)


def _places(chosen: tuple[int, ...]) -> str:
    """Places of singular values, counted from 1, runs of them shortened: ``1–11, 13``; the origin has none."""
    runs: list[list[int]] = []
    for place in (i + 1 for i in chosen):
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(texts) or "none"


def _method(report: FactorizationReport) -> Section:
    facts = Facts((("passes over the matrix", f"{report.passes}"), ("stored entries", f"{report.entries:,}")))
    rows = [
        (name, f"{seconds:.2g} s", "used" if name == report.method else "")
        for name, seconds in report.predicted_seconds.items()
    ]
    times = table("Predicted time of each method", ("method", ">predicted", ""), rows) if rows else None
    summary = "The method is the one predicted to be fastest, unless one was asked for."
    return build_section("method", "Method", summary, facts, times)
