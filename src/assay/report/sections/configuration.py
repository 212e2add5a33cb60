"""How the model was handed over, and which parameters decay."""

from __future__ import annotations

from collections.abc import Sequence

from assay.records.checkup import Checkup
from assay.records.mode import ModeAudit
from assay.records.training import DecayGroups, OptimizerAudit
from assay.report.parts import NAME, NUMBER, Column, Facts, Part, Section, Table
from assay.report.wording import count, number, percent, plural

_ROLES = {"norm": "normalisation", "bias": "biases", "weight": "all other weights"}


def modes_section(checkup: Checkup) -> Section | None:
    """The audit of training and evaluation mode."""
    audit = checkup.first(ModeAudit)
    if audit is None:
        return None
    facts = (
        ("handed over in", "training mode" if audit.training_flag else "evaluation mode"),
        ("mode-dependent modules in training mode", _some(audit.modules_in_train_mode)),
        ("mode-dependent modules in evaluation mode", _some(audit.modules_in_eval_mode)),
        ("outputs look like", audit.outputs_look_like),
        ("training against evaluation mode", _gap(audit.train_eval_gap)),
        ("two identical passes", _gap(audit.repeat_gap)),
        ("alone against in a batch", _gap(audit.batch_gap)),
        ("frozen parameters", count(audit.frozen_parameters)),
        ("parameters that are not finite", _some(audit.non_finite_parameters)),
    )
    summary = "What the mode does to the outputs. All other numbers on this page were measured in evaluation mode."
    return Section("mode-audit", "Mode audit", summary, (Facts(facts),), records=(audit,))


def decay_section(checkup: Checkup) -> Section | None:
    """The three weight-decay groups."""
    record = checkup.first(DecayGroups)
    if record is None:
        return None
    table = Table(
        "Weight-decay groups, by module type",
        (
            Column("group"),
            Column("tensors", NUMBER),
            Column("parameters", NUMBER),
            Column("weight decay", NUMBER),
            Column("for example", NAME),
        ),
        tuple(
            (
                _ROLES[group.role],
                count(len(group.names)),
                count(group.parameters),
                "not set" if group.weight_decay is None else number(group.weight_decay),
                ", ".join(group.names[:3]) + (" …" if len(group.names) > 3 else ""),
            )
            for group in record.groups
        ),
    )
    parts: list[Part] = [table]
    if record.missed_by_name:
        rows = tuple((name,) for name in record.missed_by_name)
        title = f'Normalisation parameters that a search for "bn" misses ({count(len(rows))})'
        parts.append(Table(title, (Column("parameter", NAME),), rows, folded=True))
    summary = (
        "Normalisation parameters and biases are best kept out of weight decay; the groups go by module type, never by "
        "name."
        + (f" {plural(record.frozen, 'frozen parameter')} left out." if record.frozen else "")
        + (f" {plural(record.tied, 'tied parameter')} counted once." if record.tied else "")
    )
    return Section("weight-decay", "Weight-decay groups", summary, tuple(parts), records=(record,))


def optimizer_section(checkup: Checkup) -> Section | None:
    """What an optimizer holds, against the parameters of its model."""
    audit = checkup.first(OptimizerAudit)
    if audit is None:
        return None
    facts = (
        ("never updated", _some(audit.missing)),
        ("updated more than once a step", _some(audit.repeated)),
        ("normalisation parameters that decay", _some(audit.decayed_norms)),
        ("biases that decay", _some(audit.decayed_biases)),
        ("weights spared although others decay", _some(audit.undecayed_weights)),
        ("frozen, held for nothing", _some(audit.frozen_held)),
        ("tensors that are not the model's", count(audit.foreign)),
    )
    summary = (
        f"{plural(audit.faults, 'parameter')} held or decayed wrongly."
        if audit.faults
        else "The optimizer holds every trainable parameter once and decays what should decay."
    )
    return Section("optimizer", "Optimizer", summary, (Facts(facts),), records=(audit,))


def _gap(gap: float | None) -> str:
    if gap is None:
        return "could not be measured"
    if gap == 0:
        return "the same outputs"
    return f"outputs differ by {percent(gap) if gap >= 1e-3 else number(gap)} of their range"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{count(len(names))}: {shown}{' …' if len(names) > 6 else ''}" if names else "none"
