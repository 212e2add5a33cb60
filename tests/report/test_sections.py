"""Records at the edges of their range: every section draws them or says why not."""

from __future__ import annotations

import math

import pytest

from assay.records.accuracy import CleanAccuracy
from assay.records.attack import AdversarialGallery, AttackAnatomy, EpsilonCurve, RobustAccuracy
from assay.records.base import Record
from assay.records.checkup import Checkup
from assay.records.compression import LayerSpectra
from assay.records.configuration import ModeAudit
from assay.records.gradients import GradientFlow, InputGradients
from assay.records.training import DecayGroups, TrainingRun
from assay.report.check_page import render_page
from assay.report.parts import Listing, Section
from assay.report.sections import build_sections


def only(checkup: Checkup, *records: Record) -> Checkup:
    return checkup.model_copy(update={"records": records})


def edge_cases(checkup: Checkup) -> dict[str, Record]:
    def change(kind: type[Record], **fields: object) -> Record:
        record = checkup.first(kind)
        assert record is not None
        return record.model_copy(update=fields)

    flow, spectra = checkup.first(GradientFlow), checkup.first(LayerSpectra)
    clean, run = checkup.first(CleanAccuracy), checkup.first(TrainingRun)
    assert flow and spectra and clean and run
    dead = flow.layers[0].model_copy(
        update={"weight_gradient": 0.0, "activation": 0.0, "activation_gradient": math.nan}
    )
    flat = spectra.layers[0].model_copy(
        update={"singular_values": (0.0, 0.0), "condition_number": math.inf, "effective_rank": math.nan}
    )
    epoch = run.epochs[0].model_copy(update={"loss": math.nan, "validation_accuracy": None})
    many = tuple(clean.per_class[0].model_copy(update={"name": f"class {i}"}) for i in range(200))
    identity = tuple(tuple(int(i == j) for j in range(200)) for i in range(200))
    return {
        "no class has a sample": change(CleanAccuracy, per_class=(), confusion=(), calibration=(), loss=math.nan),
        "one class": change(CleanAccuracy, per_class=clean.per_class[:1], confusion=((94,),)),
        "200 classes": change(CleanAccuracy, per_class=many, confusion=identity),
        "no errors": change(CleanAccuracy, confusion=tuple(tuple(9 * (i == j) for j in range(10)) for i in range(10))),
        "an attack without steps": change(
            RobustAccuracy, steps=0, step_size=None, loss_per_step=(), accuracy_per_step=()
        ),
        "an attack whose loss is not finite": change(RobustAccuracy, loss_per_step=(0.1, math.inf, math.nan)),
        "a curve of one point": change(
            EpsilonCurve, points=checkup.first(EpsilonCurve).points[:1], median_epsilon=None
        ),
        "an L2 curve": change(EpsilonCurve, norm="l2"),
        "nothing was broken": change(AdversarialGallery, examples=()),
        "all gradients are zero": change(GradientFlow, layers=(dead,), decay_per_layer=None, first_non_finite="conv1"),
        "no layers have gradients": change(GradientFlow, layers=(), decay_per_layer=math.nan),
        "none are wrong": change(InputGradients, quantiles_wrong=(), median_norm_wrong=None, n_wrong=0),
        "zero quantiles": change(InputGradients, quantiles_right=(0.0,) * 5, quantiles_wrong=(), samples=()),
        "nothing is finite": change(InputGradients, quantiles_right=(math.nan,) * 5, quantiles_wrong=(math.inf,) * 5),
        "a zero matrix": change(LayerSpectra, layers=(flat,), redundancy=math.nan),
        "no matrices": change(LayerSpectra, layers=()),
        "400 layers": change(LayerSpectra, layers=spectra.layers * 20),
        "no mode to compare": change(ModeAudit, train_eval_gap=None, training_flag=True),
        "a model without parameters": change(DecayGroups, groups=(), missed_by_name=()),
        "a run that diverged": change(TrainingRun, epochs=(epoch, epoch)),
        "a run without epochs": change(TrainingRun, epochs=()),
    }


CASES = (
    "no class has a sample", "one class", "200 classes", "no errors", "an attack without steps",
    "an attack whose loss is not finite", "a curve of one point", "an L2 curve", "nothing was broken",
    "all gradients are zero", "no layers have gradients", "none are wrong", "zero quantiles", "nothing is finite",
    "a zero matrix", "no matrices", "400 layers", "no mode to compare", "a model without parameters",
    "a run that diverged", "a run without epochs",
)  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_every_edge_of_a_record_is_drawn(case: str, checkup: Checkup) -> None:
    record = edge_cases(checkup)[case]
    sections = build_sections(only(checkup, record))
    assert sections[0].records == (record,)
    assert sections[0].summary
    page = render_page(only(checkup, record))
    assert ">nan<" not in page.lower().replace("nan</td>", "")
    assert f'id="{record.kind}"' in page or f'id="{record.kind.replace("_", "-")}"' in page


def test_the_cases_are_complete(checkup: Checkup) -> None:
    assert set(edge_cases(checkup)) == set(CASES)


@pytest.fixture(scope="module")
def sections(checkup: Checkup) -> tuple[Section, ...]:
    return build_sections(checkup)


def test_every_record_is_drawn_by_exactly_one_section(checkup: Checkup, sections: tuple[Section, ...]) -> None:
    drawn = [id(record) for section in sections for record in section.records]
    assert sorted(drawn) == sorted(id(record) for record in checkup.records)


def test_stages_that_did_not_run_are_named_with_their_reason(sections: tuple[Section, ...]) -> None:
    measured = sections[-1]
    assert measured.title == "How this was measured"
    assert "Invariance did not run." in measured.summary
    (left_out,) = (part for part in measured.parts if isinstance(part, Listing))
    assert ("Invariance: needs the budget standard", "") in left_out.items


def test_one_image_has_no_median(checkup: Checkup) -> None:
    gradients, curve, anatomy = (checkup.first(kind) for kind in (InputGradients, EpsilonCurve, AttackAnatomy))
    assert gradients and curve
    alone = [gradients.model_copy(update={"n_wrong": 1})]
    alone.append(curve.model_copy(update={"points": tuple(p.model_copy(update={"n": 1}) for p in curve.points)}))
    if anatomy:
        alone.append(anatomy.model_copy(update={"broken": 1}))
    page = render_page(only(checkup, *alone))
    assert "median ‖∂ℓ/∂x‖₂, right" in page
    assert "median ‖∂ℓ/∂x‖₂, wrong" not in page
    assert "(medians)" not in page
    assert "The one image is misclassified at ε = " in page
    assert "Half of the images" not in page
    assert "half are misclassified" not in page
    assert "ε that breaks it" in page
