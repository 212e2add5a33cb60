"""The page of models on the same images: drawn from a :class:`ModelComparison` alone."""

from __future__ import annotations

from assay.records.model_comparison import ComparedModel, ModelComparison, ModelPair
from assay.records.reading import made_inert
from assay.report import models_wording as words
from assay.report.charts import Item, draw_items, figure
from assay.report.comparison_wording import interval_of, p_value
from assay.report.page import Page, render
from assay.report.parts import Facts, Figure, KeyFigure, Part, Prose, Section, build_section, table, tabulate
from assay.wording import clip, count, distinct, number, percent, plural


def render_models(comparison: ModelComparison) -> str:
    """The whole page as text: one offline file."""
    comparison = made_inert(comparison)
    names = [comparison.reference.name, *(each.name for each in comparison.candidates)]
    return render(
        Page(
            title=" against ".join(clip(name, 60) for name in reversed(names)),
            subject=f"{' · '.join(clip(name, 60) for name in names[1:])}, held against {clip(names[0], 60)}",
            headline=words.headline(comparison),
            text=words.tally(comparison),
            key_figures=key_figures(comparison),
            sections=(*sections(comparison), _method(comparison)),
            version=comparison.environment.assay,
            footer="Made by assay from models.json.",
        )
    )


def sections(comparison: ModelComparison) -> tuple[Section, ...]:
    """The chapters, but for how it was done."""
    made = (_verdicts(comparison), _flips(comparison), _outputs(comparison), _layers(comparison), _latency(comparison))
    return tuple(section for section in (*made, _transfer(comparison), _failures(comparison)) if section is not None)


def key_figures(comparison: ModelComparison) -> tuple[KeyFigure, ...]:
    """For each model the verdict, the accuracy, what flipped, and how fast it is."""
    several, many = len(comparison.pairs) > 1, len(comparison.pairs) > 3
    figures: list[KeyFigure] = []
    for pair in comparison.pairs:
        of = f", {clip(pair.candidate, 40)}" if several else ""
        equal, flipped = pair.equivalence, sum(pair.flipped.values())
        tone = words.TONE[equal.verdict]
        detail = f"within {words.margin_of(comparison)}: {words.p_text(equal.adjusted)}"
        figures.append(KeyFigure(f"same model{of}", _VERDICTS[equal.verdict], detail, "same-model", status=tone))
        if many:
            continue
        change = f"points: {percent(pair.difference.reference)} to {percent(pair.difference.candidate)}"
        figures.append(KeyFigure(f"accuracy{of}", words.shown_change(pair), change, "same-model"))
        figures.append(KeyFigure(f"flipped{of}", count(flipped), f"of {plural(comparison.n, 'image')}", "flips"))
        for latency in pair.latencies[:1]:
            figures.append(KeyFigure(f"speed{of}", words.speed(latency), words.batch_of(latency), "latency"))
    return tuple(figures[:12])


_VERDICTS = {"same": "yes", "different": "no", "cannot tell": "cannot tell"}


def _verdicts(comparison: ModelComparison) -> Section:
    margin = comparison.pairs[0].equivalence.margin
    names = distinct([pair.candidate for pair in comparison.pairs], length=44)
    items = [
        Item(
            name,
            pair.difference.difference * 100,
            f"{pair.candidate}: {interval_of(pair.difference)} points, {_VERDICTS[pair.equivalence.verdict]}",
            pair.difference.low * 100,
            pair.difference.high * 100,
            kind=pair.equivalence.verdict,
        )
        for name, pair in zip(names, comparison.pairs, strict=True)
    ]
    build = draw_items(
        items,
        "difference of the accuracy (points)",
        share=False,
        domain=None,
        kinds=_KINDS,
        reference=(0.0, "no difference"),
        limits=[(sign * margin * 100, f"margin of {words.margin_of(comparison)}") for sign in (-1, 1)],
        step=34,
    )
    numbers = tabulate(
        "Accuracy and predictions",
        comparison.pairs,
        {
            "model": lambda pair: pair.candidate,
            ">difference (95 % interval)": lambda pair: interval_of(pair.difference),
            ">lost, gained": lambda pair: f"{count(pair.difference.lost or 0)}, {count(pair.difference.gained or 0)}",
            ">p, McNemar": lambda pair: p_value(pair.difference.adjusted),
            ">p, fall within the margin": lambda pair: p_value(pair.equivalence.p_fall),
            ">p, rise within the margin": lambda pair: p_value(pair.equivalence.p_rise),
            ">p, same": lambda pair: p_value(pair.equivalence.adjusted),
            ">unchanged predictions": _agreement,
            "same model": _answer,
        },
    )
    models = tabulate(
        "The models",
        (comparison.reference, *comparison.candidates),
        {
            "model": lambda model: model.name,
            ">accuracy (95 % interval)": words.accuracy_of,
            ">not finite": lambda model: count(model.non_finite),
            "pictures": _pictures,
            "notes": lambda model: "; ".join(model.notes),
        },
    )
    drawing = figure(
        build,
        finding=_changes(comparison),
        note="Mark: accuracy minus the reference's, on its 95 % interval. Dashed: no difference, and the margins.",
        table=numbers,
        full=True,
    )
    summary = (
        f"On the same {plural(comparison.n, 'image')}. Same: the accuracy is shown to change by less than "
        f"{words.margin_of(comparison)}, and more than "
        f"{percent(comparison.pairs[0].equivalence.least_agreement, digits=0)} of the predictions are shown to stay. "
        "A test that finds no difference never makes two models the same."
    )
    return build_section("same-model", "Is it the same model?", summary, drawing, models, records=(comparison,))


