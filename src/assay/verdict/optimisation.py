"""Gradients over depth and over time, step sizes and curvature: can the model be trained?"""

from __future__ import annotations

import math

from assay.records.accuracy import SequenceAccuracy
from assay.records.gradients import Curvature, DepthTrace, GradientFlow, InputGradients
from assay.records.recurrence import TimeTrace
from assay.verdict import examples as ex
from assay.verdict.rule import Evidence, Rule, RuleExamples, RuleResult, grade, largest, name_some, reads
from assay.wording import percent

SPAN = (3.0, 6.0)  # powers of ten between the largest and the smallest gradient
DEAD = (0.5, 0.9)
ZERO = (0.01, 0.10)
HORIZON = (1.0, 4.0)  # sequence length over the horizon
GROWTH = (1e2, 1e6)
UPDATE = (0.1, 1.0)
MEMORY = (0.5, 0.95)  # of the loss of a model without memory
USUAL_RATE = 1e-4  # learning rate assumed where none is known


def _depth(flow: GradientFlow) -> RuleResult | None:
    norms = [(layer.activation_gradient, layer.name) for layer in flow.layers if not layer.activation_gradient <= 0]
    if len(norms) < 2 or flow.n == 0:
        return None
    smallest, greatest = largest(norms, by=lambda norm: -norm[0]), largest(norms, by=lambda norm: norm[0])
    span = math.log10(greatest[0] / smallest[0])
    rate = "" if flow.decay_per_layer is None else f", ×{flow.decay_per_layer:.2f} a layer towards the input"
    where = f"smallest at {smallest[1]}, largest at {greatest[1]}"
    return RuleResult(grade(span, warn=SPAN[0], error=SPAN[1]), f"a factor of {10**span:,.1f}{rate}", span, where)


def _dead_units(flow: GradientFlow) -> RuleResult | None:
    shares = [(layer.dead, layer.name) for layer in flow.layers if layer.dead is not None]
    if not shares or flow.n == 0:
        return None
    worst, name = largest(shares, by=lambda share: share[0])
    status = grade(worst, warn=DEAD[0], error=DEAD[1])
    return RuleResult(status, f"{percent(worst)} of the units of {name}", worst, name)


def _finite(flow: GradientFlow) -> RuleResult | None:
    if not flow.layers or flow.n == 0:
        return None
    broken = [layer.name for layer in flow.layers if layer.non_finite]
    first = flow.first_non_finite or (broken[0] if broken else "")
    measured = f"{len(broken)} of {len(flow.layers)} layers"
    return RuleResult("error" if first else "pass", measured, float(len(broken)), where=first)


def _input_gradients(gradients: InputGradients) -> RuleResult | None:
    n = gradients.n_right + gradients.n_wrong
    if n == 0:
        return None
    share = (gradients.zero + gradients.non_finite) / n
    measured = f"{gradients.zero} zero and {gradients.non_finite} non-finite of {n} images"
    return RuleResult(grade(share, warn=ZERO[0], error=ZERO[1]), measured, share)


def _traces(evidence: Evidence) -> list[TimeTrace]:
    return [trace for trace in evidence.each(TimeTrace) if trace.n > 0 and trace.states]


def _vanishing_over_time(evidence: Evidence) -> RuleResult | None:
    traces = [(trace, trace.state(trace.head)) for trace in _traces(evidence)]
    for trace, state in traces:
        steps = len(state.norms)
        if state.decay.law != "exponential" and 2 * state.zero > steps:
            measured = f"exactly zero at {state.zero} of {steps} steps: no path to the loss"
            return RuleResult("error", measured, state.zero / steps, where=f"{trace.label}, {state.name}")
    ratios = [
        (len(state.norms) / state.decay.horizon, trace, state)
        for trace, state in traces
        if state.decay.law == "exponential" and not state.decay.horizon <= 0
    ]
    if not ratios:
        known = [state for _, state in traces if state.decay.law != "undefined"]
        return RuleResult("pass", "no exponential decay", 0.0) if known else None
    ratio, trace, state = largest(ratios, by=lambda entry: entry[0])
    measured = f"×{state.decay.rate:.3f} a step: a horizon of {state.decay.horizon:.1f} of {len(state.norms)} steps"
    status = grade(ratio, warn=HORIZON[0], error=HORIZON[1])
    return RuleResult(status, measured, ratio, where=f"{trace.label}, {state.name}")


