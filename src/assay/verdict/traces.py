"""Do gradients reach back in time, and do the model's own statistics fit the data?"""

from __future__ import annotations

import math

from assay.records.accuracy import SequenceAccuracy
from assay.records.configuration import NormalizationAudit
from assay.records.gradients import Curvature, DepthTrace
from assay.records.recurrence import TimeTrace
from assay.verdict.rule import Evidence, Outcome, Rule, grade, name_some, percent

REACH = (1.0, 4.0)  # sequence length over the horizon
GROWTH = (1e2, 1e6)
STALE = (0.1, 1.0)  # nats
GAIN = (0.01, 0.05)  # accuracy
UPDATE = 0.1
MEMORY = (0.5, 0.95)  # of the loss of a model without memory


def _reaches_back(evidence: Evidence) -> Outcome | None:
    judged = [(trace, trace.state(trace.head)) for trace in evidence.each(TimeTrace)]
    for trace, state in judged:
        steps = len(state.norms)
        if state.decay.law != "exponential" and 2 * state.zero > steps:
            measured = f"exactly zero at {state.zero} of {steps} steps: cut off from the loss"
            return Outcome("error", measured, state.zero / steps, where=f"{trace.label}, {state.name}")
    worst = max(
        (
            (len(s.norms) / s.decay.horizon, t, s)
            for t, s in judged
            if s.decay.law == "exponential" and s.decay.horizon > 0
        ),
        key=lambda found: found[0],
        default=None,
    )
    if worst is None:
        return Outcome("pass", "no exponential decay", 0.0) if judged else None
    ratio, trace, state = worst
    measured = f"×{state.decay.rate:.3f} a step: it forgets after {state.decay.horizon:.1f} of {len(state.norms)} steps"
    return Outcome(grade(ratio, warn=REACH[0], error=REACH[1]), measured, ratio, where=f"{trace.label}, {state.name}")


def _stays_bounded(evidence: Evidence) -> Outcome | None:
    found = []
    for trace in evidence.each(TimeTrace):
        state = trace.state(trace.head)
        last = state.norms[0] if state.reverse else state.norms[-1]
        peak = max((n for n in state.norms if math.isfinite(n)), default=0.0)
        found.append((math.inf if state.non_finite else peak / last if last > 0 else 0.0, trace.label, state.name))
    if not found:
        return None
    growth, label, name = max(found)
    outcome = grade(growth, warn=GROWTH[0], error=GROWTH[1])
    return Outcome(outcome, f"a factor of {growth:.3g} above the last step's", growth, where=f"{label}, {name}")


def _reads_both_ways(evidence: Evidence) -> Outcome | None:
    reverse = [(t, s) for t in evidence.each(TimeTrace) for s in t.states if s.reverse and s.part == "hidden"]
    if not reverse:
        return None
    blind = [s.name for _, s in reverse if s.zero >= len(s.norms) - 1 and len(s.norms) > 2]
    measured = f"{len(blind)} of {len(reverse)} backward layers get a gradient at one step only"
    return Outcome("warn" if blind else "pass", measured, float(len(blind)), where=name_some(blind))


def _trains_finitely(evidence: Evidence) -> Outcome | None:
    trace = evidence.first(DepthTrace)
    assert trace is not None
    measured = f"{trace.non_finite} numbers over {len(trace.steps)} sampled steps"
    return Outcome(
        "error" if trace.non_finite else "pass", measured, float(trace.non_finite), where=trace.first_non_finite or ""
    )


def _updates_are_small(evidence: Evidence) -> Outcome | None:
    trace = evidence.first(DepthTrace)
    assert trace is not None
    last = [
        (layer.update[-1], layer.name) for layer in trace.layers if layer.update and math.isfinite(layer.update[-1])
    ]
    if not last:
        return None
    worst, name = max(last)
    return Outcome(grade(worst, warn=UPDATE, error=1.0), f"{worst:.2g} of the weight in one step", worst, where=name)


