"""A check as a model card: metadata that model hubs read (``model-index``), then what, results, limits, and how."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping

from assay.records.accuracy import CleanAccuracy, Invariance, Proportion
from assay.records.anatomy import Anatomy
from assay.records.attack import RobustAccuracy
from assay.records.checkup import Checkup
from assay.records.configuration import PreparationAudit
from assay.records.failure import FailedMeasurement
from assay.report.answers import conclude
from assay.report.markdown import escape, fence, prose, table
from assay.report.sections.measured import list_unmeasured
from assay.report.summary import (
    LOOKS,
    circumstances,
    describe_preparation,
    describe_uses,
    headline,
    in_order,
    strongest_attack,
    warning,
)
from assay.wording import attack, ball, clip, compact, count, inert, percent, plural

Metric = Mapping[str, object]
_SHOWN_CLASSES = 300  # characters


def render_model_card(checkup: Checkup) -> str:
    """Front matter in YAML, and sections in Markdown.

    A check knows neither licence nor training data nor authors: the card names them as not known and leaves them to
    be filled in. Accuracies in the front matter are shares from 0 to 1 and carry their interval and n in ``args``.
    """
    lines = ["---", *_front_matter(checkup), "---", "", f"# {escape(checkup.subject.model)}", ""]
    if (banner := warning(checkup.verdicts)) is not None:
        lines += [f"> **{escape(banner[1])}**", ""]
    conclusion, measured = conclude(checkup), headline(checkup)
    lines += [escape(conclusion), "", *([escape(measured), ""] if measured != conclusion else [])]
    lines += [*_what(checkup), *_fitness(checkup), *_results(checkup), *_limits(checkup), *_how(checkup)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _front_matter(checkup: Checkup) -> Iterator[str]:
    """YAML whose scalars are written as JSON, which YAML 1.2 contains."""
    yield from ("tags:", "- assay", "- robustness")
    subject = checkup.subject
    if subject.modality == "images":
        yield "pipeline_tag: image-classification"
    metrics = list(_metrics(checkup))
    if not metrics:
        return
    task = "image-classification" if subject.modality == "images" else "time-series-classification"
    yield from ("model-index:", f"- name: {_scalar(subject.model)}", "  results:")
    yield from ("  - task:", f"      type: {task}", "    dataset:", f"      name: {_scalar(subject.data)}")
    yield from (f"      type: {_scalar(subject.data)}", f"      split: {_scalar(subject.split)}", "    metrics:")
    for metric in metrics:
        for place, (key, value) in enumerate(metric.items()):
            yield f"    {'- ' if place == 0 else '  '}{key}: {_scalar(value)}"


def _scalar(value: object) -> str:
    """A value on one line; text is quoted, and what acts in it is spelt out."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_scalar(item)}' for key, item in value.items())}}}"
    # two characters that YAML does not allow, even quoted
    text = inert(value, keep="").translate({0xFFFE: "�", 0xFFFF: "�"}) if isinstance(value, str) else value
    return json.dumps(text, ensure_ascii=False)


def _metrics(checkup: Checkup) -> Iterator[Metric]:
    clean = checkup.first(CleanAccuracy)
    if clean is not None and clean.n:
        yield _metric("accuracy on clean images", clean)
        if clean.scored and math.isfinite(clean.expected_calibration_error):
            error = clean.expected_calibration_error
            yield {"type": "expected_calibration_error", "name": "expected calibration error", "value": error}
    for robust in _attacks(checkup):
        yield _metric(f"robust accuracy, {_attack_title(robust)}", robust, attack=robust.attack, norm=robust.norm,
                      epsilon=robust.epsilon, steps=robust.steps, restarts=robust.restarts)  # fmt: skip
    shifts = checkup.first(Invariance)
    if shifts is not None and shifts.operations and math.isfinite(shifts.mean_accuracy):
        args = {"n": shifts.clean.n, "operations": len(shifts.operations), "worst": shifts.worst_operation}
        name = "mean accuracy under image operations"
        yield {"type": "accuracy", "name": name, "value": shifts.mean_accuracy, "args": args}


def _metric(name: str, proportion: Proportion, **args: object) -> Metric:
    known = {**args, "n": proportion.n, "low": proportion.low, "high": proportion.high}
    return {"type": "accuracy", "name": name, "value": proportion.accuracy, "args": known}


def _attacks(checkup: Checkup) -> list[RobustAccuracy]:
    return [each for each in checkup.each(RobustAccuracy) if each.constrained and each.n]


def _attack_title(robust: RobustAccuracy) -> str:
    steps = f", {plural(robust.steps, 'step')}" if robust.steps > 1 else ""
    return f"{attack(robust.attack)}{steps}, {ball(robust)}"


