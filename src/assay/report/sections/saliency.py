"""Saliency maps side by side, and what deletion and randomised weights say of each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from assay.intervals import mean_bounds
from assay.records.saliency import CheckedMap, MapMethod, MappedSample, SaliencyMaps
from assay.report.curves import Axes, Series, draw_curves
from assay.report.parts import Card, Facts, Figure, Gallery, Section, Table, build_section, read_picture, table, within
from assay.wording import clip, count, name_classes, number, percent, plural

MAP_BYTES = 400_000  # of the three megabytes a report may have
NAMES: dict[MapMethod, str] = {
    "gradient": "gradient", "integrated-gradients": "integrated gradients", "smoothgrad": "SmoothGrad",
    "grad-cam": "Grad-CAM",
}  # fmt: skip
_CAPTIONS: dict[MapMethod, str] = {"smoothgrad": "Smooth\u00adGrad"}  # narrow pictures need a place to break
_CLASS_NAME = 40


def saliency_section(record: SaliencyMaps) -> Section:
    layer = f"Grad-CAM is taken at {record.layer}. " if record.layer else ""
    names = name_classes((name for s in record.samples for name in (s.label, s.prediction)), length=_CLASS_NAME)
    cards = within((_sample(sample, record.maps, names) for sample in record.samples), size=MAP_BYTES)
    note = f"{layer}Light: what speaks most for the predicted class; each map is scaled to its own maximum."
    gallery = Gallery("The same answers, explained by each map", note, cards, len(record.samples) - len(cards), True)
    summary = (
        f"What the answer rests on, by {plural(len(record.maps), 'method')}, on {plural(record.n, 'image')}. A map is "
        "worth something only if it depends on the weights, and if the answer falls with what it marks."
    )
    unmade = tuple((NAMES[each.method], f"not run: {each.reason}") for each in record.unmade)
    if record.unrandomized is not None:
        unmade += (("randomised weights", f"not run: {record.unrandomized}"),)
    parts = (
        gallery if record.samples else None,
        _deletion(record),
        _randomization(record),
        _numbers(record.maps) if record.maps else None,
        Facts(unmade) if unmade else None,
    )
    return build_section("saliency-maps", "Saliency maps", summary, *parts, records=[record])


def _sample(sample: MappedSample, maps: Sequence[CheckedMap], names: Mapping[str, str]) -> Card:
    label, prediction = names[sample.label], names[sample.prediction]
    predicted = f"{prediction} ({percent(sample.confidence)})"
    pictures = tuple(
        (
            _CAPTIONS.get(each.method, NAMES[each.method]),
            read_picture(picture, text=f"what speaks for {prediction} by {NAMES[each.method]}"),
        )
        for each, picture in zip(maps, sample.maps, strict=False)
    )
    return Card(
        pictures=(
            ("image", read_picture(sample.image, text=f"image of {label}, taken for {prediction}")),
            *pictures,
        ),
        lines=(predicted if sample.correct else f"{label}, predicted as {predicted}", clip(sample.sample_id, 24)),
        right=sample.correct,
    )


def _deletion(record: SaliencyMaps) -> Figure | None:
    curves = [(NAMES[each.method], each.deleted) for each in record.maps] + [("random order", record.random)]
    drawn = [
        Series(name, record.fractions[: len(curve)], curve[: len(record.fractions)])
        for name, curve in curves
        if len(curve) > 1 and all(map(math.isfinite, curve))
    ]
    gains = {NAMES[each.method]: fmean(each.gains) for each in record.maps if each.gains}
    if len(drawn) < 2 or not gains:
        return None
    best = max(gains, key=gains.__getitem__)
    finding = (
        f"Blurred first, the regions that {best} marks lower the answer fastest"
        if gains[best] > 0
        else "No map lowers the answer faster than a random order of the regions"
    )
    note = (
        f"Mean probability of the answer while the {count(record.regions)} regions of a picture are blurred one after "
        f"another. Random order: the mean of {count(record.orders)}."
    )
    axes = Axes("share of the picture blurred (%)", "probability (%)", x_shares=True, y_shares=True)
    return draw_curves(drawn, axes, finding=finding, note=note)


def _randomization(record: SaliencyMaps) -> Figure | None:
    series = []
    for each in record.maps:
        points = [(depth.layers, fmean(depth.correlations), depth) for depth in each.randomized if depth.correlations]
        if points and all(math.isfinite(mean) for _, mean, _ in points):
            tips = [
                f"{NAMES[each.method]}, weights random down to {depth.layer}: {number(mean)}"
                for _, mean, depth in points
            ]
            y = [1.0, *(mean for _, mean, _ in points)]
            series.append(Series(NAMES[each.method], [0, *(n for n, _, _ in points)], y, tips=["", *tips]))
    if not series:
        return None
    last = max(each.y[-1] for each in series)
    finding = (
        "With random weights every map is another one"
        if last < 0.5
        else "A map stays much the same although the weights are random"
    )
    note = "Mean rank correlation with the map of the network as it was, from the output down; 1 is the same map."
    axes = Axes(f"layers with random weights, of {count(record.layers)}", "rank correlation")
    return draw_curves(series, axes, finding=finding, note=note)


def _numbers(maps: Sequence[CheckedMap]) -> Table:
    return table(
        "Each map in numbers, with 95 % intervals",
        ("map", ">images", ">blank", ">gain over random order", ">correlation, random weights"),
        (
            (
                NAMES[each.method],
                count(len(each.gains)),
                count(each.blank),
                _interval(each.gains),
                _interval(each.randomized[-1].correlations if each.randomized else ()),
            )
            for each in maps
        ),
    )


def _interval(values: Sequence[float]) -> str:
    if not values:
        return "–"
    low, high = mean_bounds(values, level=0.025)
    bounds = f" ({low:.2f} to {high:.2f})" if math.isfinite(low) else ""
    return f"{fmean(values):.2f}{bounds}".replace("-", "−")