def _loss_is_not_too_sharp(evidence: Evidence) -> Outcome | None:
    curvature = evidence.first(Curvature)
    assert curvature is not None
    largest, critical = curvature.eigenvalues[0], curvature.critical_learning_rate
    rate = 1e-4 if curvature.learning_rate is None else curvature.learning_rate
    measured = f"λmax = {largest:.4g}, so a learning rate below {critical:.3g}"
    if curvature.learning_rate is not None:
        measured += f"; it is {rate:g}"
    return Outcome("pass" if math.isfinite(largest) and critical > rate else "warn", measured, largest)


def _uses_its_memory(evidence: Evidence) -> Outcome | None:
    judged = [(found.loss / found.baseline if found.baseline else math.inf, found) for found in _finite(evidence)]
    if not judged:
        return Outcome("error", "no finite loss", math.inf)
    ratio, worst = max(judged, key=lambda pair: pair[0])
    measured = f"loss {worst.loss:.4g} against {worst.baseline:.4g}"
    return Outcome(grade(ratio, warn=MEMORY[0], error=MEMORY[1]), measured, ratio, where=f"{worst.label}, {worst.task}")


def _finite(evidence: Evidence) -> list[SequenceAccuracy]:
    return [found for found in evidence.each(SequenceAccuracy) if math.isfinite(found.loss)]


