"""Is the model used as its makers meant it to be?"""

from __future__ import annotations

from assay.records.configuration import ModeAudit
from assay.records.training import DecayGroups
from assay.verdict.rule import Evidence, Outcome, Rule, grade, name_some, percent

SAME = 1e-6  # of the range of the logits: two identical passes
ROUNDING = (1e-3, 1e-2)  # of the range of the logits: other batch sizes take other paths through the kernels


def _handed_over_in_evaluation_mode(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(ModeAudit)
    assert audit is not None
    training = audit.modules_in_train_mode
    gap = "" if audit.train_eval_gap is None else f"; outputs move by {percent(audit.train_eval_gap)} of their range"
    measured = f"{len(training)} modules in training mode{gap}" if training else "every module in evaluation mode"
    return Outcome("warn" if training else "pass", measured, float(len(training)), where=name_some(training))


def _repeatable(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(ModeAudit)
    assert audit is not None
    gap = audit.repeat_gap
    return Outcome(grade(gap, warn=SAME, error=1e-3), f"{gap:.1e} of the range of the logits", gap)


def _independent_of_company(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(ModeAudit)
    assert audit is not None
    if audit.repeat_gap > SAME:
        return None  # a randomised model differs anyway
    gap = audit.batch_gap
    return Outcome(grade(gap, warn=ROUNDING[0], error=ROUNDING[1]), f"{gap:.1e} of the range of the logits", gap)


def _outputs_logits(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(ModeAudit)
    assert audit is not None
    kind = audit.outputs_look_like
    return Outcome("pass" if kind == "logits" else "warn", kind, float(kind != "logits"))


def _norms_found_by_name(evidence: Evidence) -> Outcome | None:
    groups = evidence.first(DecayGroups)
    assert groups is not None
    total = sum(len(group.names) for group in groups.groups if group.role == "norm")
    if total == 0:
        return None
    missed = groups.missed_by_name
    measured = f"{total - len(missed)} of {total} tensors found"
    return Outcome("warn" if missed else "pass", measured, float(len(missed)), where=name_some(missed))


RULES = (
    Rule(
        id="A501",
        category="configuration",
        claim="It was handed over in evaluation mode",
        threshold="0 modules with dropout or running statistics in training mode",
        needs=(ModeAudit,),
        judge=_handed_over_in_evaluation_mode,
        why="In training mode dropout is random and BatchNorm uses the batch: accuracy falls and numbers are noise.",
        fix="Call model.eval() before using it. (All numbers here were measured in evaluation mode.)",
        reference="Ioffe & Szegedy 2015, Batch normalization, arXiv:1502.03167",
        remedy="evaluation mode",
    ),
    Rule(
        id="A502",
        category="configuration",
        claim="The same image gets the same answer twice",
        threshold="two passes differ by at most 10⁻⁶ of the range of the logits (error beyond 10⁻³)",
        needs=(ModeAudit,),
        judge=_repeatable,
        why="A randomised model blurs gradients: attacks look weak, and no number can be repeated.",
        fix="Find the random layer; if it is meant, attack the mean over many passes.",
        reference="Athalye et al. 2018, arXiv:1802.00420, section 4",
    ),
    Rule(
        id="A503",
        category="configuration",
        claim="An image's answer does not depend on its batch",
        threshold="alone and in company differ by at most 10⁻³ of the range of the logits (error beyond 10⁻²)",
        needs=(ModeAudit,),
        judge=_independent_of_company,
        why="Accuracy measured in one batch size does not hold in another; an attacker may choose the company.",
        fix="Normalise with running statistics in evaluation mode; look for track_running_stats=False.",
        reference="Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 2",
    ),
    Rule(
        id="A504",
        category="configuration",
        claim="It returns logits",
        threshold="outputs that are neither probabilities nor log-probabilities",
        needs=(ModeAudit,),
        judge=_outputs_logits,
        why="A softmax inside the model is applied twice by the cross-entropy: gradients shrink and attacks look weak.",
        fix="Return the values before the softmax, or take its logarithm.",
        reference="Carlini & Wagner 2017, Towards evaluating the robustness of neural networks, arXiv:1608.04644",
    ),
    Rule(
        id="A505",
        category="configuration",
        claim='A search for "bn" in parameter names would find every normalisation layer',
        threshold="0 normalisation tensors missed",
        needs=(DecayGroups,),
        judge=_norms_found_by_name,
        why="Training scripts often exempt parameters from weight decay by name; what the name misses decays unseen.",
        fix="Group by module type: assay.training.param_groups.split_parameters(model).",
        reference="He et al. 2019, Bag of tricks for image classification, arXiv:1812.01187, section 3.1",
        remedy="parameter groups",
    ),
)
