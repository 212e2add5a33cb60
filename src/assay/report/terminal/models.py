"""What ``assay compare`` prints of models on the same images."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from assay.records.model_comparison import LatencyOfBoth, ModelComparison, ModelPair, Transfer
from assay.records.reading import made_inert
from assay.report import models_wording as words
from assay.report.comparison_wording import interval_of
from assay.report.terminal.layout import STYLES, print_facts, print_items, print_line
from assay.wording import plural

_FLIPS = 5  # shown; the page has more


def print_models(comparison: ModelComparison, console: Console) -> None:
    """The verdicts, and what each rests on."""
    comparison = made_inert(comparison)
    for pair in comparison.pairs:
        print_line(
            console, f"{words.verdict(pair, comparison)}.", f"bold {STYLES[words.TONE[pair.equivalence.verdict]]}"
        )
    if extra := words.remarks(comparison):
        print_line(console, extra)
    for pair in comparison.pairs:
        console.print()
        print_line(console, f"{pair.candidate} against {comparison.reference.name}, {plural(comparison.n, 'image')}")
        _print_pair(pair, comparison, console)


def _print_pair(pair: ModelPair, comparison: ModelComparison, console: Console) -> None:
    candidate = next(model for model in comparison.candidates if model.name == pair.candidate)
    equal = pair.equivalence
    print_facts(
        console,
        (
            ("accuracy", f"{words.accuracy_of(comparison.reference)} before, {words.accuracy_of(candidate)} after"),
            (
                "difference",
                f"{interval_of(pair.difference)} points, {words.p_text(pair.difference.adjusted)} (McNemar)",
            ),
            ("within the margin", f"{words.p_text(equal.adjusted)} (two one-sided exact tests)"),
            ("predictions changed", words.flips_of(pair)),
            *((each.what, words.largest_and_mean(each)) for each in pair.outputs),
            ("layers", words.drift_of(pair)),
            *((f"latency, {words.batch_of(each)}", _latency(each)) for each in pair.latencies),
            *((f"{each.source} broken", _transfer(each)) for each in pair.transfers),
        ),
    )
    if pair.flips:
        print_items(
            console,
            pair.flips[:_FLIPS],
            {
                "flipped": words.flip_name,
                "label": lambda flip: flip.label,
                "before": lambda flip: f"{flip.before} {words.confidence(flip.confidence_before)}",
                "after": lambda flip: f"{flip.after} {words.confidence(flip.confidence_after)}",
                "": lambda flip: Text(flip.change, style="dim"),
            },
        )
    for failed in pair.failures:
        print_line(console, f"could not run: {failed.measurement}: {failed.reason}", STYLES["could not run"])
    for note in (*candidate.notes, *pair.notes):
        print_line(console, f"note: {note}", STYLES["warn"])


def _latency(latency: LatencyOfBoth) -> str:
    before, after, speed = words.latency_of(latency)
    return f"{before} before, {after} after: {speed} as fast"


def _transfer(transfer: Transfer) -> str:
    shown = words.transfer_of(transfer)
    return f"{shown} also break {transfer.target}" if transfer.n else shown
