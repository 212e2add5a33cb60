"""Evaluation mode, determinism, logits, normalisation: is the model used as it was trained?"""

from __future__ import annotations

import math
from collections.abc import Iterable

from assay.records.accuracy import Proportion
from assay.records.configuration import (
    SIGNIFICANT,
    InputConvention,
    ModeAudit,
    NormalizationAudit,
    PreparationAudit,
    PreparationVariant,
)
from assay.records.training import DecayGroups
from assay.verdict import examples as ex
from assay.verdict.rule import Rule, RuleExamples, RuleResult, gain_bounds, grade, largest, name_some, reads
from assay.wording import percent

REPEAT_GAP = 1e-6  # of the range of the logits: two identical passes
BATCH_GAP = (1e-3, 1e-2)  # of the range of the logits: kernels round differently for other batch sizes
STALE = (0.1, 1.0)  # nats
HARMLESS = 10.0  # nats: one sample of pictures differs by less from the training data
ACCURACY_GAIN = (0.01, 0.05)
AS_IS = "as is"


def _evaluation_mode(audit: ModeAudit) -> RuleResult | None:
    training = audit.modules_in_train_mode
    moved = audit.train_eval_gap
    gap = "" if moved is None or math.isnan(moved) else f"; outputs move by {percent(moved)} of their range"
    measured = f"{len(training)} modules in training mode{gap}" if training else "every module in evaluation mode"
    return RuleResult("warn" if training else "pass", measured, float(len(training)), where=name_some(training))


def _deterministic(audit: ModeAudit) -> RuleResult | None:
    gap = audit.repeat_gap
    if math.isnan(gap):
        return None  # no logit is finite
    return RuleResult(grade(gap, warn=REPEAT_GAP, error=1e-3), f"{gap:.1e} of the range of the logits", gap)


def _batch_independent(audit: ModeAudit) -> RuleResult | None:
    if not audit.repeat_gap <= REPEAT_GAP:
        return None  # a randomised model differs anyway
    status = grade(audit.batch_gap, warn=BATCH_GAP[0], error=BATCH_GAP[1])
    return RuleResult(status, f"{audit.batch_gap:.1e} of the range of the logits", audit.batch_gap)


def _returns_logits(audit: ModeAudit) -> RuleResult | None:
    if math.isnan(audit.repeat_gap):
        return None  # no logit is finite
    kind = audit.outputs_look_like
    return RuleResult("pass" if kind == "logits" else "warn", kind, float(kind != "logits"))


def _norms_named_bn(groups: DecayGroups) -> RuleResult | None:
    total = sum(len(group.names) for group in groups.groups if group.role == "norm")
    if total == 0:
        return None
    missed = groups.missed_by_name
    measured = f"{total - len(missed)} of {total} tensors found"
    return RuleResult("warn" if missed else "pass", measured, float(len(missed)), where=name_some(missed))


def _statistics_match(audit: NormalizationAudit) -> RuleResult | None:
    if not audit.layers or audit.n == 0:
        return None
    worst = largest(audit.layers, by=lambda layer: layer.distance)
    again = "" if audit.reestimated is None else f"; re-estimated: {percent(audit.reestimated.accuracy)}"
    again = f"; not re-estimated: {audit.not_reestimated}" if audit.not_reestimated else again
    measured = f"{worst.distance:.3g} nats, accuracy {percent(audit.before.accuracy)}{again}"
    if audit.reestimated_p is not None and audit.reestimated_p >= SIGNIFICANT:
        measured = f"{measured}, no better beyond noise"
        if worst.distance < HARMLESS:
            return RuleResult("pass", measured, worst.distance)
    return RuleResult(grade(worst.distance, warn=STALE[0], error=STALE[1]), measured, worst.distance, where=worst.name)