def _changes(comparison: ModelComparison) -> str:
    if len(comparison.pairs) == 1:
        return f"The accuracy changes by {interval_of(comparison.pairs[0].difference)} points"
    largest = max(comparison.pairs, key=lambda pair: abs(pair.difference.difference))
    return f"The accuracy changes most for {largest.candidate}: by {interval_of(largest.difference)} points"


_KINDS = {
    "same": ("var(--pass)", "circle"),
    "different": ("var(--error)", "triangle-down"),
    "cannot tell": ("var(--warn)", "diamond"),
}


def _answer(pair: ModelPair) -> str:
    enough = f" (about {count(pair.equivalence.needed)} images would settle it)" if pair.equivalence.needed else ""
    return f"{_VERDICTS[pair.equivalence.verdict]}{enough}"


def _agreement(pair: ModelPair) -> str:
    return f"{percent(pair.agreement.accuracy)} ({pair.agreement.low * 100:.1f}–{pair.agreement.high * 100:.1f})"


def _pictures(model: ComparedModel) -> str:
    channels, height, width = model.image_shape
    size = f"{width} × {height}, {plural(channels, 'channel')}"
    return f"{size}, {model.prepared}" if model.prepared else size


def _flips(comparison: ModelComparison) -> Section:
    parts: list[Part] = []
    for pair in comparison.pairs:
        changed = sum(pair.flipped.values())
        parts.append(Prose(f"{pair.candidate}: {words.flips_of(pair)}. {words.confidences(pair)}".strip()))
        if not changed:
            continue
        shown = len(pair.flips)
        caption = f"Images whose prediction changed: {pair.candidate}"
        parts.append(
            tabulate(
                caption if shown == changed else f"{caption}, the surest {count(shown)} of {count(changed)}",
                pair.flips,
                {
                    "image": words.flip_name,
                    "label": lambda flip: flip.label,
                    "before": lambda flip: flip.before,
                    ">confidence before": lambda flip: words.confidence(flip.confidence_before),
                    "after": lambda flip: flip.after,
                    ">confidence after": lambda flip: words.confidence(flip.confidence_after),
                    "change": lambda flip: flip.change,
                },
                folded=len(comparison.pairs) > 1,
            )
        )
    summary = "Before: the reference's prediction. The surest first, by the smaller of both confidences."
    return build_section("flips", "Which images flipped", summary, *parts)


def _outputs(comparison: ModelComparison) -> Section | None:
    pairs = [pair for pair in comparison.pairs if pair.outputs]
    rows = [
        (
            pair.candidate,
            each.what,
            *(number(value) for _, value in each.quantiles),
            number(each.mean),
            words.share_of_range(each.largest_relative) if each.what == "logits" else "",
        )
        for pair in pairs
        for each in pair.outputs
    ]
    if not rows:
        return None
    shares = [share for share, _ in pairs[0].outputs[0].quantiles[:-1]]
    titles = (
        "model",
        "outputs",
        *(f">{percent(share, digits=0)} of images" for share in shares),
        ">largest",
        ">mean",
        ">largest, of their range",
    )
    notes = [Prose(f"{pair.candidate}: {note}.") for pair in comparison.pairs for note in pair.notes]
    summary = (
        "Absolute differences. That share of the images has no output that differs by more; the mean is over all "
        "images and classes; the range is that of the reference's logits."
    )
    return build_section("outputs", "How far the outputs drifted", summary, table("Differences", titles, rows), *notes)