def _what(checkup: Checkup) -> list[str]:
    subject, anatomy, preparation = checkup.subject, checkup.first(Anatomy), checkup.first(PreparationAudit)
    facts = [("model", subject.model + (f", weights {subject.weights}" if subject.weights else ""))]
    if anatomy is not None:
        facts.append(("parameters", f"{count(anatomy.parameters)}, {compact(anatomy.flops)} FLOPs an image"))
    if subject.image_shape is not None:
        facts.append(("input", " × ".join(map(str, subject.image_shape)) + ", pixels in [0, 1]"))
    if preparation is not None:
        facts.append(("preparation", describe_preparation(preparation)))
    if subject.classes:
        names = clip(", ".join(subject.classes), _SHOWN_CLASSES)
        facts.append(("classes", f"{count(len(subject.classes))}: {names}"))
    facts.append(("tested on", f"{subject.data}, {subject.split}: {count(subject.n)} of {count(subject.available)}"))
    facts += [("note", note) for note in subject.notes]
    facts.append(("licence, authors, training data", "not known from a check: to be filled in"))
    return ["## Model and data", "", *table(("", ""), ((escape(name), escape(value)) for name, value in facts))]


def _fitness(checkup: Checkup) -> list[str]:
    uses = [f"- {LOOKS[status].sign} {escape(sentence)}" for status, sentence in describe_uses(checkup.fitness)]
    return ["## Uses", "", *uses, ""] if uses else []


def _results(checkup: Checkup) -> Iterator[str]:
    clean, strongest, shifts = checkup.first(CleanAccuracy), strongest_attack(checkup), checkup.first(Invariance)
    titles = ("measured", "accuracy", "95 % interval", "n")
    yield from ("## Results", "")
    if clean is None and strongest is None:
        yield from ("Neither the accuracy nor an attack was measured.", "")
        return
    rows = [_row("clean images", clean)] if clean is not None else []
    rows += [_row(f"after {_attack_title(each)}", each) for each in _attacks(checkup)]
    yield from table(titles, rows)
    if clean is not None and clean.scored:
        confidence, error = percent(clean.mean_confidence), percent(clean.expected_calibration_error)
        yield from (escape(f"Mean confidence {confidence}, expected calibration error {error}."), "")
    if shifts is not None and shifts.operations:
        worst = f"{percent(shifts.worst_accuracy)} under {shifts.worst_operation}, the worst of them"
        over = f"over {len(shifts.operations)} image operations at their strengths (n = {count(shifts.clean.n)})"
        yield from (escape(f"{percent(shifts.mean_accuracy)} right on average {over}; {worst}."), "")
    if strongest is None:
        yield from ("No attack within a stated ball was run: nothing is known of adversarial images.", "")
    else:
        yield from ("Attacks give upper bounds: a stronger one may leave less.", "")


def _row(name: str, proportion: Proportion) -> tuple[str, ...]:
    low, high = (f"{bound * 100:.1f}" for bound in (proportion.low, proportion.high))
    return (escape(name), escape(percent(proportion.accuracy)), f"{low}–{high}", count(proportion.n))


def _limits(checkup: Checkup) -> Iterator[str]:
    yield from ("## Limits", "")
    findings = [v for v in in_order(checkup.verdicts) if v.status not in {"pass", "not run"}]
    for verdict in findings:
        look = LOOKS[verdict.status]
        name, statement = f"{look.sign} {look.word}, {escape(verdict.rule)}", escape(verdict.statement)
        yield f"- {name}: {statement}. Measured: {escape(verdict.measured)}."
    for failure in checkup.each(FailedMeasurement):
        yield f"- ? Could not run: {escape(failure.place)}, {escape(failure.reason)}"
    if findings:
        yield ""
    yield from ("Not measured:", "", *(f"- {prose(text)}" for text in list_unmeasured(checkup)), "")


def _how(checkup: Checkup) -> list[str]:
    machine = checkup.environment
    software = f"with assay {machine.assay} and torch {machine.torch}"
    text = f"{circumstances(checkup)} on {machine.device}, {checkup.started}, {software}."
    intervals = (
        "Intervals are 95 % Wilson intervals. Adversarial examples were verified by the untouched model before they "
        "counted."
    )
    return ["## How it was measured", "", escape(text), "", intervals, "", *_again(checkup)]


def _again(checkup: Checkup) -> Iterable[str]:
    """A command that judges the same, where the check has one among its verdicts."""
    command = next((v.command for v in checkup.verdicts if v.command.startswith("assay check ")), "")
    return fence(command) if command else ()
