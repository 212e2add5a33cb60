"""Configuration: mode, normalisation, weight decay, optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

from assay.records.configuration import ModeAudit, NormalizationAudit, PreparationAudit
from assay.records.training import DecayGroups, OptimizerAudit
from assay.report.charts import Item, draw_items, figure
from assay.report.parts import Facts, Figure, Section, Table, build_section, table, tabulate
from assay.report.summary import describe_preparation
from assay.wording import accuracy, count, number, percent, plural

_ROLES = {
    "norm": "normalisation",
    "bias": "biases",
    "weight": "all other weights",
    "other": "slopes, scales, tokens, position embeddings",
}


def modes_section(audit: ModeAudit) -> Section:
    facts = (
        ("passed in", "training mode" if audit.training_flag else "evaluation mode"),
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


def decay_section(record: DecayGroups) -> Section:
    numbers = tabulate(
        "Weight-decay groups, by module type",
        record.groups,
        {
            "group": lambda group: _ROLES[group.role],
            ">tensors": lambda group: count(len(group.names)),
            ">parameters": lambda group: count(group.parameters),
            ">weight decay": lambda group: "not set" if group.weight_decay is None else number(group.weight_decay),
            "`for example": lambda group: ", ".join(group.names[:3]) + (" …" if len(group.names) > 3 else ""),
        },
    )
    title = f'Normalisation parameters that a search for "bn" misses ({count(len(record.missed_by_name))})'
    missed = table(title, ("`parameter",), ((name,) for name in record.missed_by_name), folded=True)
    other = table(
        f"No matrix or kernel of a layer, spared as a rule ({count(len(record.other))})",
        ("`parameter", "`shape", "`of", "what"),
        ((each.name, "×".join(map(str, each.shape)) or "1", each.owner, each.why) for each in record.other),
        folded=True,
    )
    parts = (numbers, other if record.other else None, missed if record.missed_by_name else None)
    summary = (
        "Normalisation parameters and biases are best excluded from weight decay; the groups go by module type, not "
        "by name."
        + (f" Of modules of no known type, taken for weights: {_some(record.assumed)}." if record.assumed else "")
        + (f" {plural(record.frozen, 'frozen parameter')} left out." if record.frozen else "")
        + (f" {plural(record.tied, 'tied parameter')} counted once." if record.tied else "")
    )
    return build_section("weight-decay", "Weight-decay groups", summary, *parts, records=[record])


def optimizer_section(audit: OptimizerAudit) -> Section:
    facts = (
        ("never updated", _some(audit.missing)),
        ("updated more than once a step", _some(audit.repeated)),
        ("normalisation parameters that decay", _some(audit.decayed_norms)),
        ("biases that decay", _some(audit.decayed_biases)),
        ("slopes, scales, tokens, position embeddings that decay (no fault)", _some(audit.decayed_others)),
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
    if math.isnan(gap):
        return "no output is finite"
    if gap == 0:
        return "the same outputs"
    return f"outputs differ by {percent(gap) if gap >= 1e-3 else number(gap)} of their range"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{count(len(names))}: {shown}{' …' if len(names) > 6 else ''}" if names else "none"


def normalization_section(audit: NormalizationAudit) -> Section:
    parts = (_conventions(audit) if audit.conventions else None, _layers(audit) if audit.layers else None)
    again = (
        f"; with its running statistics measured anew on {count(audit.n_statistics)} samples: "
        f"{accuracy(audit.reestimated)}"
        if audit.reestimated is not None
        else f"; its running statistics could not be measured anew ({audit.not_reestimated})"
        if audit.not_reestimated
        else "; it has no running statistics"
    )
    summary = (
        f"As the model stands, {accuracy(audit.before)} accuracy{again}. Its first layer {audit.stem} is fed a mean of "
        f"{number(audit.stem_mean)} and a standard deviation of {number(audit.stem_std)}."
    )
    return build_section("normalization", "Normalisation and input scale", summary, *parts, records=[audit])


def preparation_section(audit: PreparationAudit) -> Section:
    rows = tabulate(
        "Accuracy under the neighbouring preparations, on the same pictures",
        audit.variants,
        {
            "pictures": lambda each: each.name,
            ">accuracy (95 % interval, n)": accuracy,
            ">became right": lambda each: count(each.gained),
            ">became wrong": lambda each: count(each.lost),
            ">chance of such a gain": lambda each: number(each.p_value),
        },
    )
    summary = (
        f"{describe_preparation(audit)} As prepared, {accuracy(audit.as_prepared)} accuracy. Each other way changes "
        "one aspect; the chance is that of McNemar's exact test, one-sided, with Holm's correction for how many were "
        "tried; a way that can no longer win gets no more pictures."
        + (f" {audit.not_tried[:1].upper()}{audit.not_tried[1:]}." if audit.not_tried else "")
    )
    return build_section(
        "preparation", "Preparation of the pictures", summary, rows if audit.variants else None, records=[audit]
    )


def _conventions(audit: NormalizationAudit) -> Figure:
    items = [
        Item(way.convention, way.accuracy, f"{way.convention}: {accuracy(way)}", way.low, way.high)
        for way in audit.conventions
    ]
    numbers = tabulate(
        "Accuracy by input convention",
        audit.conventions,
        {"pixels passed as": lambda convention: convention.convention, ">accuracy (95 % interval, n)": accuracy},
    )
    build = draw_items(items, "accuracy, with its 95 % interval (%)")
    best = max(
        (way for way in audit.conventions if way.n == audit.before.n), key=lambda convention: convention.accuracy
    )
    finding = f"Accuracy is highest on pixels passed as {best.convention}: {percent(best.accuracy)}"
    note = (
        "The same images in other scales and channel orders; x in [0, 1] should be best. A way that can no longer win "
        "gets no more of them."
    )
    return figure(build, finding=finding, note=note, table=numbers, full=True)


def _layers(audit: NormalizationAudit) -> Table:
    return tabulate(
        "Every layer with running statistics, against the data that reaches it",
        audit.layers,
        {
            "`layer": lambda layer: layer.name,
            "type": lambda layer: layer.type,
            ">channels": lambda layer: count(layer.channels),
            ">distance (nats)": lambda layer: number(layer.distance),
            ">mean shift": lambda layer: number(layer.mean_shift),
            ">|ln variance ratio|": lambda layer: number(layer.log_variance_ratio),
            ">batches tracked": lambda layer: "–" if layer.batches_tracked is None else count(layer.batches_tracked),
            "odd": lambda layer: ", ".join(layer.oddities),
        },
        folded=True,
    )
