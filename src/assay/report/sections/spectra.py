"""Singular values of the layers: how much of their rank they use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import altair as alt

from assay.records.checkup import Checkup
from assay.records.spectrum import LayerSpectra, LayerSpectrum
from assay.report.drawing import ACCENT, ALARM, AnyChart, Row, figure, shares, source, tip
from assay.report.parts import NAME, NUMBER, Column, Figure, Section, Table
from assay.report.wording import count, distinct, number, percent

T = TypeVar("T")
MOST_CURVES, MOST_POINTS, MOST_BARS = 40, 48, 60


def spectra_section(checkup: Checkup) -> Section | None:
    """Normalised singular value curves and the effective rank of each layer."""
    spectra = checkup.first(LayerSpectra)
    if spectra is None:
        return None
    summary = (
        "Each weight as a matrix (outputs × inputs·kernel area). If every layer kept only the rank that holds 99 % of "
        f"its energy, {percent(spectra.redundancy)} of the weights would be spared."
    )
    parts = (_ranks(spectra), _curves(spectra), _layers(spectra)) if spectra.layers else ()
    return Section("spectra", "Spectra of the layers", summary, parts, records=(spectra,))


def _full_rank(layer: LayerSpectrum) -> int:
    return max(1, min(layer.rows, layer.columns))


def _evenly(items: Sequence[T], most: int) -> list[tuple[int, T]]:
    """At most ``most`` items with their places, evenly spread, first and last among them."""
    if len(items) <= most:
        return list(enumerate(items))
    places = sorted({round(i * (len(items) - 1) / (most - 1)) for i in range(most)})
    return [(place, items[place]) for place in places]


def _curves(spectra: LayerSpectra) -> Figure:
    names = distinct([layer.name for layer in spectra.layers], length=48)
    chosen = _evenly(spectra.layers, MOST_CURVES)
    rows: list[Row] = [
        {
            "layer": names[place],
            "depth": place,
            "share": index / max(1, len(layer.singular_values) - 1),
            "value": value / layer.singular_values[0],
            "tip": f"{names[place]}: effective rank {number(layer.effective_rank)} of {_full_rank(layer)}, "
            f"κ = {number(layer.condition_number)}",
        }
        for place, layer in chosen
        if layer.singular_values and layer.singular_values[0] > 0
        for index, value in _evenly(layer.singular_values, MOST_POINTS)
    ]

    def build(width: int) -> AnyChart:
        last = max(1, len(names) - 1)
        chart: alt.Chart = (
            alt.Chart(source(rows))
            .mark_line(color=ACCENT, strokeWidth=1.6)
            .encode(
                x=alt.X(
                    "share:Q",
                    title="index of the singular value (% of all)",
                    axis=shares(),
                ),
                y=alt.Y("value:Q", title="σᵢ / σ₁", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5)),
                detail="layer:N",
                opacity=alt.Opacity("depth:Q", scale=alt.Scale(domain=[0, last], range=[0.25, 1]), legend=None),
                description=tip(),
            )
            .properties(width=width - 50, height=max(220, min(420, 13 * len(spectra.layers[:MOST_BARS]) - 40)))
        )
        return chart

    flattest = max(spectra.layers, key=lambda layer: layer.effective_rank / _full_rank(layer))
    finding = f"{names[spectra.layers.index(flattest)]} spreads its energy most evenly"
    note = "One curve a layer, from pale (input) to strong (output). The higher a curve, the more of its rank it uses."
    if len(chosen) < len(names):
        note += f" Shown: {len(chosen)} of {len(names)} layers, evenly spread over depth."
    return figure(build, finding=finding, note=note)


def _ranks(spectra: LayerSpectra) -> Figure:
    names = distinct([layer.name for layer in spectra.layers], length=48)
    chosen = _evenly(spectra.layers, MOST_BARS)
    rows: list[Row] = [
        {
            "layer": names[place],
            "effective": layer.effective_rank / _full_rank(layer),
            "needed": layer.rank_for_99 / _full_rank(layer),
            "tip": f"{names[place]}: effective rank {number(layer.effective_rank)}, rank for 99 % of the energy "
            f"{layer.rank_for_99}, full rank {_full_rank(layer)}",
        }
        for place, layer in chosen
    ]

    def build(width: int) -> AnyChart:
        side = width // 3
        base = alt.Chart(source(rows)).encode(
            y=alt.Y("layer:N", sort=None, title=None, axis=alt.Axis(labelLimit=side, ticks=False, domain=False))
        )
        unit = alt.Scale(domain=[0, 1])
        axis = shares(ticks=4)
        return alt.layer(
            base.mark_bar(color=ACCENT, opacity=0.55, height=9, cornerRadiusEnd=2).encode(
                x=alt.X("effective:Q", scale=unit, axis=axis, title="share of the full rank (%)"), description=tip()
            ),
            base.mark_tick(color=ALARM, thickness=2.5, height=13, opacity=1).encode(
                x=alt.X("needed:Q", scale=unit), description=tip()
            ),
        ).properties(width=width - side - 5, height=alt.Step(15))

    lowest = min(spectra.layers, key=lambda layer: layer.rank_for_99 / _full_rank(layer))
    finding = (
        f"{names[spectra.layers.index(lowest)]} holds 99 % of its energy in rank {lowest.rank_for_99} of "
        f"{_full_rank(lowest)}"
    )
    note = "Bar: effective rank. Mark: the rank that holds 99 % of the energy."
    if len(chosen) < len(names):
        note += f" Shown: {len(chosen)} of {len(names)} layers, evenly spread over depth."
    return figure(build, finding=finding, note=note)


def _layers(spectra: LayerSpectra) -> Table:
    columns = ("matrix", "σ₁", "stable rank", "effective rank", "rank for 99 %", "κ")
    return Table(
        "Every layer",
        (Column("layer", NAME), Column("type"), *(Column(title, NUMBER) for title in columns)),
        tuple(
            (
                layer.name,
                layer.type,
                f"{count(layer.rows)} × {count(layer.columns)}",
                number(layer.singular_values[0]) if layer.singular_values else "–",
                number(layer.stable_rank),
                number(layer.effective_rank),
                f"{layer.rank_for_99} of {_full_rank(layer)}",
                number(layer.condition_number),
            )
            for layer in spectra.layers
        ),
        folded=True,
    )