def _statistics_fit(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(NormalizationAudit)
    assert audit is not None
    if not audit.layers:
        return None
    worst = max(audit.layers, key=lambda layer: layer.distance)
    gain = "" if audit.reestimated is None else f"; measured anew: {percent(audit.reestimated.accuracy)}"
    measured = f"{worst.distance:.3g} nats, accuracy {percent(audit.before.accuracy)}{gain}"
    return Outcome(grade(worst.distance, warn=STALE[0], error=STALE[1]), measured, worst.distance, where=worst.name)


def _scale_is_right(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(NormalizationAudit)
    assert audit is not None
    best = max(audit.conventions, key=lambda way: way.accuracy)
    gain = best.accuracy - audit.before.accuracy
    if best.low <= audit.before.high:
        gain = min(gain, GAIN[0])
    measured = f"{percent(audit.before.accuracy)} as is, {percent(best.accuracy)} {best.convention}"
    return Outcome(grade(gain, warn=GAIN[0], error=GAIN[1]), measured, gain, where=audit.stem if gain > GAIN[0] else "")


def _settings_are_usual(evidence: Evidence) -> Outcome | None:
    audit = evidence.first(NormalizationAudit)
    assert audit is not None
    if not audit.layers:
        return None
    odd = [f"{layer.name}: {layer.oddities[0]}" for layer in audit.layers if layer.oddities]
    measured = f"{len(odd)} of {len(audit.layers)} layers"
    return Outcome("warn" if odd else "pass", measured, float(len(odd)), where=name_some(odd, most=2))


PASCANU = "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063"
IOFFE = "Ioffe & Szegedy 2015, Batch normalization, arXiv:1502.03167"

RULES = (
    Rule(
        id="A411",
        category="optimisation",
        claim="Gradients reach back over the whole sequence",
        threshold="a horizon of at least the sequence's length (error below a quarter of it)",
        needs=(TimeTrace,),
        judge=_reaches_back,
        why="What lies further back than the horizon has e times less say with every horizon more: it is not learned.",
        fix="An LSTM or GRU with forget bias 1 or more, an orthogonal recurrent matrix, or attention.",
        reference="Bengio, Simard & Frasconi 1994, Learning long-term dependencies with gradient descent is difficult",
        remedy="forget bias",
    ),
    Rule(
        id="A412",
        category="optimisation",
        claim="Gradients do not explode over time",
        threshold="no step's gradient above 100 times the last step's (error beyond 10⁶)",
        needs=(TimeTrace,),
        judge=_stays_bounded,
        why="One long sequence then throws the weights far away, and the loss jumps or becomes NaN.",
        fix="Clip the gradient by its norm; start from an orthogonal recurrent matrix; decay its weights.",
        reference=PASCANU,
        remedy="clipping",
    ),
    Rule(
        id="A413",
        category="optimisation",
        claim="The backward direction is read where it has seen the sequence",
        threshold="0 backward layers with a gradient at one step only",
        needs=(TimeTrace,),
        judge=_reads_both_ways,
        why="output[:, -1] of a bidirectional layer holds the backward state after one token: half of it is blind.",
        fix="Read the final state h_n of both directions, or output[:, 0] for the backward half.",
        reference="torch.nn.LSTM, documentation of h_n and output",
    ),
    Rule(
        id="A414",
        category="optimisation",
        claim="Numbers stay finite while it trains",
        threshold="0 NaN or infinite norms at the sampled steps",
        needs=(DepthTrace,),
        judge=_trains_finitely,
        why="One NaN reaches every weight within a step.",
        fix="Look at the named layer first: lower learning rate, clipping, a larger eps, or float32 in place of half.",
        reference=PASCANU,
    ),
    Rule(
        id="A415",
        category="optimisation",
        claim="A step changes each layer by little",
        threshold="‖ΔW‖/‖W‖ of the last sampled step at most 0.1 (error beyond 1)",
        needs=(DepthTrace,),
        judge=_updates_are_small,
        why="Steps of the size of the weights themselves are a random walk; about 10⁻³ is usual.",
        fix="Lower the learning rate, or warm it up.",
        reference="You et al. 2017, Large batch training of convolutional networks, arXiv:1708.03888",
    ),
    Rule(
        id="A416",
        category="optimisation",
        claim="The loss is flat enough for the learning rate",
        threshold="a critical learning rate 2/λmax above the one in use (10⁻⁴ where none was told)",
        needs=(Curvature,),
        judge=_loss_is_not_too_sharp,
        why="Plain gradient descent diverges along an eigenvector whose eigenvalue exceeds 2/learning rate.",
        fix="Stay below the critical rate, warm up, or normalise the layers.",
        reference="Cohen et al. 2021, Gradient descent typically occurs at the edge of stability, arXiv:2103.00065",
    ),
    Rule(
        id="A417",
        category="optimisation",
        claim="The task is done from memory",
        threshold="at most half of the loss that needs no memory (error above 95 % of it)",
        needs=(SequenceAccuracy,),
        judge=_uses_its_memory,
        why="The best answer without memory has that loss: a model no better has learned nothing from the past.",
        fix="Where the horizon is short, another cell or start; where it is long, more steps.",
        reference="Hochreiter & Schmidhuber 1997, Long short-term memory",
    ),
    Rule(
        id="A511",
        category="configuration",
        claim="Running statistics fit the data",
        threshold="at most 0.1 nats between a layer's statistics and the data's (error beyond 1)",
        needs=(NormalizationAudit,),
        judge=_statistics_fit,
        why="Stale statistics shift and scale every feature; accuracy falls though no weight is wrong.",
        fix="Run the training data through once in training mode with momentum=None, then switch to evaluation.",
        reference=IOFFE,
        remedy="statistics",
    ),
    Rule(
        id="A512",
        category="configuration",
        claim="Pixels arrive in the scale the model was trained on",
        threshold="no other scale or channel order gains 1 % accuracy (error beyond 5 %)",
        needs=(NormalizationAudit,),
        judge=_scale_is_right,
        why="Pixels normalised twice, not at all, or in BGR cost accuracy without any error message.",
        fix="Put the normalisation into the model as its first layer and hand over pixels in [0, 1].",
        reference=IOFFE,
    ),
    Rule(
        id="A513",
        category="configuration",
        claim="Normalisation layers have usual settings",
        threshold="0 layers with an unusual momentum or eps, unused statistics or vanishing variance",
        needs=(NormalizationAudit,),
        judge=_settings_are_usual,
        why="torch's momentum weighs the new batch (0.1), elsewhere it weighs the old (0.9): copied over, it forgets.",
        fix="momentum=0.1 and eps=1e-5 unless there is a reason; check layers whose variance is near eps.",
        reference="torch.nn.BatchNorm2d, documentation of momentum",
    ),
)
