"""The data themselves: the range of the pixels, and what is known of each sample."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.pixels import PixelRange
from assay.records.provenance import Provenance
from assay.records.sample_table import SampleColumn, SampleTable
from assay.report.parts import Facts, Prose, Section, build_section, tabulate
from assay.wording import clip, count, listed, number, plural

SHOWN = 5  # of the values of a column


def provenance_section(record: Provenance) -> Section:
    """Where the weights come from, and whether the images were seen in training."""
    seen = {None: "not known", False: "no", True: "yes"}[record.tested_on_training]
    facts = (
        ("random weights", record.random),
        ("trained on", clip(record.trained_on, 80) or "not known"),
        ("tested on its training images", seen),
    )
    summary = "What was known of the model before anything was measured."
    return Section("provenance", "Where the weights come from", summary, (Facts(facts),), records=(record,))


def pixels_section(record: PixelRange) -> Section:
    facts = (
        ("values", f"{count(record.lowest)} to {count(record.highest)} of 0 to 255, {count(record.levels)} different"),
        ("brightest pixel of half of the images", f"at most {number(record.median_highest)}"),
        ("darkest pixel of half of the images", f"at least {number(record.median_lowest)}"),
    )
    summary = f"The pixels of all {plural(record.n, 'image')} as they were read, before any normalisation."
    return Section("pixel-range", "Range of the pixels", summary, (Facts(facts),), records=(record,))


def metadata_section(tables: Sequence[SampleTable]) -> Section:
    """The columns of every table: what kind of values they hold, and the most frequent of them."""
    columns = [column for each in tables for column in each.columns]
    rows = tabulate(
        "Columns that stay with the samples",
        columns,
        {
            "`column": lambda column: clip(column.name, 60),
            "values": lambda column: _KINDS[column.type],
            ">different": lambda column: count(len(column.values) - (None in column.values)),
            ">missing": lambda column: count(column.counts().get(None, 0)),
            "most frequent": _most_frequent,
        },
    )
    left_out = [reason for each in tables for reason in each.left_out]
    prose = Prose(f"Not in check.json: {clip('; '.join(left_out), 500)}.") if left_out else None
    summary = (
        f"What the source tells of {listed([plural(each.samples.n, 'sample') for each in tables])} beside image and "
        "label; `check.json` has the value of each."
    )
    return build_section(
        "metadata", "Metadata of the samples", summary, rows if columns else None, prose, records=tables
    )


_KINDS = {"text": "text", "whole": "whole numbers", "number": "numbers", "truth": "true or false"}


def _most_frequent(column: SampleColumn) -> str:
    counts = {value: times for value, times in column.counts().items() if value is not None}
    shown = [f"{clip(str(value), 30)} ({count(times)})" for value, times in list(counts.items())[:SHOWN]]
    return ", ".join(shown) + (", …" if len(counts) > SHOWN else "")
