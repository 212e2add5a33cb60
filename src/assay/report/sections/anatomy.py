"""Architecture: layers, parameters, FLOPs, singular values."""

from __future__ import annotations

from collections import Counter

import altair as alt

from assay.records.anatomy import Anatomy
from assay.records.compression import LayerSpectra, LayerSpectrum
from assay.report.charts import ACCENT, ALARM, AnyChart, Row, figure, shares, side, source, tip
from assay.report.curves import Axes, Series, draw_fan, evenly
from assay.report.parts import Facts, Figure, Section, Table, build_section, tabulate
from assay.wording import compact, count, distinct, listed, number, percent, plural


def anatomy_section(anatomy: Anatomy) -> Section:
    facts = [
        ("parameters", f"{count(anatomy.parameters)} ({count(anatomy.trainable_parameters)} trainable)"),
        ("numbers in buffers", count(anatomy.buffers)),
        ("FLOPs, one image", compact(anatomy.flops)),
        *([("multiply-adds in layers and products", compact(anatomy.multiply_adds))] if anatomy.multiply_adds else []),
        ("depth", plural(anatomy.depth, "weight layer")),
        ("input", " × ".join(map(str, anatomy.input_shape))),
        ("normalises its input itself", "yes" if anatomy.normalizes_input else "no"),
    ]
    if anatomy.blocks:
        shapes = Counter(f"{block.shape}, {block.norm_placement}" for block in anatomy.blocks)
        skips = Counter(block.skip for block in anatomy.blocks)
        facts += [
            ("residual blocks", listed([f"{n} {shape}" for shape, n in shapes.items()])),
            ("skips", listed([f"{n} {skip}" for skip, n in skips.items()])),
        ]
    numbers = tabulate(
        f"Layers in forward order ({count(len(anatomy.layers))})",
        anatomy.layers,
        {
            "`layer": lambda layer: layer.name + (f" (runs {layer.calls} times)" if layer.calls > 1 else ""),
            "type": lambda layer: layer.type,
            ">output": lambda layer: " × ".join(map(str, layer.output_shape)),
            ">parameters": lambda layer: count(layer.parameters),
            ">operations": lambda layer: compact(layer.flops),
            "detail": lambda layer: layer.detail,
        },
        folded=True,
    )
    summary = "One multiplication and one addition count as two operations."
    return Section("anatomy", "Anatomy", summary, (Facts(tuple(facts)), numbers), records=(anatomy,))


MOST_POINTS, MOST_BARS = 48, 60


def spectra_section(spectra: LayerSpectra) -> Section:
    summary = (
        "Each weight as a matrix (outputs × inputs·kernel area). If every layer had only the rank that holds 99 % of "
        f"its energy, {percent(spectra.redundancy)} of the weights would not be needed."
    )
    parts = (_ranks(spectra), _curves(spectra), _layers(spectra)) if spectra.layers else ()
    return build_section("spectra", "Singular values of the layers", summary, *parts, records=[spectra])


def _full_rank(layer: LayerSpectrum) -> int:
    return max(1, min(layer.rows, layer.columns))


def _curves(spectra: LayerSpectra) -> Figure | None:
    names = distinct([layer.name for layer in spectra.layers], length=48)
    layers = dict(zip(names, spectra.layers, strict=True))
    series = [
        Series(
            name,
            [index / max(1, len(values) - 1) for index, _ in evenly(values, MOST_POINTS)],
            [value / values[0] for _, value in evenly(values, MOST_POINTS)],
        )
        for name, layer in layers.items()
        if (values := layer.singular_values) and values[0] > 0
    ]

    def describe(name: str) -> str:
        layer = layers[name]
        rank = f"effective rank {number(layer.effective_rank)} of {_full_rank(layer)}"
        return f"{name}: {rank}, κ = {number(layer.condition_number)}"

    flattest = max(spectra.layers, key=lambda layer: layer.effective_rank / _full_rank(layer))
    return draw_fan(
        series,
        Axes("index of the singular value (% of all)", "σᵢ / σ₁", x_shares=True),
        finding=f"{names[spectra.layers.index(flattest)]} spreads its energy most evenly",
        note="One curve a layer, from pale (input) to strong (output). The higher, the more of its rank it uses.",
        describe=describe,
        height=max(220, min(420, 13 * len(spectra.layers[:MOST_BARS]) - 40)),
    )


def _ranks(spectra: LayerSpectra) -> Figure:
    names = distinct([layer.name for layer in spectra.layers], length=48)
    chosen = evenly(spectra.layers, MOST_BARS)
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
        room = side(names, width)
        base = alt.Chart(source(rows)).encode(
            y=alt.Y(
                "layer:N",
                sort=None,
                title=None,
                axis=alt.Axis(labelLimit=room, minExtent=room, ticks=False, domain=False),
            )
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
        ).properties(width=width - room - 5, height=alt.Step(15))

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
    return tabulate(
        "Every layer",
        spectra.layers,
        {
            "`layer": lambda layer: layer.name,
            "type": lambda layer: layer.type,
            ">matrix": lambda layer: f"{count(layer.rows)} × {count(layer.columns)}",
            ">σ₁": lambda layer: number(layer.singular_values[0]) if layer.singular_values else "–",
            ">stable rank": lambda layer: number(layer.stable_rank),
            ">effective rank": lambda layer: number(layer.effective_rank),
            ">rank for 99 %": lambda layer: f"{layer.rank_for_99} of {_full_rank(layer)}",
            ">κ": lambda layer: number(layer.condition_number),
        },
        folded=True,
    )
