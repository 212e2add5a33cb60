"""The page of ``assay factor``: one offline file drawn from a :class:`FactorizationReport`."""

from __future__ import annotations

from assay.records.factorization import FactorizationReport, Landscape, PictureRank
from assay.report.charts import ACCENT, ALARM, SERIES, SOFT
from assay.report.factor_charts import draw_energy, draw_gauge, draw_hessian, draw_saddle, draw_spectrum
from assay.report.leaflet import Grid, Part, Shown, drawn, render_leaflet
from assay.report.lowrank_wording import factor_headline, state_proof


def render_factor_page(report: FactorizationReport) -> str:
    """The whole page as text; every name is escaped, nothing is fetched."""
    c = report.certificate
    return render_leaflet(
        title=f"{report.source}, rank {report.rank}",
        headline=factor_headline(report),
        subject=f"{report.source}: {report.rows:,} × {report.columns:,}, by {report.method} in {report.seconds:.2g} s",
        good=c.certified,
        stamp="Certified optimal" if c.certified else "Not certified",
        text=state_proof(c),
        tiles=_tiles(report),
        sections=_sections(report),
    )


def _tiles(report: FactorizationReport) -> tuple[tuple[str, str], ...]:
    c = report.certificate
    return (
        ("rank", f"{report.rank}"),
        ("relative error", f"{100 * report.relative_error:.4g} %"),
        ("energy kept", f"{100 * report.energy_kept:.4g} %"),
        ("gap to the best, at most", "unknown" if c.guarantee == "none" else f"{c.relative_gap:.1e}"),
        ("the solution is", c.uniqueness),
    )


def _sections(report: FactorizationReport) -> tuple[Part, ...]:
    parts = [_pictures(report.pictures)] if report.pictures else []
    figures = []
    if sum(value > 0 for value in report.singular_values) > 1:
        figures.append(
            drawn(
                draw_spectrum(report),
                f"The first {min(report.rank, len(report.singular_values))} singular values are kept",
                legend=(("kept", ACCENT), ("left out", SOFT)),
            )
        )
    if len(report.curve) > 1:
        figures.append(
            drawn(
                draw_energy(report),
                f"The best of rank {report.rank} misses {100 * report.relative_error:.3g} %",
                note="The line is the optimum for every rank (Eckart and Young 1936); nothing lies below it.",
                legend=(("the optimum", ACCENT), ("this factorisation", ALARM)),
            )
        )
    parts.append(Part("Spectrum", f"Chosen by: {report.rule}.", tuple(figures)))
    if report.gauge:
        parts.append(_gauge(report))
    if report.landscape is not None:
        parts.append(_landscape(report.landscape))
    parts.append(_methods(report))
    return tuple(parts)


def _pictures(pictures: tuple[PictureRank, ...]) -> Part:
    shown = tuple(
        Shown(
            "The original" if p.rank == 0 else f"Rank {p.rank}",
            ""
            if p.rank == 0
            else f"{p.psnr:.1f} dB, {100 * p.energy_kept:.4g} % of the energy, {100 * p.share:.3g} % of the numbers",
            p.png,
        )
        for p in pictures
    )
    text = "Each channel is a matrix; each picture is its best factorisation of that rank."
    return Part("The picture at a few ranks", text, pictures=shown)


def _gauge(report: FactorizationReport) -> Part:
    flat = min(report.gauge, key=lambda point: point.sharpness)
    rows = tuple((f"{p.scale:.3g}", f"{p.loss:.8g}", f"{p.sharpness:.4g}", f"{p.condition:.4g}") for p in report.gauge)
    text = (
        "(cA, B/c) has the same product for every c: one loss, many pairs. What changes is how sharp the valley is, "
        "and with it the longest step that gradient descent survives. The balanced pair, c = 1, is the flattest."
    )
    drawing = drawn(draw_gauge(report.gauge), f"Sharpness is lowest, {flat.sharpness:.4g}, at c = {flat.scale:.3g}")
    return Part("Not unique", text, (drawing,), Grid(("c", "loss", "sharpness λmax", "condition number"), rows))


def _landscape(found: Landscape) -> Part:
    p, q, middle = found.witness
    text = (
        f"Not convex: f = {p:.6g} at (A, B) and {q:.6g} at (−A, −B), but {middle:.6g} half-way between them. "
        f"Gradient descent is safe below a step of {found.safe_step:.4g}."
    )
    if found.tied:
        text += " σ_r = σ_{r+1}: the minimisers form a larger family than the gauge explains."
    names = [path.method for path in found.paths]
    colours = (SERIES[0], SERIES[1], SERIES[3])
    figures = [
        drawn(
            draw_saddle(found),
            "Three ways from one start to a minimum",
            note="Contours of the loss over A = a·u₁, B = b·v₁ᵀ; the cross is the saddle at the origin.",
            legend=tuple(zip(names, colours, strict=False)),
        )
    ]
    if found.computed and found.predicted:
        figures.append(
            drawn(
                draw_hessian(found),
                f"The Hessian has the spectrum that theory predicts, to {found.largest_difference:.0e}",
                legend=(("predicted", ALARM), ("computed", ACCENT)),
            )
        )
    rows = tuple(
        (
            "{" + ", ".join(str(i + 1) for i in point.chosen) + "}",
            point.kind,
            f"{point.loss:.6g}",
            f"{point.most_negative:.4g}",
            f"{point.gauge_dimension}" if point.kind == "global minimum" else "",
        )
        for point in found.critical_points
    )
    columns = ("singular values", "kind", "loss", "smallest eigenvalue", "dimension of the set")
    return Part("Not convex", text, tuple(figures), Grid(columns, rows))


def _methods(report: FactorizationReport) -> Part:
    rows = tuple(
        (name, f"{seconds:.2g} s", "used" if name == report.method else "")
        for name, seconds in report.predicted_seconds.items()
    )
    text = f"{report.passes} readings of the matrix, {report.entries:,} stored entries."
    table = Grid(("method", "predicted", ""), rows) if rows else None
    return Part("How it was found", text, table=table)
