"""Sample by sample: small pictures with the answers before and after the attack, to be filtered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import altair as alt

from assay.records.attack import AdversarialExample, AdversarialGallery, PicturedSample, SampleGallery
from assay.records.gradients import InputGradients, InputGradientSample
from assay.records.mistakes import ConfidentMistakes, PicturedMistake
from assay.report.charts import ACCENT, ALARM, AnyChart, Row, decades, figure, source, tip
from assay.report.parts import (
    Card,
    Chance,
    Facts,
    Figure,
    Gallery,
    SampleGrid,
    SampleTile,
    Section,
    Table,
    build_section,
    read_picture,
    table,
    within,
)
from assay.wording import ball, class_names, clip, count, distance, name_classes, norm, number, percent, plural

SHEET_BYTES = 950_000  # of the three megabytes a report may have
LARGEST = 64  # pixels of the screen along a tile
_NAME = 24


def samples_section(galleries: Sequence[SampleGallery]) -> Section:
    size = SHEET_BYTES // len(galleries)
    parts = tuple(_grid(gallery, id=f"samples-{i}", size=size) for i, gallery in enumerate(galleries, 1))
    summary = " ".join(_sentence(gallery) for gallery in galleries)
    return Section("samples", "Sample by sample", summary, parts, records=tuple(galleries))


def _sentence(gallery: SampleGallery) -> str:
    shown = len(gallery.samples)
    which = (
        "all of them are here"
        if shown == gallery.n
        else f"{count(shown)} are here, with equal places for each kind, so that the rare can be seen"
    )
    return (
        f"Of {plural(gallery.n, 'sample')} {count(gallery.wrong)} were wrong before {gallery.attack}, "
        f"{count(gallery.broken)} were broken by it and {count(gallery.held)} held; {which}."
    )


def _grid(gallery: SampleGallery, *, id: str, size: int) -> SampleGrid:
    names = class_names(gallery.classes, length=_NAME)
    sheet = read_picture(gallery.sheet, text="") if len(gallery.sheet) <= size else None
    height, width = gallery.tile
    columns = max(1, gallery.columns)
    if sheet is not None and (sheet.width < columns * width or height < 1 or width < 1):
        sheet = None  # a damaged document must not break the page
    longest = max(1, height, width)
    scale = LARGEST // longest if longest <= LARGEST else LARGEST / longest  # small pictures in whole steps
    tiles = tuple(
        _tile(sample, names, x=i % columns * width * scale, y=i // columns * height * scale)
        for i, sample in enumerate(gallery.samples)
    )
    return SampleGrid(
        id=id,
        finding=f"{gallery.attack}, within {ball(gallery)}",
        note="The picture is the untouched one. Below it: its class, and what the model took it for.",
        sheet=sheet,
        sheet_width=0 if sheet is None else sheet.width * scale,
        width=width * scale,
        height=height * scale,
        sharp=scale > 1,
        tiles=tiles,
        labels=_choices((tile.label for tile in tiles), names),
        takens=_choices((tile.taken for tile in tiles if tile.taken is not None), names),
    )


def _tile(sample: PicturedSample, names: list[str], *, x: float, y: float) -> SampleTile:
    label, before, after = (_name(names, place) for place in (sample.label, sample.before, sample.after))
    sure_before, sure_after = percent(sample.confidence_before), percent(sample.confidence_after)
    identity = clip(sample.sample_id, 60)
    if sample.before != sample.label:
        line, fate, taken = before, "wrong", sample.before
        text = f"taken for {before} ({sure_before}) before any attack"
    elif sample.after != sample.label:
        line, fate, taken = after, "broken", sample.after
        steps = f", broken after {plural(sample.steps, 'step')}" if sample.steps is not None else ""
        text = f"known as {before} ({sure_before}), then taken for {after} ({sure_after}){steps}"
    else:
        line, fate, taken = "held", "held", None
        text = f"known as {before} ({sure_before}), and after the attack ({sure_after})"
    chances = (_chance("before", before, sample.confidence_before), _chance("after", after, sample.confidence_after))
    tip = f"{label}, {identity}: {text}"
    return SampleTile(x, y, fate, sample.label, taken, (label, line), tip, sample.sample_id, chances)


def _chance(when: str, name: str, confidence: float) -> Chance:
    """A confidence that is no number has no bar."""
    return Chance(when, name, percent(confidence), confidence if 0 <= confidence <= 1 else 0.0)


def _name(names: list[str], place: int) -> str:
    """The class's name; what is no place among them is an output that was not finite."""
    return names[place] if 0 <= place < len(names) else "no class"


