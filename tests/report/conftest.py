"""A checkup that looks like a real one, made of plain numbers: no model, no torch.

checkup        the whole of it, ten classes, every status among its verdicts
build_checkup  the same as a function of class names and verdicts (also used by the browser tests)
"""

from __future__ import annotations

import math
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest

from assay.records.base import Environment, Record
from assay.records.checkup import Checkup, Stage, Subject
from assay.records.configuration import ModeAudit
from assay.records.failure import FailedMeasurement
from assay.records.finding import Remedy, Verdict
from assay.records.training import DecayGroups, ParameterGroup
from assay.verdict import judge

# run as a file: test folders are no packages, and the browser tests take this one the same way
SAMPLE = runpy.run_path(str(Path(__file__).with_name("sample_records.py")))
CLASSES, LAYERS = SAMPLE["CLASSES"], SAMPLE["LAYERS"]


def verdict(rule: str, status: str, *, category: str = "invariance", **more: object) -> Verdict:
    """A verdict with every sentence filled in."""
    fields = {
        "claim": "Small rotations do not change the answer",
        "measured": "93.1 % (91.4 to 94.5, n = 1,000)",
        "threshold": "at least 90 % unchanged",
        "value": 0.931,
        "why": "A camera is never level.",
        "fix": "Train with rotations: `assay train --augment randaugment`.",
        "reference": "Engstrom et al. 2019, Exploring the landscape of spatial robustness, arXiv:1712.02779",
        "evidence": ("clean_accuracy",),
    }
    return Verdict(rule=rule, status=status, category=category, **{**fields, **more})


def verdicts(records: Sequence[Record]) -> tuple[Verdict, ...]:
    """What the rules say, with a remedy measured for the calibration and one rule that had nothing to judge."""
    remedy = Remedy(applied="temperature 1.6", measured="1.1 %", value=0.011)
    judged = (v.model_copy(update={"remedy": remedy}) if v.rule == "A103" else v for v in judge(records))
    unmeasured = verdict("A999", "not run", measured="never measured", value=math.nan, evidence=("weather",))
    return (*judged, unmeasured)


def build_checkup(
    *, classes: Sequence[str] = CLASSES, judged: Sequence[Verdict] | None = None, model: str = "resnet20"
) -> Checkup:
    """A whole checkup of a small residual network on ten classes."""
    names = tuple(f"layer{s}.{b}.bn{c}.weight" for s in (1, 2, 3) for b in (0, 1, 2) for c in (1, 2))
    groups = (
        ParameterGroup(
            role="weight", names=tuple(f"{name}.weight" for name in LAYERS), parameters=270_896, weight_decay=5e-4
        ),
        ParameterGroup(role="norm", names=names, parameters=1_376, weight_decay=0.0),
        ParameterGroup(role="bias", names=("fc.bias",), parameters=10, weight_decay=0.0),
    )
    records = (
        ModeAudit(
            training_flag=False,
            modules_in_train_mode=(),
            modules_in_eval_mode=names[:5],
            frozen_parameters=0,
            train_eval_gap=0.41,
            repeat_gap=0.0,
            batch_gap=3.1e-7,
            outputs_look_like="logits",
        ),
        SAMPLE["anatomy"](),
        SAMPLE["clean_accuracy"](classes),
        *SAMPLE["attacks"](),
        SAMPLE["curve"](),
        SAMPLE["gallery"](classes),
        SAMPLE["sample_gallery"](classes),
        SAMPLE["input_gradients"](classes),
        SAMPLE["flow"](),
        DecayGroups(
            groups=groups,
            frozen=0,
            tied=0,
            missed_by_name=("layer2.0.downsample.1.weight", "layer3.0.downsample.1.weight"),
        ),
        SAMPLE["spectra"](),
        SAMPLE["training"](),
    )
    stages = (
        "mode audit",
        "anatomy",
        "clean accuracy",
        "attacks",
        "epsilon curve",
        "input gradients",
        "gradient flow",
        "weight-decay groups",
        "spectra",
    )
    return Checkup(
        subject=Subject(
            model=model,
            weights="resnet20-12fca82f.th",
            data="cifar10",
            split="test",
            n=1000,
            available=10_000,
            classes=tuple(classes),
            image_shape=(3, 32, 32),
        ),
        budget="quick",
        seed=0,
        started="2026-03-01T12:00:00Z",
        seconds=131.4,
        environment=Environment(
            assay="0.1.0",
            python="3.12.4",
            torch="2.14.0",
            numpy="2.1.0",
            platform="Linux x86_64",
            processor="An ordinary processor",
            cores=2,
            threads=2,
            device="cpu",
            memory_gib=7.8,
        ),
        stages=(
            *(Stage(name=name, seconds=0.8 + 7 * i) for i, name in enumerate(stages)),
            Stage(name="invariance", seconds=0, skipped="needs the budget standard"),
        ),
        records=records,
        verdicts=tuple(verdicts(records) if judged is None else judged),
    )