def _input_scale(audit: NormalizationAudit) -> RuleResult | None:
    if audit.before.n == 0 or not audit.conventions:
        return None
    tried = [each for each in audit.conventions if each.n == audit.before.n]  # fewer where it was given up
    best = largest(tried or audit.conventions, by=lambda convention: convention.accuracy)
    difference = best.accuracy - audit.before.accuracy
    by_chance = best.low <= audit.before.high if best.p_value is None else best.p_value >= SIGNIFICANT
    if by_chance:
        difference = min(difference, ACCURACY_GAIN[0])
    measured = f"{percent(audit.before.accuracy)} as is, {percent(best.accuracy)} {best.convention}"
    status = grade(difference, warn=ACCURACY_GAIN[0], error=ACCURACY_GAIN[1])
    others = [each for each in audit.conventions if each.convention != AS_IS]
    if status == "pass" and (doubt := _possible_gain(audit.before, others)):
        return RuleResult("cannot tell", measured + doubt, difference)
    return RuleResult(status, measured, difference, where="" if status == "pass" else audit.stem)


def _possible_gain(before: Proportion, others: Iterable[InputConvention | PreparationVariant]) -> str:
    """What to add where one of the others may gain more than 5 points, at the upper end of its interval."""
    possible = largest([_most_gain(before, each) for each in others] or [0.0], by=float)
    if possible <= ACCURACY_GAIN[1]:
        return ""
    return f"; of {before.n:,} images another may still gain {100 * possible:.1f} points, at the end of its interval"


def _most_gain(before: Proportion, other: InputConvention | PreparationVariant) -> float:
    """The upper end of the interval of the gain; that of both accuracies where no counts are known."""
    if other.gained is None or other.lost is None:
        return other.high - before.low
    return gain_bounds(before, lost=other.lost, gained=other.gained)[1]


def _usual_settings(audit: NormalizationAudit) -> RuleResult | None:
    if not audit.layers:
        return None
    odd = [f"{layer.name}: {layer.oddities[0]}" for layer in audit.layers if layer.oddities]
    measured = f"{len(odd)} of {len(audit.layers)} layers"
    return RuleResult("warn" if odd else "pass", measured, float(len(odd)), where=name_some(odd, most=2))


def _prepared_best(audit: PreparationAudit) -> RuleResult | None:
    if audit.n == 0 or not audit.variants:
        return None
    best, now = audit.best, audit.as_prepared.accuracy
    if not all(math.isfinite(value) for each in audit.variants for value in (now, each.accuracy, each.p_value)):
        return None
    limited = f"; {audit.not_tried}" if audit.not_tried else ""
    if best is None and (doubt := _possible_gain(audit.as_prepared, audit.variants)):
        return RuleResult("cannot tell", f"{percent(now)}{doubt}{limited}", 0.0)
    if best is None:
        return RuleResult("pass", f"{percent(now)}; none of {len(audit.variants)} others is better{limited}", 0.0)
    points = 100 * (best.accuracy - now)
    measured = f"{percent(now)}, {points:.1f} points more {best.name}: {percent(best.accuracy)}{limited}"
    return RuleResult("warn", measured, points / 100, where=best.name)


IOFFE = "Ioffe & Szegedy 2015, Batch normalization, arXiv:1502.03167"

