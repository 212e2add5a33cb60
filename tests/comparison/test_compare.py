"""Checks against a reference: what is paired, what is beyond noise, what is left out and why."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from scipy.integrate import trapezoid
from typer.testing import CliRunner

from assay.cli.main import app
from assay.comparison import compare
from assay.errors import InputError
from assay.records.checkup import Checkup
from assay.records.comparison import Comparison, Difference
from assay.report.comparison_page import render_comparison
from assay.report.comparison_wording import headline_of
from assay.report.terminal.comparison import print_comparison

Make = Callable[..., Checkup]


def flip(values: list[bool], *places: int) -> list[bool]:
    return [value ^ (place in places) for place, value in enumerate(values)]


def find(comparison: Comparison, measure: str) -> Difference:
    return next(each for each in comparison.versus[0].differences if each.measure.startswith(measure))


RIGHT = [place % 10 != 0 for place in range(400)]


def test_a_model_against_itself_does_not_differ(make_checkup: Make) -> None:
    one = make_checkup(RIGHT, RIGHT, [3] * 400)
    comparison = compare([one, one])
    assert {each.change for each in comparison.versus[0].differences} == {"no change beyond noise"}
    assert {each.p for each in comparison.versus[0].differences} == {1.0}
    measures = len(comparison.versus[0].differences)
    assert headline_of(comparison.versus[0]).endswith(f"does not differ on any of {measures} measures")
    assert not comparison.versus[0].regressions
    assert [each.name for each in (comparison.reference, *comparison.candidates)] == ["net", "net (2)"]


def test_pairs_decide_where_the_two_accuracies_alone_could_not(make_checkup: Make) -> None:
    after = flip(RIGHT, *range(0, 100, 10))  # ten wrong ones put right, none lost
    paired = find(compare([make_checkup(RIGHT), make_checkup(after)]), "clean")
    assert (paired.lost, paired.gained, paired.paired) == (0, 10, True)
    assert paired.p == pytest.approx(stats.binomtest(0, 10).pvalue)
    assert paired.change == "better"
    assert paired.difference == pytest.approx(10 / 400)
    assert 0 < paired.low < paired.difference < paired.high
    apart = find(compare([make_checkup(RIGHT), make_checkup(after, of="e")]), "clean")
    assert not apart.paired
    assert apart.p == pytest.approx(stats.fisher_exact([[360, 40], [370, 30]]).pvalue)
    assert apart.change == "no change beyond noise"
    other = compare([make_checkup(RIGHT), make_checkup(after, of="e")]).versus[0]
    assert "measure: the largest change is +2.5 points, clean accuracy" in headline_of(other)
    better = compare([make_checkup(RIGHT), make_checkup(after)]).versus[0]
    assert "better in clean accuracy (+2.5 points)" in headline_of(better)


def test_every_p_is_corrected_for_the_number_of_tests(make_checkup: Make) -> None:
    before, after = make_checkup(RIGHT, RIGHT), make_checkup(flip(RIGHT, 0, 10, 20, 30, 40, 50), RIGHT)
    one = find(compare([before, after]), "clean")
    assert one.p == pytest.approx(2 / 2**6)
    assert one.adjusted == pytest.approx(2 * one.p)
    assert one.change == "no change beyond noise"  # 0.031 alone, 0.063 as one of two
    several = compare([before, after, after])
    assert several.tests == 4
    assert find(several, "clean").adjusted == pytest.approx(4 * one.p)


def test_samples_out_of_order_and_parts_of_one_set_are_paired_by_id(make_checkup: Make) -> None:
    half = make_checkup(flip(RIGHT[:100], 0), ids=range(100))
    found = find(compare([make_checkup(RIGHT), half]), "clean")
    assert (found.n, found.lost, found.gained) == (100, 0, 1)
    assert found.note == "paired on the 100 samples that both saw, of 400"
    spread = make_checkup(RIGHT[:50], ids=range(0, 500, 10))
    assert find(compare([make_checkup(RIGHT), spread]), "clean").n == 40


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"of": "e"}, "other samples (400 of d, test against 400 of e, test)"),
        ({"keeps": False}, "one of the files was written by a version that did not keep the samples"),
        ({"ids": range(500, 900)}, "two subsets of the same data that have no sample in common"),
    ],
    ids=["other data", "an older document", "another part"],
)
def test_other_samples_are_not_paired_and_that_is_said(
    make_checkup: Make, changes: dict[str, object], said: str
) -> None:
    comparison = compare([make_checkup(RIGHT), make_checkup(RIGHT, **changes)])
    (versus,) = comparison.versus
    assert versus.unpaired == (f"clean accuracy: {said}",)
    assert versus.differences[0].test == "Fisher's exact test"
    assert said in render_comparison(comparison)
    console = Console(record=True, width=200)
    print_comparison(comparison, console)
    assert said in " ".join(console.export_text().split())


def test_the_same_ids_with_other_pixels_are_other_samples(make_checkup: Make) -> None:
    one, two = make_checkup(RIGHT), make_checkup(RIGHT)
    clean = two.records[0]
    known = clean.per_sample.samples
    other = clean.per_sample.model_copy(update={"samples": known.model_copy(update={"pixels": "x"})})
    changed = two.model_copy(update={"records": (clean.model_copy(update={"per_sample": other}),)})
    assert compare([one, changed]).versus[0].unpaired == ("clean accuracy: the same ids and labels, but other pixels",)
    larger = changed.model_copy(update={"subject": changed.subject.model_copy(update={"image_shape": (1, 16, 16)})})
    found = find(compare([one, larger]), "clean")
    assert found.paired
    assert found.note == "paired by id, the images prepared in another size (8 × 8 against 16 × 16)"


def test_attacks_of_other_strength_are_not_compared(make_checkup: Make) -> None:
    comparison = compare([make_checkup(RIGHT, RIGHT), make_checkup(RIGHT, RIGHT, steps=10)])
    (versus,) = comparison.versus
    assert [each.measure for each in versus.differences] == ["clean accuracy"]
    assert versus.left_out == (
        "after pgd: measured differently (L∞ 8/255, 20 steps, of 2/255 against L∞ 8/255, 10 steps, of 2/255)",
    )
    without = compare([make_checkup(RIGHT, RIGHT), make_checkup(RIGHT)]).versus[0]
    assert without.left_out[0].endswith("not measured in the candidate")
    assert without.regressions == ("after pgd, L∞ 8/255, 20 steps, of 2/255: measured before, not now",)
    assert "A202 Robust to a multi-step attack (PGD): holds before, not run now" in without.worse_verdicts


def test_the_area_under_the_curve_is_its_mean_accuracy(make_checkup: Make) -> None:
    source = random.Random(0)
    before = [source.randint(0, 4) for _ in range(400)]
    after = [min(4, level + (source.random() < 0.3)) for level in before]
    comparison = compare([make_checkup(RIGHT, None, before), make_checkup(RIGHT, None, after)])
    area = find(comparison, "mean accuracy over ε")
    epsilons = np.array([0, 1, 2, 4]) / 4
    for levels, value in ((before, area.reference), (after, area.candidate)):
        accuracies = [np.mean([level > k for level in levels]) for k in range(4)]
        assert value == pytest.approx(trapezoid(accuracies, epsilons))
    assert (area.test, area.paired, area.change) == ("sign-flip test", True, "better")
    assert area.low < area.difference < area.high
    (curve,) = comparison.versus[0].curves
    for k, point in enumerate(curve.points):
        assert point.candidate == pytest.approx(np.mean([level > k for level in after]))
        assert point.low <= point.difference <= point.high
    apart = compare([make_checkup(RIGHT, None, before, keeps=False), make_checkup(RIGHT, None, after, keeps=False)])
    loose = find(apart, "mean accuracy over ε")
    assert not loose.paired
    assert loose.difference == pytest.approx(area.difference)
    assert loose.high - loose.low > area.high - area.low


def test_a_verdict_that_moved_by_noise_is_no_regression(make_checkup: Make) -> None:
    def status(checkup: Checkup) -> str:
        return next(verdict.status for verdict in checkup.verdicts if verdict.rule == "A202")

    checks = [make_checkup([True] * 400, [place < held for place in range(400)]) for held in range(330, 150, -1)]
    holds = next(place for place, check in enumerate(checks) if status(check) != "pass") - 1
    comparison = compare(checks[holds : holds + 2])  # one image apart, on either side of the threshold
    rule = next(each for each in comparison.versus[0].rules if each.rule == "A202")
    assert (rule.before, rule.after, rule.change) == ("pass", "cannot tell", "within noise")
    assert not comparison.versus[0].regressions
    assert "moved, but after pgd did not beyond noise" in render_comparison(comparison)
    worse = compare([checks[holds], checks[-1]]).versus[0]
    assert next(each.change for each in worse.rules if each.rule == "A202") == "worse"
    assert not any("A202" in sentence for sentence in worse.regressions)
    assert any("A202" in sentence for sentence in worse.worse_verdicts)


def test_other_classes_are_another_task(make_checkup: Make) -> None:
    other = make_checkup(RIGHT)
    other = other.model_copy(update={"subject": other.subject.model_copy(update={"classes": ("x", "y", "z", "w")})})
    with pytest.raises(InputError, match=r"expected a check on the classes of net \(2: a, b\), got 4: x, y, z, …"):
        compare([make_checkup(RIGHT), other])
    with pytest.raises(InputError, match="two checks or more"):
        compare([other])


def test_a_comparison_survives_json_and_is_the_same_again(make_checkup: Make) -> None:
    checks = [make_checkup(RIGHT, RIGHT, [2] * 400), make_checkup(flip(RIGHT, 3, 4), RIGHT, [3] * 400)]
    comparison = compare(checks, seed=4)
    assert Comparison.model_validate_json(comparison.model_dump_json()) == comparison
    assert compare(checks, seed=4) == comparison


def test_hostile_names_stay_text(make_checkup: Make) -> None:
    name = '"><script>alert(1)</script>\x1b[2J'
    comparison = compare([make_checkup(RIGHT), make_checkup(RIGHT, model=name)])
    page = render_comparison(comparison)
    assert "<script>alert" not in page
    assert "\x1b" not in page
    console = Console(record=True, width=100)
    print_comparison(comparison, console)
    assert "\x1b" not in console.export_text()


@pytest.fixture
def folder(make_checkup: Make, tmp_path: Path) -> Path:
    for name, places in (("a", ()), ("worse", range(1, 60)), ("same", (1,))):
        (tmp_path / name).mkdir()
        check = make_checkup(flip(RIGHT, *places))
        (tmp_path / name / "check.json").write_text(check.model_dump_json())
    return tmp_path


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["compare", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_the_exit_code_tells_a_regression(folder: Path) -> None:
    out = folder / "out"
    assert run(folder / "a", folder / "same", "--out", out, "--fail-on", "regression")[0] == 0
    assert run(folder / "a", folder / "worse", "--out", out)[0] == 0
    code, said = run(
        folder / "a", folder / "worse" / "check.json", folder / "same", "--out", out, "--fail-on", "regression"
    )
    assert code == 1
    assert "regression: clean accuracy: 90.0 % to" in said
    assert Comparison.model_validate_json((out / "compare.json").read_text()).tests == 2
    assert (out / "compare.html").read_text().startswith("<!doctype html>")
    assert (out / "compare.html").stat().st_size < 3_000_000


def test_one_check_is_not_enough_and_a_broken_one_is_one_line(folder: Path) -> None:
    with pytest.raises(InputError, match="compare: expected two checks"):
        run(folder / "a", "--out", folder / "out")
    (folder / "b.json").write_text("{")
    with pytest.raises(InputError, match=r"b\.json: expected JSON"):
        run(folder / "a", folder / "b.json", "--out", folder / "out")
    assert not (folder / "out" / "compare.json").exists()


def test_comparing_needs_no_torch() -> None:
    modules = "assay.comparison, assay.report.comparison_page, assay.report.history_page, assay.cli.compare"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_two_settings_of_one_attack_are_each_held_against_their_own(make_checkup: Make) -> None:
    one = make_checkup(RIGHT, RIGHT)
    weak, strong = RIGHT, flip(RIGHT, *range(1, 80))
    long = make_checkup(RIGHT, strong, steps=100)
    both = one.model_copy(update={"records": (*one.records, long.records[1])})
    found = compare([both, both]).versus[0].differences
    assert [each.reference for each in found if each.measure.startswith("after pgd")] == [
        pytest.approx(sum(values) / 400) for values in (weak, strong)
    ]


def same_model_attacked_twice(
    make: Make, random: np.random.Generator, *, n: int, fewer: int | None = None
) -> tuple[Checkup, Checkup]:
    """One model: equal on clean images, attacked with two seeds, of which each breaks some that the other misses.

    With ``fewer`` the second check attacks the first of these samples only, with fewer steps, as a smaller budget does.
    """
    right = random.random(n) < 0.95
    chance = random.random(n) ** 2  # of an image, to be broken at a size
    checks = []
    for size, steps in ((n, 20), (fewer or n, 10 if fewer else 20)):
        sizes = np.array([0.3, 0.6, 0.9])  # three points of the curve beyond 0
        broken = random.random((size, 3)) < chance[:size, None] * sizes
        levels = np.where(right[:size], 1 + np.argmax(np.c_[broken, np.ones(size, bool)], axis=1), 0)
        robust = right[:size] & (random.random(size) > chance[:size])
        checks.append(make(right[:size].tolist(), robust.tolist(), levels.tolist(), ids=range(size), steps=steps))
    return checks[0], checks[1]


@pytest.mark.parametrize("fewer", [None, 120], ids=["two seeds", "two budgets"])
def test_one_model_attacked_twice_does_not_differ_from_itself(make_checkup: Make, fewer: int | None) -> None:
    random = np.random.default_rng(7)
    pairs, measures, curves = 200, 0, 0
    for number in range(pairs):
        n = (60, 200, 400)[number % 3] if fewer is None else 300
        one, other = same_model_attacked_twice(make_checkup, random, n=n, fewer=fewer)
        (versus,) = compare([one, other], seed=number).versus
        measures += any(each.change != "no change beyond noise" for each in versus.differences)
        (curve,) = versus.curves
        curves += any(not point.low <= 0 <= point.high for point in curve.points)
        assert len(versus.differences) == (3 if fewer is None else 2)
    assert measures <= 0.05 * pairs
    assert curves <= 0.05 * pairs


def test_a_better_model_never_fails_whatever_its_verdicts_do(make_checkup: Make) -> None:
    source = random.Random(1)
    before = [source.randint(0, 3) for _ in range(400)]
    one = make_checkup([place % 10 > 1 for place in range(400)], [place % 2 == 0 for place in range(400)], before)
    two = make_checkup([place % 20 > 0 for place in range(400)], [place % 5 > 0 for place in range(400)],
                       [min(4, level + 1) for level in before])  # fmt: skip
    worse = tuple(v.model_copy(update={"status": "error"}) for v in two.verdicts)
    (versus,) = compare([one, two.model_copy(update={"verdicts": worse})]).versus
    assert {each.change for each in versus.differences} == {"better"}
    assert versus.regressions == ()
    assert versus.worse_verdicts


def test_the_strongest_attack_comes_first(make_checkup: Make) -> None:
    checks = [make_checkup(RIGHT, RIGHT) for _ in range(2)]
    fgsm = [
        record.model_copy(update={"attack": "fgsm", "steps": 1})
        for record in checks[0].records
        if record.kind == "robust_accuracy"
    ]
    both = [check.model_copy(update={"records": (check.records[0], *fgsm, *check.records[1:])}) for check in checks]
    names = [each.measure.partition(",")[0] for each in compare(both).versus[0].differences]
    assert names == ["clean accuracy", "after pgd", "after fgsm"]