def build_many_classes() -> Checkup:
    """The same on ninety classes."""
    return build_checkup(classes=tuple(f"thing {place}" for place in range(90)))


@pytest.fixture(scope="session")
def checkup() -> Checkup:
    return build_checkup()


@pytest.fixture(scope="session")
def few(checkup: Checkup) -> Checkup:
    """The check with three verdicts in words of its own, whatever the rules say today."""
    texts = {"threshold": "at least 75 %", "fault": "", "command": "", "mend": "", "fix": "", "where": "", "value": 0.5}
    pattern = checkup.verdicts[0].model_copy(update={**texts, "evidence": ("robust_accuracy",), "accepted": None})
    passing = {"rule": "A101", "category": "accuracy", "status": "pass", "claim": "Better | than chance"}
    failing = {"rule": "A202", "category": "robustness", "status": "error", "claim": "Robust to PGD",
               "fault": "Broken by PGD: 91.7 % → 0 %", "mend": "assay train cifar10 --recipe robust",
               "fix": "Train against the attack (the `robust` recipe)."}  # fmt: skip
    unsure = {"rule": "A103", "category": "accuracy", "status": "cannot tell", "claim": "Calibrated"}
    verdicts = [
        pattern.model_copy(update={**changes, "measured": f"measured {number}", "scored": True})
        for number, changes in enumerate((passing, failing, unsure))
    ]
    return checkup.model_copy(update={"verdicts": tuple(verdicts)})


def build_unmeasured() -> Checkup:
    """The same after PGD and the anatomy failed."""
    whole = build_checkup()
    failures = [
        FailedMeasurement(
            stage=stage, measurement=name, missing=(kind,), reason="no gradient", way_out="mend the model"
        )
        for stage, name, kind in (("attacks", "pgd", "robust_accuracy"), ("anatomy", "anatomy", "anatomy"))
    ]
    gone = ("anatomy", "adversarial_gallery", "sample_gallery")
    measured = [r for r in whole.records if r.kind not in gone and getattr(r, "attack", "") != "pgd"]
    records = (*measured, *failures)
    return whole.model_copy(update={"records": records, "verdicts": judge(records)})


@pytest.fixture(scope="session")
def unmeasured() -> Checkup:
    return build_unmeasured()


HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egnp.tac",
    "\x1b[2J\x1b]0;owned\x07",
    "{{ 7 * 7 }}{% raw %}",
    "</svg></style><b>bold</b>",
    "x" * 400,
    "",
    "cat",
    "cat",
)


def build_hostile() -> Checkup:
    """The same with names that try to break out of the page, the terminal and the charts."""
    where = HOSTILE[0] + HOSTILE[2] + HOSTILE[3]
    bad = verdict("A998", "error", where=where, claim="[red]x[/red] & <b>", measured='"<i>', evidence=("no_such_kind",))
    return build_checkup(classes=HOSTILE, model=HOSTILE[1] + HOSTILE[2], judged=[bad])


@pytest.fixture(scope="session")
def hostile() -> Checkup:
    return build_hostile()


@pytest.fixture(scope="session")
def bare() -> Checkup:
    """A checkup in which nothing was measured and nothing judged."""
    return build_checkup(judged=()).model_copy(update={"records": (), "stages": ()})
