"""A thousand classes on a page: the worst and best with honest intervals, the pairs confused most, search, names."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from assay.evaluate import Predictions, summarize
from assay.records.accuracy import CleanAccuracy
from assay.records.checkup import Checkup
from assay.report.check_page import render_page
from assay.report.parts import Figure, SampleGrid
from assay.report.sections import build_sections
from assay.wording import class_names, name_classes

NAMES = tuple(f"n{i:08d} thing {i}, other name of {i}" for i in range(1000))


@pytest.fixture(scope="module")
def clean() -> CleanAccuracy:
    import torch

    rng = random.Random(0)
    labels = torch.arange(5000) % 1000
    predicted = [label if rng.random() < 0.7 else (label + rng.choice((1, 1, 2, 40))) % 1000 for label in range(5000)]
    predicted = [place % 1000 for place in predicted]
    predicted[7::1000] = [300] * 5  # class 7 is always taken for 300
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 1000).float() * 9
    return summarize(Predictions(logits, labels, 1.0), classes=NAMES)


@pytest.fixture(scope="module")
def figures(clean: CleanAccuracy) -> tuple[Figure, ...]:
    from assay.report.sections.accuracy import accuracy_section

    return tuple(part for part in accuracy_section(clean).parts if isinstance(part, Figure))


def test_intervals_of_classes_hold_for_all_at_once(clean: CleanAccuracy) -> None:
    for group in clean.per_class:
        assert group.simultaneous_low is not None and group.simultaneous_high is not None
        assert group.simultaneous_low <= group.low and group.high <= group.simultaneous_high
    assert CleanAccuracy.model_validate_json(clean.model_dump_json()) == clean


def test_a_class_without_samples_has_no_interval_and_takes_no_part() -> None:
    import torch

    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    logits = torch.nn.functional.one_hot(labels, 2).float()
    with_empty = torch.cat([logits, torch.zeros(6, 998)], dim=1)
    two = summarize(Predictions(logits, labels, 1.0), classes=("a", "b"))
    many = summarize(Predictions(with_empty, labels, 1.0), classes=("a", "b", *map(str, range(998))))
    assert many.per_class[:2] == two.per_class
    assert many.per_class[2].simultaneous_low is None


def test_the_worst_and_the_best_are_drawn_and_every_class_can_be_searched(figures: tuple[Figure, ...]) -> None:
    classes = figures[0]
    assert classes.finding.startswith("thing 7 is hardest: 0")
    assert "allows for having picked the class among 1000" in classes.note
    assert "none of 1,000 lie below it beyond chance" in classes.note  # five images of a class cannot tell
    assert "25 worst and the 5 best of 1,000" in classes.note
    assert classes.table is not None
    assert len(classes.table.shown) == 1000 and classes.table.searched and classes.table.left_out == 0
    assert [column.title for column in classes.table.columns][-2:] == ["of all classes at once", "n"]


def test_classes_that_are_worse_beyond_chance_are_counted() -> None:
    import torch

    from assay.report.sections.accuracy import accuracy_section

    labels = torch.arange(1000) % 20
    predicted = torch.where(labels == 3, 4, labels)
    logits = torch.nn.functional.one_hot(predicted, 20).float()
    section = accuracy_section(summarize(Predictions(logits, labels, 1.0), classes=tuple("abcdefghijklmnopqrst")))
    classes = section.parts[0]
    assert isinstance(classes, Figure)
    assert "1 of 20 lies below it beyond chance" in classes.note
    assert classes.table is not None and not classes.table.searched  # few rows are read


def test_the_pairs_confused_most_stand_in_place_of_a_matrix(figures: tuple[Figure, ...]) -> None:
    pairs = figures[2]
    assert pairs.finding == "Most confused: thing 7 predicted as thing 300 (5 images)"
    assert pairs.note.startswith("The 25 most frequent of ")
    assert pairs.table is not None and pairs.table.searched
    assert pairs.table.rows[0] == ("thing 7", "thing 300", "5", "100\u00a0%")
    assert pairs.wide.count("<path") < 200


def test_the_page_and_the_document_of_a_thousand_classes_are_small(checkup: Checkup, clean: CleanAccuracy) -> None:
    others = tuple(record for record in checkup.records if not isinstance(record, CleanAccuracy))
    subject = checkup.subject.model_copy(update={"classes": NAMES})
    large = checkup.model_copy(update={"records": (clean, *others), "subject": subject})
    page = render_page(large)
    assert len(page.encode()) < 3_000_000
    assert len(large.model_dump_json(indent=1)) < 4_000_000
    assert page.count('type="search"') >= 2


def test_drawing_a_thousand_classes_takes_little_memory(checkup: Checkup, clean: CleanAccuracy, tmp_path: Path) -> None:
    others = tuple(record for record in checkup.records if not isinstance(record, CleanAccuracy))
    document = tmp_path / "check.json"
    document.write_text(checkup.model_copy(update={"records": (clean, *others)}).model_dump_json(indent=1))
    code = "import pathlib, sys; from assay.cli.main import app; app(['report', sys.argv[1]], standalone_mode=False)"
    code += "; print('peak', pathlib.Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    ended = subprocess.run([sys.executable, "-c", code, str(document)], capture_output=True, text=True, check=True)
    peak = int(ended.stdout.split("peak")[1]) * 1024
    assert peak < 1e9
    assert document.with_name("report.html").is_file()


def test_a_page_of_ten_classes_has_no_search(checkup: Checkup) -> None:
    assert 'type="search"' not in render_page(checkup).split("<script>")[0].split("</style>")[1]


def test_samples_of_many_classes_are_searched_by_name(checkup: Checkup) -> None:
    from assay.records.attack import SampleGallery

    record = checkup.first(SampleGallery)
    assert record is not None
    samples = tuple(sample.model_copy(update={"label": 7 * i}) for i, sample in enumerate(record.samples))
    many = record.model_copy(update={"classes": NAMES, "samples": samples})
    document = checkup.model_copy(update={"records": (many,)})
    (grid,) = build_sections(document)[0].parts
    assert isinstance(grid, SampleGrid)
    assert grid.labels[1] == (7, "thing 7", 1)
    page = render_page(document)
    assert '<input type="search" id="samples-1-label"' in page
    assert '<option value="thing 7">1</option>' in page


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (
            ("n01440764 tench, Tinca tinca", "n02012849-crane", "n03126707_crane"),
            ["tench", "n02012849-crane", "n03126707_crane"],
        ),
        (("crane, bird", "crane, machine", "tench, Tinca tinca"), ["crane, bird", "crane, machine", "tench"]),
        (("n01440764", "n01443537"), ["n01440764", "n01443537"]),  # nobody said what they are called
        (("cat", "dog"), ["cat", "dog"]),
        (("1,000", "2,000"), ["1,000", "2,000"]),
        ((", ", "x"), [",", "x"]),
        (("black bear, Ursus", "black bear"), ["black bear, Ursus", "black bear"]),
    ],
)
def test_of_several_terms_the_first_is_shown_where_it_tells_classes_apart(
    names: tuple[str, ...], shown: list[str]
) -> None:
    assert class_names(names) == shown
    assert name_classes([*names, *names]) == dict(zip(names, shown, strict=True))