def _layers(comparison: ModelComparison) -> Section | None:
    figures = [_drift(pair) for pair in comparison.pairs if pair.layers]
    if not figures:
        return None
    summary = (
        "The relative error ‖a − b‖/‖a‖ of what each layer or group of layers puts out, in the order they run: where "
        "it jumps, the difference arises."
    )
    return build_section("layers", "Where it arises", summary, *figures)


def _drift(pair: ModelPair) -> Figure:
    names = distinct([layer.name for layer in pair.layers], length=44)
    items = [
        Item(name, layer.relative_error * 100, f"{layer.name}: {words.share_of_range(layer.relative_error)}")
        for name, layer in zip(names, pair.layers, strict=True)
    ]
    numbers = tabulate(
        f"Layers: {pair.candidate}",
        pair.layers,
        {
            "`layer": lambda layer: layer.name,
            "type": lambda layer: layer.type,
            ">relative error": lambda layer: words.share_of_range(layer.relative_error),
        },
    )
    build = draw_items(items, "relative error (%)", share=False, domain=None, step=20)
    note = f"{pair.candidate}, over {plural(pair.layer_images, 'image')}."
    return figure(build, finding=words.drift_of(pair), note=note, table=numbers, full=True)


def _latency(comparison: ModelComparison) -> Section | None:
    rows = [
        (pair.candidate, words.batch_of(each), *words.latency_of(each))
        for pair in comparison.pairs
        for each in pair.latencies
    ]
    if not rows:
        return None
    machine = comparison.environment
    summary = (
        f"Median of one call with its quartiles, all models called in turn on {machine.processor} with "
        f"{plural(machine.threads, 'thread')}."
    )
    titles = ("model", "images at once", ">reference", ">model", ">times as fast")
    return build_section("latency", "Latency, in turn", summary, table("Latency", titles, rows))


def _transfer(comparison: ModelComparison) -> Section | None:
    transfers = [each for pair in comparison.pairs for each in pair.transfers]
    if not transfers:
        return None
    numbers = tabulate(
        "Adversarial images given to another model",
        transfers,
        {
            "made for": lambda each: each.source,
            "given to": lambda each: each.target,
            "attack": words.attack_of,
            ">break it, too (95 % interval)": words.transfer_of,
        },
    )
    summary = "Of the images that were right in both, and that the attack broke in the model it was made for."
    return build_section("transfer", "Adversarial images of one, given to the other", summary, numbers)


def _failures(comparison: ModelComparison) -> Section | None:
    rows = [
        (pair.candidate, failed.measurement, failed.reason, failed.way_out)
        for pair in comparison.pairs
        for failed in pair.failures
    ]
    numbers = table("Measurements that could not run", ("model", "what", "¶why", "¶way out"), rows)
    summary = "What these models do not allow to be measured. The verdict does not rest on it."
    return build_section("could-not-run", "Could not run", summary, numbers) if rows else None


def _method(comparison: ModelComparison) -> Section:
    facts = Facts(
        (
            ("data", f"{comparison.data}, {comparison.split}: {plural(comparison.n, 'image')}"),
            ("same accuracy", f"two one-sided exact tests, margin {words.margin_of(comparison)}"),
            ("different accuracy", "McNemar's exact test; Newcombe's interval for paired proportions"),
            ("several models", f"Holm's correction over {plural(len(comparison.pairs), 'model')}"),
            ("level", f"{comparison.level:g}"),
            ("seed", str(comparison.seed)),
            ("started", comparison.started),
            ("software and machine", _machine(comparison)),
        )
    )
    prose = Prose(
        "The tests are about images such as these. Other images, other sizes of batch and other machines may show "
        "differences that these do not."
    )
    return Section("method", "How this was compared", "", (facts, prose))


def _machine(comparison: ModelComparison) -> str:
    machine = comparison.environment
    return f"assay {machine.assay}, torch {machine.torch}, {machine.device}, {machine.processor}"