def _exploding_over_time(evidence: Evidence) -> RuleResult | None:
    factors = []
    for trace in _traces(evidence):
        state = trace.state(trace.head)
        norms = state.norms if state.reverse else state.norms[::-1]  # from the loss on
        last = next((norm for norm in norms if norm != 0), None)  # what lies after the step that is read has none
        if last is None:
            continue
        growth = math.inf if state.non_finite else largest(norms, by=lambda norm: norm) / last
        factors.append((growth, trace.label, state.name))
    if not factors:
        return None
    growth, label, name = largest(factors, by=lambda factor: factor[0])
    status = grade(growth, warn=GROWTH[0], error=GROWTH[1])
    return RuleResult(status, f"a factor of {growth:.3g} above the last step's", growth, where=f"{label}, {name}")


def _bidirectional(evidence: Evidence) -> RuleResult | None:
    traced = [s for trace in _traces(evidence) for s in trace.states if s.reverse and s.part == "hidden"]
    states = [state for state in traced if len(state.norms) > 2]
    if not states:
        return None
    blind = [s.name for s in states if s.zero >= len(s.norms) - 1]
    measured = f"{len(blind)} of {len(states)} backward layers get a gradient at one step only"
    return RuleResult("warn" if blind else "pass", measured, float(len(blind)), where=name_some(blind))


def _finite_training(trace: DepthTrace) -> RuleResult | None:
    if not trace.steps or not trace.layers:
        return None
    measured = f"{trace.non_finite} numbers over {len(trace.steps)} sampled steps"
    status = grade(trace.non_finite, warn=0, error=0)
    return RuleResult(status, measured, float(trace.non_finite), where=trace.first_non_finite or "")


def _relative_update(trace: DepthTrace) -> RuleResult | None:
    # Parameters that were zero before have an infinite ratio, or none; A414 tells of NaN in training.
    layers = [layer for layer in trace.layers if layer.update and math.isfinite(layer.update[-1])]
    if not layers:
        return None
    worst, name = max((layer.update[-1], layer.name) for layer in layers)
    status = grade(worst, warn=UPDATE[0], error=UPDATE[1])
    return RuleResult(status, f"{worst:.2g} of the weight in one step", worst, where=name)


def _sharpness(curvature: Curvature) -> RuleResult | None:
    if not curvature.eigenvalues or curvature.n == 0:
        return None
    highest, critical = curvature.eigenvalues[0], curvature.critical_learning_rate
    rate = USUAL_RATE if curvature.learning_rate is None else curvature.learning_rate
    measured = f"λmax = {highest:.4g}, so a learning rate below {critical:.3g}"
    if curvature.learning_rate is not None:
        measured += f"; it is {rate:g}"
    return RuleResult("pass" if math.isfinite(highest) and critical > rate else "warn", measured, highest)


def _uses_memory(evidence: Evidence) -> RuleResult | None:
    tested = [record for record in evidence.each(SequenceAccuracy) if record.n > 0]
    if not tested:
        return None
    broken = [record for record in tested if not math.isfinite(record.loss)]
    if broken:
        return RuleResult("error", "no finite loss", math.inf, where=f"{broken[0].label}, {broken[0].task}")
    ratios = [(record.loss / record.baseline if record.baseline else math.inf, record) for record in tested]
    ratio, worst = largest(ratios, by=lambda entry: entry[0])
    measured = f"loss {worst.loss:.4g} against {worst.baseline:.4g}"
    status = grade(ratio, warn=MEMORY[0], error=MEMORY[1])
    return RuleResult(status, measured, ratio, where=f"{worst.label}, {worst.task}")


PASCANU = "Pascanu, Mikolov & Bengio 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063"