def _choices(places: Iterable[int], names: list[str]) -> tuple[tuple[int, str, int], ...]:
    return tuple((place, _name(names, place), n) for place, n in sorted(Counter(places).items()))


# of the three megabytes a report may have
GALLERY_BYTES, GRADIENT_BYTES = 800_000, 450_000
_CLASS_NAME = 40


def gallery_section(galleries: Sequence[AdversarialGallery]) -> Section:
    parts = tuple(_gallery(gallery, size=GALLERY_BYTES // len(galleries)) for gallery in galleries)
    summary = "Right before, most confidently wrong after. The middle picture is the change, magnified about mid-grey."
    return Section("gallery", "Adversarial examples", summary, parts, records=tuple(galleries))


def _gallery(gallery: AdversarialGallery, *, size: int) -> Gallery:
    names = name_classes(
        (name for e in gallery.examples for name in (e.label, e.clean_prediction, e.adversarial_prediction)),
        length=_CLASS_NAME,
    )
    cards = within((_example(example, gallery, names) for example in gallery.examples), size=size)
    finding = f"{gallery.attack}, within {ball(gallery)}"
    note = "" if gallery.examples else "No image was broken."
    return Gallery(finding, note, cards, left_out=len(gallery.examples) - len(cards))


def _example(example: AdversarialExample, gallery: AdversarialGallery, names: Mapping[str, str]) -> Card:
    label, before, after = (
        names[name] for name in (example.label, example.clean_prediction, example.adversarial_prediction)
    )
    size = f"{norm(gallery.norm)} distance {distance(example.distance, gallery.norm)}"
    change = read_picture(example.perturbation, text=f"the change, magnified {example.magnified:.3g} times")
    return Card(
        pictures=(
            ("image", read_picture(example.image, text=f"image of {label}, taken for {before}")),
            (f"change ×{number(example.magnified)}", change),
            ("attacked", read_picture(example.adversarial, text=f"the attacked image, taken for {after}")),
        ),
        lines=(
            f"{before} ({percent(example.clean_confidence)}) → {after} ({percent(example.adversarial_confidence)})",
            f"{clip(example.sample_id, _NAME)}, {size}",
        ),
        id=example.sample_id,
        chances=(
            _chance("before", before, example.clean_confidence),
            _chance("after", after, example.adversarial_confidence),
        ),
    )


def mistakes_section(record: ConfidentMistakes) -> Section:
    names = name_classes((name for e in record.examples for name in (e.label, e.predicted)), length=_CLASS_NAME)
    cards = within((_mistake(example, names) for example in record.examples), size=GALLERY_BYTES)
    note = "Its class → the predicted one, and the confidence." if record.examples else "No image was misclassified."
    gallery = Gallery("Most confident mistakes", note, cards, left_out=len(record.examples) - len(cards))
    summary = (
        f"Of {plural(record.n, 'image')} {count(record.wrong)} were misclassified; the most confident come first. "
        "Wrong labels are often among them."
    )
    return Section("mistakes", "Confident mistakes", summary, (gallery,), records=(record,))


def _mistake(example: PicturedMistake, names: Mapping[str, str]) -> Card:
    label, predicted = names[example.label], names[example.predicted]
    return Card(
        pictures=(("image", read_picture(example.image, text=f"image of {label}, taken for {predicted}")),),
        lines=(f"{label} → {predicted}", f"{percent(example.confidence)}, {clip(example.sample_id, _NAME)}"),
    )


def input_gradients_section(record: InputGradients) -> Section:
    facts = (
        ("images", f"{count(record.n_right)} right, {count(record.n_wrong)} wrong"),
        (f"{_middle(record.n_right)}‖∂ℓ/∂x‖₂, right", number(record.median_norm_right)),
        (f"{_middle(record.n_wrong)}‖∂ℓ/∂x‖₂, wrong", number(record.median_norm_wrong)),
        ("squared gradient in the strongest 10 % of pixels", percent(record.concentration)),
        ("exactly zero gradients", count(record.zero)),
        ("gradients that are not finite", count(record.non_finite)),
    )
    names = name_classes((name for s in record.samples for name in (s.label, s.prediction)), length=_CLASS_NAME)
    cards = within((_sample(sample, names) for sample in record.samples), size=GRADIENT_BYTES)
    note = "Beside each image: |∂ℓ/∂x| summed over its channels, scaled to its own maximum; light is strong."
    gallery = Gallery("Saliency maps |∂ℓ/∂x|", note, cards, left_out=len(record.samples) - len(cards))
    summary = (
        "The gradient of the loss with respect to the pixels: its norm tells how far the loss climbs for a small "
        "change, its map where."
    )
    parts = (_norms(record), Facts(facts), gallery if record.samples else None)
    return build_section("input-gradients", "Input gradients", summary, *parts, records=[record])


def _middle(n: int) -> str:
    """One image has no median."""
    return "median " if n > 1 else ""


def _sample(sample: InputGradientSample, names: Mapping[str, str]) -> Card:
    label, prediction = names[sample.label], names[sample.prediction]
    predicted = f"{prediction} ({percent(sample.confidence)})"
    return Card(
        pictures=(
            ("image", read_picture(sample.image, text=f"image of {label}, taken for {prediction}")),
            ("gradient", read_picture(sample.gradient_map, text=f"where the loss of this {label} is sensitive")),
        ),
        lines=(
            predicted if sample.correct else f"{label}, predicted as {predicted}",
            f"‖∂ℓ/∂x‖₂ = {number(sample.gradient_norm)}, {clip(sample.sample_id, _NAME)}",
        ),
        right=sample.correct,
    )


def _norms(record: InputGradients) -> Figure | Table:
    shares = ("5 %", "25 %", "50 %", "75 %", "95 %")
    sides = [("right", record.n_right, record.quantiles_right), ("wrong", record.n_wrong, record.quantiles_wrong)]
    boxes = [(name, n, quantiles) for name, n, quantiles in sides if n > 1 and len(quantiles) == len(shares)]
    numbers = table(
        "Quantiles of ‖∂ℓ/∂x‖₂",
        ("prediction", ">images", *(f">{share}" for share in shares)),
        tuple((name, count(n), *map(number, quantiles)) for name, n, quantiles in boxes),
    )
    # a logarithmic axis has no place for zeros
    drawn = [box for box in boxes if all(0 < value < math.inf for value in box[2])]
    if not drawn:
        return numbers
    rows: list[Row] = [
        {
            "side": f"{name} ({count(n)})", "right": name == "right",
            **{f"q{i}": value for i, value in enumerate(quantiles)},
            "tip": f"{name}: median {number(quantiles[2])}, half lie in {number(quantiles[1])} to "
            f"{number(quantiles[3])}, 90 % in {number(quantiles[0])} to {number(quantiles[4])}",
        }
        for name, n, quantiles in drawn
    ]  # fmt: skip

    def build(width: int) -> AnyChart:
        colour = alt.condition("datum.right", alt.value(ACCENT), alt.value(ALARM))
        base = alt.Chart(source(rows)).encode(
            y=alt.Y("side:N", sort=None, title=None, axis=alt.Axis(domain=False, ticks=False)), color=colour
        )
        log = alt.Scale(type="log")
        axis = decades(value for _, _, quantiles in drawn for value in quantiles)
        ends = alt.X("q0:Q", scale=log, axis=axis, title="‖∂ℓ/∂x‖₂ (nats per unit of pixel change)")
        box, middle = (alt.X(f"{name}:Q", scale=log) for name in ("q1", "q2"))
        return alt.layer(
            base.mark_rule(strokeWidth=2).encode(x=ends, x2="q4:Q"),
            base.mark_bar(height=20, opacity=0.35, cornerRadius=3).encode(x=box, x2="q3:Q", description=tip()),
            base.mark_tick(thickness=3, height=26, opacity=1).encode(x=middle, description=tip()),
        ).properties(width=width - 95, height=alt.Step(52))

    right, wrong = record.median_norm_right, record.median_norm_wrong
    if right and wrong and min(record.n_right, record.n_wrong) > 1:
        more, word = (wrong / right, "larger") if wrong >= right else (right / wrong, "smaller")
        finding = f"On misclassified images the gradient is {number(more)} times {word} (medians)"
    else:
        finding = "How strongly the loss depends on the pixels"
    note = "Tick: median. Box: the middle half. Line: the middle 90 %."
    return figure(build, finding=finding, note=note, table=numbers, full=True)