RULES = (
    Rule(
        id="A501",
        claim="Handed over in evaluation mode (model.eval())",
        fault="Handed over in training mode",
        threshold="0 modules with dropout or running statistics in training mode",
        **reads(ModeAudit, _evaluation_mode),
        why="In training mode dropout is random and BatchNorm uses the batch: accuracy falls and numbers are noise.",
        fix="Call model.eval() before using it; all numbers here were measured in evaluation mode.",
        command="assay check MODEL --data DATA",
        mend="model.eval()",
        limits="It sees modules whose output depends on the mode. Monte-Carlo dropout, kept in training mode on "
        "purpose, is reported as well.",
        examples=RuleExamples(
            passing=lambda: (ex.modes(),),
            failing=lambda: (ex.modes(training_flag=True, modules_in_train_mode=("bn",)),),
        ),
        reference=IOFFE,
        remedy="evaluation mode",
    ),
    Rule(
        id="A502",
        claim="Deterministic: two forward passes give equal logits",
        fault="Randomised: two forward passes differ",
        threshold="two passes differ by at most 10⁻⁶ of the range of the logits (error beyond 10⁻³)",
        **reads(ModeAudit, _deterministic),
        why="A randomised model has noisy gradients: attacks look weak, and no number can be repeated.",
        fix="Find the random layer; if it is meant, attack the expectation (EOT: average the gradient over passes).",
        command="assay check MODEL --data DATA",
        mend="assay attack MODEL --data DATA --eot-samples 20",
        limits="One batch is compared twice: randomness that acts rarely is missed. Kernels that are not deterministic "
        "on a GPU can warn without any random layer.",
        examples=RuleExamples(passing=lambda: (ex.modes(),), failing=lambda: (ex.modes(repeat_gap=0.1),)),
        reference="Athalye et al. 2018, arXiv:1802.00420, section 4",
    ),
    Rule(
        id="A503",
        claim="Batch-independent: logits of a sample alone equal those in a batch",
        fault="Logits depend on the other images of the batch",
        threshold="alone and in a batch differ by at most 10⁻³ of the range of the logits (error beyond 10⁻²)",
        **reads(ModeAudit, _batch_independent),
        why="Accuracy measured in one batch size does not hold in another; an attacker may choose the batch.",
        fix="Normalise with running statistics in evaluation mode; look for track_running_stats=False.",
        command="assay check MODEL --data DATA",
        mend=("model.eval()\nlayer = torch.nn.BatchNorm2d(channels, track_running_stats=True)"),
        limits="Half precision rounds by more than float32 and can warn. Not judged where A502 fails.",
        examples=RuleExamples(passing=lambda: (ex.modes(),), failing=lambda: (ex.modes(batch_gap=0.1),)),
        reference="Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2",
    ),
    Rule(
        id="A504",
        claim="Returns logits, not probabilities",
        fault="Returns probabilities, not logits",
        threshold="outputs that are neither probabilities nor log-probabilities",
        **reads(ModeAudit, _returns_logits),
        why="A softmax inside the model is applied twice by the cross-entropy: gradients shrink and attacks look weak.",
        fix="Return the values before the softmax, or take its logarithm.",
        command="assay check MODEL --data DATA",
        mend="logits = model(images).log()  # or leave out the last softmax",
        limits="It looks at the values of one batch. Log-probabilities warn although their cross-entropy is right; a "
        "sigmoid or a scaled softmax passes for logits.",
        examples=RuleExamples(
            passing=lambda: (ex.modes(),), failing=lambda: (ex.modes(outputs_look_like="probabilities"),)
        ),
        reference="Carlini & Wagner 2017, Towards evaluating the robustness of neural networks, arXiv:1608.04644",
    ),
    Rule(
        id="A505",
        claim='Weight-decay groups by name would be right: a search for "bn" finds every normalisation layer',
        fault="Weight decay by name would miss normalisation layers",
        threshold="0 normalisation tensors missed",
        **reads(DecayGroups, _norms_named_bn),
        why="Training scripts often exempt parameters from weight decay by name; what the name misses decays unseen.",
        fix="Group by module type: assay.training.split_parameters(model).",
        command="assay groups MODEL",
        mend=(
            "groups = assay.training.split_parameters(model)\n"
            "optimizer = torch.optim.AdamW(groups.optimizer_groups(weight_decay=0.05), lr=1e-3)"
        ),
        limits="It judges names, not a training run: scripts that group by module type lose nothing. How much accuracy "
        "a decayed norm costs depends on the network, and is often little.",
        examples=RuleExamples(passing=lambda: (ex.decay_groups(),), failing=lambda: (ex.decay_groups("norm.weight"),)),
        reference="He et al. 2019, Bag of tricks for image classification, arXiv:1812.01187, section 3.1",
        remedy="parameter groups",
    ),
    Rule(
        id="A511",
        claim="Running statistics of normalisation layers match the data",
        fault="Stale running statistics",
        threshold="at most 0.1 nats between a layer's statistics and the data's (error beyond 1), unless below 10 "
        "and statistics measured anew are no better beyond noise",
        **reads(NormalizationAudit, _statistics_match),
        why="Stale statistics shift and scale every feature; accuracy falls though no weight is wrong.",
        fix="Run the training data through once in training mode with momentum=None, then switch to evaluation.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --apply-fixes",
        limits="Each channel is compared as a normal distribution, on the data at hand: test data from elsewhere than "
        "the training data warn rightly, augmented training images can warn without harm. Where the accuracy does not "
        "rise when the statistics are measured anew, distances are those of one sample of pictures, and pass.",
        examples=RuleExamples(passing=lambda: (ex.normalization(),), failing=lambda: (ex.normalization(distance=5.0),)),
        reference=IOFFE,
        remedy="statistics",
        on_request=True,
    ),
    Rule(
        id="A512",
        claim="Input preprocessing matches training: pixel scale and channel order",
        fault="Fed with another pixel scale or channel order than in training",
        threshold="no other scale or channel order gains 1 % accuracy beyond noise (error beyond 5 %), and none 5 % at "
        "the upper end of its 95 % interval",
        **reads(NormalizationAudit, _input_scale),
        why="Pixels normalised twice, not at all, or in BGR cost accuracy without any error message.",
        fix="Put the normalisation into the model as its first layer and hand over pixels in [0, 1].",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --prepare bgr,scale=255",
        limits="Only usual conventions are tried; size, crop and interpolation are A514's. A model near chance gains "
        "nothing from any of them and passes.",
        examples=RuleExamples(passing=lambda: (ex.normalization(bgr=30),), failing=lambda: (ex.normalization(bgr=95),)),
        reference=IOFFE,
        on_request=True,
    ),
    Rule(
        id="A513",
        claim="Normalisation layers have usual settings (momentum, eps)",
        fault="Unusual settings of normalisation layers",
        threshold="0 layers with an unusual momentum or eps, unused statistics, or no variance in most channels",
        **reads(NormalizationAudit, _usual_settings),
        why="torch's momentum is the weight of the new batch (0.1), elsewhere that of the old (0.9): if copied over, "
        "the statistics are those of the last few batches.",
        fix="momentum=0.1 and eps=1e-5 unless there is a reason; check layers whose variance is near eps.",
        command="assay check MODEL --data DATA",
        mend="torch.nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1)",
        limits="Unusual is not wrong: EfficientNet's eps of 1e-3, or a momentum for small batches, is reported too.",
        examples=RuleExamples(
            passing=lambda: (ex.normalization(),), failing=lambda: (ex.normalization(oddities=("momentum 0.9",)),)
        ),
        reference="torch.nn.BatchNorm2d, documentation of momentum",
        on_request=True,
    ),
    Rule(
        id="A514",
        claim="Prepared as the author meant it: size, crop, interpolation, normalisation, channel order",
        fault="Prepared otherwise than the author meant it",
        threshold="no neighbouring preparation is better beyond noise (p < 0.05 on the same pictures, Holm), and none "
        "by 5 points at the upper end of its 95 % interval",
        **reads(PreparationAudit, _prepared_best),
        why="A model that is fed pictures in another size, interpolation or scale than in training is measured too "
        "low, and nothing fails.",
        fix="Name the preparation: --prepare resize=256:bicubic,crop=224,mean=…,std=…, as the author's code has it.",
        command="assay check MODEL --data DATA",
        mend="assay check MODEL --data DATA --prepare resize=256:bicubic,crop=224",
        limits="One aspect is changed at a time. Sizes are tried only where the pictures can be read again from where "
        "they are stored, and the numbers only where the model normalises with a layer of assay or not at all. A "
        "slightly larger crop may really be better than what the author used.",
        examples=RuleExamples(passing=lambda: (ex.preparation(lost=5),), failing=lambda: (ex.preparation(gained=30),)),
        reference="Touvron et al. 2019, Fixing the train-test resolution discrepancy, arXiv:1906.06423; "
        "McNemar 1947, Psychometrika 12",
        on_request=True,
    ),
)