RULES = (
    Rule(
        id="A401",
        claim="No vanishing or exploding gradients over depth",
        fault="Gradients vanish or explode over depth",
        threshold="largest over smallest gradient of a layer's output at most 10³ (error beyond 10⁶)",
        **reads(GradientFlow, _depth),
        why="Layers whose gradient is a millionth of their neighbours' do not learn at any common learning rate.",
        fix="Skip connections, normalisation, or an initialisation that keeps the variance (He et al. 2015).",
        command="assay trace MODEL --data DATA",
        mend=(
            "for layer in model.modules():\n"
            "    if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):\n"
            "        torch.nn.init.kaiming_normal_(layer.weight)"
        ),
        limits="One batch, in evaluation mode: a trained network has small gradients where it is right. Optimizers "
        "such as Adam rescale each parameter and train across a wider span.",
        examples=RuleExamples(
            passing=lambda: (ex.flow(ex.layer("first", 1.0), ex.layer("last", 2.0)),),
            failing=lambda: (ex.flow(ex.layer("first", 1e-8), ex.layer("last", 2.0)),),
        ),
        reference="Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
    ),
    Rule(
        id="A402",
        claim="Few dead ReLU units",
        fault="Dead ReLU units",
        threshold="at most 50 % of a layer's units zero for every sample (error beyond 90 %)",
        **reads(GradientFlow, _dead_units),
        why="A unit that is zero for every input has no gradient, never recovers, and costs time for nothing.",
        fix="Lower the learning rate, normalise before the activation, or use a leaky one; or prune the units away.",
        command="assay trace MODEL --data DATA",
        mend=(
            'optimizer.param_groups[0]["lr"] /= 10  # and train again\n'
            "activation = torch.nn.LeakyReLU(0.01)  # in place of torch.nn.ReLU()"
        ),
        limits="Dead on one batch: a unit that reacts to a rare class counts as dead. Only layers followed by a ReLU "
        "are looked at.",
        examples=RuleExamples(
            passing=lambda: (ex.flow(ex.layer("fc", dead=0.1)),), failing=lambda: (ex.flow(ex.layer("fc", dead=0.95)),)
        ),
        reference="Lu et al. 2020, Dying ReLU and initialization, arXiv:1903.06733",
    ),
    Rule(
        id="A403",
        claim="Finite outputs and gradients in every layer",
        fault="NaN or infinity in the gradients",
        threshold="0 layers with NaN or infinite gradients or outputs",
        **reads(GradientFlow, _finite),
        why="One non-finite gradient turns every weight into NaN at the next step.",
        fix="Start at the layer named; look for sqrt, log or division at zero, and for overflow in half precision.",
        command="assay trace MODEL --data DATA",
        mend=("with torch.autograd.detect_anomaly():\n    loss.backward()"),
        limits="One batch in float32: overflow in half precision, or on another batch, is not seen.",
        examples=RuleExamples(
            passing=lambda: (ex.flow(ex.layer("fc")),), failing=lambda: (ex.flow(ex.layer("fc", non_finite=3)),)
        ),
        reference=PASCANU,
    ),
    Rule(
        id="A404",
        claim="Non-zero input gradients (no gradient masking)",
        fault="Zero input gradients: gradients are masked",
        threshold="at most 1 % of the images with a zero or non-finite input gradient (error beyond 10 %)",
        **reads(InputGradients, _input_gradients),
        why="Where the gradient is zero, gradient attacks fail and saliency maps are blank: it only looks robust.",
        fix="Attack the margin of the logits instead of the cross-entropy; look for rounding, clamping or saturation.",
        command="assay attack MODEL --data DATA --sanity",
        mend="assay attack MODEL --data DATA --loss margin",
        limits="Exactly zero only: gradients that are tiny, noisy or misleading mask as well, and pass here (A204, "
        "A211 to A225 look for them). A very confident model underflows without masking anything.",
        examples=RuleExamples(passing=lambda: (ex.input_gradients(),), failing=lambda: (ex.input_gradients(zero=50),)),
        reference="Athalye et al. 2018, arXiv:1802.00420",
    ),
    Rule(
        id="A411",
        claim="No vanishing gradients over time (the horizon covers the sequence)",
        fault="Gradients vanish over time",
        threshold="a horizon of at least the sequence's length (error below a quarter of it)",
        needs=(TimeTrace,),
        judge=_vanishing_over_time,
        why="The horizon is the number of steps over which the gradient falls by e: what lies further back is not "
        "learned.",
        fix="An LSTM or GRU with forget bias 1 or more, an orthogonal recurrent matrix, or attention.",
        command="assay trace MODEL --data DATA",
        mend="assay check MODEL --data DATA --apply-fixes",
        limits="An exponential fitted to one batch of the last layer. A task that needs only the last steps has a "
        "short horizon and loses nothing.",
        examples=RuleExamples(passing=lambda: (ex.time_trace(0.99),), failing=lambda: (ex.time_trace(0.5),)),
        reference="Bengio, Simard & Frasconi 1994, Learning long-term dependencies with gradient descent is difficult",
        remedy="forget bias",
        on_request=True,
    ),
    Rule(
        id="A412",
        claim="No exploding gradients over time",
        fault="Gradients explode over time",
        threshold="no step's gradient above 100 times the last step's (error beyond 10⁶)",
        needs=(TimeTrace,),
        judge=_exploding_over_time,
        why="One long sequence then throws the weights far away, and the loss jumps or becomes NaN.",
        fix="Clip the gradient by its norm; start from an orthogonal recurrent matrix; decay its weights.",
        command="assay trace MODEL --data DATA",
        mend="torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)",
        limits="At the length that was traced: growth that is harmless over 50 steps is not over 500. Training that "
        "clips the gradient can live with it.",
        examples=RuleExamples(passing=lambda: (ex.time_trace(0.99),), failing=lambda: (ex.time_trace(1.5),)),
        reference=PASCANU,
        remedy="clipping",
        on_request=True,
    ),
    Rule(
        id="A413",
        claim="Bidirectional layers are read where both directions have seen the sequence",
        fault="A backward layer is read after one step",
        threshold="0 backward layers with a gradient at one step only",
        needs=(TimeTrace,),
        judge=_bidirectional,
        why="output[:, -1] of a bidirectional layer holds the backward state after one token of the sequence.",
        fix="Read the final state h_n of both directions, or output[:, 0] for the backward half.",
        command="assay trace MODEL --data DATA",
        mend=("_, (h, _) = lstm(x)  # of a GRU or an RNN: _, h = …\noutput = torch.cat([h[-2], h[-1]], dim=1)"),
        limits="It sees gradients, not code: a backward layer that is read at one step on purpose is reported too.",
        examples=RuleExamples(passing=lambda: (ex.time_trace(),), failing=lambda: (ex.time_trace(reverse_zero=49),)),
        reference="torch.nn.LSTM, documentation of h_n and output",
        on_request=True,
    ),
    Rule(
        id="A414",
        claim="Finite activations and gradients during training",
        fault="NaN or infinity in training",
        threshold="0 NaN or infinite norms at the sampled steps",
        **reads(DepthTrace, _finite_training),
        why="One NaN reaches every weight within a step.",
        fix="Look at the named layer first: lower learning rate, clipping, a larger eps, or float32 in place of half.",
        command="assay trace MODEL --data DATA",
        mend=('torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)\noptimizer.param_groups[0]["lr"] /= 10'),
        limits="Only the sampled steps are seen. A gradient scaler skips overflowing steps by design; they count here.",
        examples=RuleExamples(passing=lambda: (ex.depth_trace(),), failing=lambda: (ex.depth_trace(non_finite=2),)),
        reference=PASCANU,
        on_request=True,
    ),
    Rule(
        id="A415",
        claim="Small relative updates: ‖ΔW‖/‖W‖ of every layer",
        fault="Updates as large as the weights",
        threshold="‖ΔW‖/‖W‖ of the last sampled step at most 0.1 (error beyond 1)",
        **reads(DepthTrace, _relative_update),
        why="Steps of the size of the weights themselves are a random walk; about 10⁻³ is usual.",
        fix="Lower the learning rate, or warm it up.",
        command="assay trace MODEL --data DATA",
        mend='optimizer.param_groups[0]["lr"] /= 10',
        limits="Parameters that start at zero (biases, the last scale of a residual block) have a large ratio at "
        "first, without harm. Only the last sampled step is judged.",
        examples=RuleExamples(passing=lambda: (ex.depth_trace(),), failing=lambda: (ex.depth_trace(update=2.0),)),
        reference="You et al. 2017, Large batch training of convolutional networks, arXiv:1708.03888",
        on_request=True,
    ),
    Rule(
        id="A416",
        claim="Learning rate below the stability limit 2/λmax (sharpness)",
        fault="Learning rate beyond the stability limit (sharpness)",
        threshold="a critical learning rate 2/λmax above the one in use (10⁻⁴ where it is not known)",
        **reads(Curvature, _sharpness),
        why="Plain gradient descent diverges along an eigenvector whose eigenvalue exceeds 2/learning rate.",
        fix="Stay below the critical rate, warm up, or normalise the layers.",
        command="assay trace MODEL --data DATA --curvature",
        mend='optimizer.param_groups[0]["lr"] = 1 / largest_eigenvalue',
        limits="The limit is that of plain gradient descent on a local quadratic. Momentum and Adam have others, and "
        "networks often train at the edge of it.",
        examples=RuleExamples(
            passing=lambda: (ex.curvature(100.0, learning_rate=0.01),),
            failing=lambda: (ex.curvature(100.0, learning_rate=0.03),),
        ),
        reference="Cohen et al. 2021, Gradient descent typically occurs at the edge of stability, arXiv:2103.00065",
        on_request=True,
    ),
    Rule(
        id="A417",
        claim="Uses its memory (loss below that of the best model without memory)",
        fault="Memory unused",
        threshold="at most half of the loss that needs no memory (error above 95 % of it)",
        needs=(SequenceAccuracy,),
        judge=_uses_memory,
        why="The best prediction without memory has that loss: a model no better has learned nothing from the past.",
        fix="Where the horizon is short, another cell or initialisation; where it is long, more training steps.",
        command="assay trace MODEL --data DATA",
        mend="assay train --recipe adding-lstm",
        limits="Only for the synthetic tasks whose baseline is known. After few training steps a failure tells of the "
        "budget as much as of the model.",
        examples=RuleExamples(
            passing=lambda: (ex.sequence_accuracy(0.05),), failing=lambda: (ex.sequence_accuracy(0.166),)
        ),
        reference="Hochreiter & Schmidhuber 1997, Long short-term memory",
        on_request=True,
    ),
)
