"""The quality of the data: duplicates in pairs, accuracy without leaks, odd pictures and the size of classes."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.quality import DuplicatePair, Duplicates, PictureSurvey, RelatedAccuracy, Relation
from assay.report.parts import Card, Gallery, Part, Prose, Section, build_section, read_picture, table, tabulate, within
from assay.wording import accuracy, attack, clip, count, number, percent, plural, points

PAIR_BYTES = 900_000  # of the three megabytes a report may have
_NAME = 40
_MATCHES = {"exact": "equal pixels", "near": "near duplicate", "similar": "very similar"}


def duplicates_section(records: Sequence[Duplicates]) -> Section:
    """The pairs of each record: pictures of some, and all of them as a table."""
    parts: list[Part] = []
    for record in records:
        where = f"in {clip(record.against, 80)}" if record.against else "in the same set"
        shown = [pair for pair in record.pairs if pair.first_image and pair.second_image]
        cards = within(map(_card, shown), size=PAIR_BYTES // len(records))
        if cards:
            note = "What makes the right picture of the left one. Of near duplicates the least alike are here too."
            parts.append(Gallery(f"Pairs {where}", note, cards, left_out=len(shown) - len(cards)))
        if record.pairs:
            parts.append(
                tabulate(
                    f"All pairs {where}",
                    record.pairs,
                    {
                        "`picture": lambda pair: clip(pair.first_name, _NAME),
                        "`its relative": lambda pair: clip(pair.second_name, _NAME),
                        "labels": _labels,
                        "kind": lambda pair: _MATCHES[pair.match],
                        ">score": lambda pair: f"{pair.score:.3f}",
                        "what relates them": describe_relation,
                    },
                    folded=True,
                    search="Search by name",
                )
            )
        if record.left_out:
            parts.append(Prose(f"{plural(record.left_out, 'more pair')} are not in the document."))
    summary = " ".join(_sentence(record) for record in records)
    return build_section("duplicates", "Duplicates", summary, *parts, records=records)


def _sentence(record: Duplicates) -> str:
    where = (
        f"in the {plural(record.n_against, 'picture')} of {clip(record.against, 80)}"
        if record.against
        else "in the same set"
    )
    text = (
        f"Of {plural(record.n, 'picture')} {count(record.exact)} have their equal {where}, {count(record.near)} a near "
        f"duplicate (a score of at least {record.threshold:.3f}), and {count(record.similar)} a very similar picture."
    )
    plain = f" {plural(record.plain, 'picture')} show too little to be compared." if record.plain else ""
    return text + plain


def _labels(pair: DuplicatePair) -> str:
    first, second = (clip(name, _NAME) for name in (pair.first_label, pair.second_label))
    return first if first == second else f"{first} ≠ {second}"


def _card(pair: DuplicatePair) -> Card:
    return Card(
        pictures=(
            (clip(pair.first_name, 24), read_picture(pair.first_image, text=f"{clip(pair.first_label, _NAME)}")),
            (clip(pair.second_name, 24), read_picture(pair.second_image, text=f"{clip(pair.second_label, _NAME)}")),
        ),
        lines=(f"{_MATCHES[pair.match]}, {pair.score:.3f}: {_labels(pair)}", describe_relation(pair)),
    )


def describe_relation(pair: DuplicatePair) -> str:
    """What makes the second picture of the first, in words; what is too small to be seen is left out."""
    if pair.match == "exact":
        return "the same pixels"
    relation = pair.relation
    parts = ["mirrored"] if relation.mirrored else []
    parts += _geometry(relation)
    if abs(relation.contrast - 1) > 0.1:
        parts.append(f"contrast ×{number(relation.contrast)}")
    if abs(relation.offset + (relation.contrast - 1) * 128) > 10:  # of a middle grey
        parts.append("brighter" if relation.offset + (relation.contrast - 1) * 128 > 0 else "darker")
    parts.append(f"differs by {relation.noise:.0f} grey levels")
    return ", ".join(parts)


def _geometry(relation: Relation) -> list[str]:
    down, across = relation.scale_down, relation.scale_across
    parts = []
    if max(abs(down - 1), abs(across - 1)) > 0.03:
        alike = abs(down - across) <= 0.03
        parts.append(f"scale ×{(down + across) / 2:.2f}" if alike else f"scale ×{across:.2f} across, ×{down:.2f} down")
    if max(abs(relation.shift_down), abs(relation.shift_across)) > 0.02:
        shifts = ((relation.shift_across, "across"), (relation.shift_down, "down"))
        named = [f"{points(shift, digits=0)} % {axis}" for shift, axis in shifts if abs(shift) >= 0.005]
        parts.append(f"moved {' and '.join(named)}")
    return parts


def related_section(records: Sequence[RelatedAccuracy]) -> Section:
    """Accuracy with and without a duplicate in the training images, clean and after attacks."""
    numbers = tabulate(
        "Accuracy with and without the leaks",
        records,
        {
            "images": lambda record: attack(record.attack) if record.attack else "clean",
            ">all": lambda record: accuracy(record.every),
            ">with a duplicate": lambda record: accuracy(record.with_duplicate),
            ">without: what remains": lambda record: accuracy(record.without_duplicate),
            ">difference": lambda record: f"{points(record.difference)} points",
            ">95 % interval": lambda record: f"{points(record.low)} to {points(record.high)}",
        },
    )
    summary = (
        f"Accuracy on the pictures that have an exact or near duplicate in {clip(records[0].against, 80)}, and on the "
        "others, with the interval of the difference."
    )
    return build_section("related-accuracy", "Accuracy without leaks", summary, numbers, records=records)


def survey_section(record: PictureSurvey) -> Section:
    """Odd and unreadable pictures, and how many each class has."""
    rows = [(each.oddity, each.meaning, count(each.n), clip(", ".join(each.examples), 160)) for each in record.odd]
    rows += [("unreadable", "left out", count(len(record.unreadable)), clip("; ".join(record.unreadable), 300))]
    odd = table("Odd pictures", ("kind", "¶has", ">pictures", "`some of them"), rows)
    classes = tabulate(
        "Pictures of each class",
        record.classes,
        {
            "`class": lambda each: clip(each.name, _NAME),
            ">pictures": lambda each: count(each.n),
            ">share": lambda each: percent(each.n / max(1, record.n)),
        },
        folded=len(record.classes) > 20,
        search="Search a class",
    )
    colour = {1: "grey", 3: "colour"}.get(record.channels, f"{record.channels} channels")
    summary = f"{plural(record.n, 'picture')} of {record.width}×{record.height} pixels, {colour}."
    return build_section("pictures", "State of the pictures", summary, odd, classes, records=[record])
