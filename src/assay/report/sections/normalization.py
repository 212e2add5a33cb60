"""Whether the statistics inside the model, and the pixels it is fed, fit the data."""

from __future__ import annotations

import altair as alt

from assay.records.checkup import Checkup
from assay.records.normalization import NormalizationAudit
from assay.report.drawing import ACCENT, AnyChart, Row, figure, shares, side, source, tip
from assay.report.parts import NAME, NUMBER, Column, Figure, Part, Section, Table
from assay.report.wording import accuracy, count, number, percent


def normalization_section(checkup: Checkup) -> Section | None:
    """Running statistics against the data, and the input scale against its alternatives."""
    audit = checkup.first(NormalizationAudit)
    if audit is None:
        return None
    parts: list[Part] = [_conventions(audit)] if audit.conventions else []
    if audit.layers:
        parts.append(_layers(audit))
    again = (
        f"; with its running statistics measured anew on {count(audit.n_statistics)} samples: "
        f"{accuracy(audit.reestimated)}"
        if audit.reestimated is not None
        else "; it has no running statistics"
    )
    summary = (
        f"As the model stands, {accuracy(audit.before)} right{again}. Its first layer {audit.stem} is fed a mean of "
        f"{number(audit.stem_mean)} and a standard deviation of {number(audit.stem_std)}."
    )
    return Section("normalization", "Normalisation and input scale", summary, tuple(parts), records=(audit,))


def _conventions(audit: NormalizationAudit) -> Figure:
    rows: list[Row] = [
        {
            "convention": convention.convention,
            "accuracy": convention.accuracy,
            "low": convention.low,
            "high": convention.high,
            "tip": f"{convention.convention}: {accuracy(convention)}",
        }
        for convention in audit.conventions
    ]
    table = Table(
        "Accuracy by input convention",
        (Column("pixels handed over"), Column("right (95 % interval, n)", NUMBER)),
        tuple((convention.convention, accuracy(convention)) for convention in audit.conventions),
    )

    def build(width: int) -> AnyChart:
        room = side([convention.convention for convention in audit.conventions], width)
        names = alt.Axis(labelLimit=room, grid=False, ticks=False, domain=False)
        base = alt.Chart(source(rows)).encode(y=alt.Y("convention:N", sort=None, title=None, axis=names))
        unit = alt.Scale(domain=[0, 1])
        return alt.layer(
            base.mark_rule(color=ACCENT, strokeWidth=5, opacity=0.3, strokeCap="round").encode(
                x=alt.X("low:Q", scale=unit, axis=shares(), title="share right, with its 95 % interval (%)"),
                x2="high:Q",
                description=tip(),
            ),
            base.mark_point(color=ACCENT, filled=True, size=75, opacity=1).encode(
                x=alt.X("accuracy:Q", scale=unit), description=tip()
            ),
        ).properties(width=width - room, height=alt.Step(26))

    best = max(audit.conventions, key=lambda convention: convention.accuracy)
    finding = f"It is right most often on pixels handed over as {best.convention}: {percent(best.accuracy)}"
    note = "The same images in other scales and channel orders. Another winner than x in [0, 1] is a mistake to mend."
    return figure(build, finding=finding, note=note, table=table, full=True)


def _layers(audit: NormalizationAudit) -> Table:
    columns = ("channels", "distance (nats)", "mean shift", "|ln variance ratio|", "batches tracked")
    return Table(
        "Every layer with running statistics, against the data that reaches it",
        (Column("layer", NAME), Column("type"), *(Column(title, NUMBER) for title in columns), Column("odd")),
        tuple(
            (
                layer.name,
                layer.type,
                count(layer.channels),
                number(layer.distance),
                number(layer.mean_shift),
                number(layer.log_variance_ratio),
                "–" if layer.batches_tracked is None else count(layer.batches_tracked),
                ", ".join(layer.oddities),
            )
            for layer in audit.layers
        ),
        folded=True,
    )
