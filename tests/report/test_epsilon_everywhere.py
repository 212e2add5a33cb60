"""Whatever shows an ε shows it in its norm: an L2 radius of 0.5 is 0.5, never 128/255."""

from __future__ import annotations

import io
import re
from html import unescape

import pytest
from rich.console import Console

from assay.comparison import compare
from assay.comparison.measures import compare_quantities, curve_setting, list_accuracies
from assay.records.attack import (
    AdversarialGallery,
    AttackAnatomy,
    AttackSanity,
    EpsilonCurve,
    RobustAccuracy,
    SampleGallery,
    SanityCheck,
)
from assay.records.checkup import Checkup
from assay.records.notebook import render_record
from assay.report.check_page import render_page
from assay.report.comparison_page import render_comparison
from assay.report.terminal.attack import print_attack, print_curve, print_sanity
from assay.report.terminal.check import print_summary
from assay.report.terminal.comparison import print_comparison
from assay.verdict import judge

SIZES = {"linf": (8 / 255, "L∞ 8/255"), "l2": (0.5, "L2 0.5"), "l1": (12.0, "L1 12")}
FRACTION = re.compile(r"[\d.]+/255")


def under(norm: str, checkup: Checkup) -> Checkup:
    """The sample checkup with every attack, curve and gallery measured in ``norm``."""
    size = SIZES[norm][0]
    scale = size / (8 / 255)
    records: list[object] = []
    for record in checkup.records:
        if isinstance(record, RobustAccuracy):
            step = None if record.step_size is None else record.step_size * scale
            changes = {"norm": norm, "epsilon": size, "step_size": step, "mean_distance": record.mean_distance * scale}
            records.append(record.model_copy(update=changes))
        elif isinstance(record, EpsilonCurve):
            points = tuple(p.model_copy(update={"epsilon": p.epsilon * scale}) for p in record.points)
            changes = {"norm": norm, "points": points, "median_epsilon": 0.8 * size}
            records.append(record.model_copy(update=changes))
        elif isinstance(record, AdversarialGallery):
            examples = tuple(e.model_copy(update={"distance": e.distance * scale}) for e in record.examples)
            records.append(record.model_copy(update={"norm": norm, "epsilon": size, "examples": examples}))
        elif isinstance(record, SampleGallery):
            records.append(record.model_copy(update={"norm": norm, "epsilon": size}))
        else:
            records.append(record)
    records += [sanity(norm), anatomy(norm)]
    return checkup.model_copy(update={"records": tuple(records), "verdicts": judge(records)})


def sanity(norm: str) -> AttackSanity:
    check = SanityCheck(name="zero gradients", value=0.2, limit=0.01, detail="a fifth of the gradients is zero")
    return AttackSanity(norm=norm, epsilon=SIZES[norm][0], n=64, checks=(check,), seconds=1.0)


def anatomy(norm: str) -> AttackAnatomy:
    return AttackAnatomy(
        attack="pgd",
        norm=norm,
        epsilon=SIZES[norm][0],
        broken=917,
        quantile_levels=(0.5,),
        loss_quantiles=((0.1,), (3.0,)),
        transitions=(),
        median_psnr=31.0,
        median_ssim=0.9,
        lowest_ssim=0.6,
    )


def printed(show: object, *arguments: object) -> str:
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=200))  # type: ignore[operator]
    return stream.getvalue()


def outputs(norm: str, checkup: Checkup) -> dict[str, str]:
    """Everything that tells of an attack, by name."""
    document = under(norm, checkup)
    comparison = compare([document, document])
    attack = next(document.each(RobustAccuracy))
    return {
        "report": readable(render_page(document)),
        "summary": printed(print_summary, document),
        "attack": printed(print_attack, attack),
        "curve": printed(print_curve, next(document.each(EpsilonCurve))),
        "sanity": printed(print_sanity, sanity(norm), document.verdicts),
        "comparison page": readable(render_comparison(comparison)),
        "comparison": printed(print_comparison, comparison),
        "shares": " ".join(share.name for share in list_accuracies(document)),
        "curve setting": curve_setting(next(document.each(EpsilonCurve))),
        "quantities": " ".join(f"{q.name} {q.unit}" for q in compare_quantities(document, document)),
        "verdicts": " ".join(f"{v.where} {v.measured}" for v in document.verdicts),
        "notebook": render_record(attack),
    }


def readable(page: str) -> str:
    """The text of a page and of its drawings: no rules for print or screen, no pictures, no embedded JSON."""
    without = re.sub(r"<(style|script)\b.*?</\1>|<pre\b.*?</pre>|base64,[^\"]+", " ", page, flags=re.DOTALL)
    return unescape(without)


@pytest.fixture(scope="module")
def told(checkup: Checkup) -> dict[str, dict[str, str]]:
    return {norm: outputs(norm, checkup) for norm in SIZES}


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_no_output_words_another_norm_in_255ths(norm: str, checkup: Checkup, told: dict[str, dict[str, str]]) -> None:
    rules = FRACTION.findall(" ".join(f"{v.claim} {v.threshold} {v.why} {v.fix}" for v in checkup.verdicts))
    for name, text in told[norm].items():
        wrong = [found for found in FRACTION.findall(text) if found not in rules]
        assert not wrong, f"{name}: {wrong}"


@pytest.mark.parametrize("norm", list(SIZES))
def test_every_output_words_the_ball_in_its_norm(norm: str, told: dict[str, dict[str, str]]) -> None:
    for name in ("report", "summary", "attack", "comparison page", "comparison", "shares", "verdicts"):
        assert SIZES[norm][1] in " ".join(told[norm][name].split()), name
    sign = SIZES[norm][1].partition(" ")[0]
    for name in ("curve", "curve setting", "quantities"):
        assert sign in told[norm][name], name


def test_a_median_in_another_norm_is_not_held_against_two_grey_levels(checkup: Checkup) -> None:
    statuses = {
        norm: next(v.status for v in under(norm, checkup).verdicts if v.rule == "A203") for norm in ("linf", "l2", "l1")
    }
    assert statuses == {"linf": "warn", "l2": "not run", "l1": "not run"}
