"""Do gradients reach every layer, and the input?"""

from __future__ import annotations

import math

from assay.records.finding import Status
from assay.records.gradients import GradientFlow, InputGradients
from assay.verdict.rule import Evidence, Outcome, Rule, grade, name_some, percent

SPAN = (3.0, 6.0)  # powers of ten between the largest and the smallest gradient
DEAD = (0.5, 0.9)
ZERO = (0.01, 0.10)


def _gradients_survive_depth(evidence: Evidence) -> Outcome | None:
    flow = evidence.first(GradientFlow)
    assert flow is not None
    norms = [(layer.activation_gradient, layer.name) for layer in flow.layers if layer.activation_gradient > 0]
    if len(norms) < 2:
        return None
    smallest, largest = min(norms), max(norms)
    span = math.log10(largest[0] / smallest[0])
    rate = "" if flow.decay_per_layer is None else f", ×{flow.decay_per_layer:.2f} a layer towards the input"
    where = f"smallest at {smallest[1]}, largest at {largest[1]}"
    return Outcome(grade(span, warn=SPAN[0], error=SPAN[1]), f"a factor of {10**span:,.1f}{rate}", span, where=where)


def _units_live(evidence: Evidence) -> Outcome | None:
    flow = evidence.first(GradientFlow)
    assert flow is not None
    shares = [(layer.dead, layer.name) for layer in flow.layers if layer.dead is not None]
    if not shares:
        return None
    worst, name = max(shares)
    return Outcome(
        grade(worst, warn=DEAD[0], error=DEAD[1]), f"{percent(worst)} of the units of {name}", worst, where=name
    )


def _gradients_finite(evidence: Evidence) -> Outcome | None:
    flow = evidence.first(GradientFlow)
    assert flow is not None
    broken = [layer.name for layer in flow.layers if layer.non_finite]
    first = flow.first_non_finite or (broken[0] if broken else "")
    status: Status = "error" if first else "pass"
    return Outcome(
        status, f"{len(broken)} of {len(flow.layers)} layers", float(len(broken)), where=first and name_some([first])
    )


def _input_gradients_exist(evidence: Evidence) -> Outcome | None:
    gradients = evidence.first(InputGradients)
    assert gradients is not None
    n = gradients.n_right + gradients.n_wrong
    if n == 0:
        return None
    lost = gradients.zero + gradients.non_finite
    measured = f"{gradients.zero} zero and {gradients.non_finite} non-finite of {n} images"
    return Outcome(grade(lost / n, warn=ZERO[0], error=ZERO[1]), measured, lost / n)


RULES = (
    Rule(
        id="A401",
        category="optimisation",
        claim="Gradients survive the depth",
        threshold="largest over smallest gradient of a layer's output at most 10³ (error beyond 10⁶)",
        needs=(GradientFlow,),
        judge=_gradients_survive_depth,
        why="Layers whose gradient is a millionth of their neighbours' do not learn at any common learning rate.",
        fix="Skip connections, normalisation, or an initialisation that keeps the variance (He et al. 2015).",
        reference="Glorot & Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
    ),
    Rule(
        id="A402",
        category="optimisation",
        claim="Most units are alive",
        threshold="at most 50 % of a layer's units zero for every sample (error beyond 90 %)",
        needs=(GradientFlow,),
        judge=_units_live,
        why="A unit that is zero for every input has no gradient, never recovers, and costs time for nothing.",
        fix="Lower the learning rate, normalise before the activation, or use a leaky one; or prune the units away.",
        reference="Lu et al. 2020, Dying ReLU and initialization, arXiv:1903.06733",
    ),
    Rule(
        id="A403",
        category="optimisation",
        claim="Every gradient is a finite number",
        threshold="0 layers with NaN or infinite gradients or outputs",
        needs=(GradientFlow,),
        judge=_gradients_finite,
        why="One non-finite gradient turns every weight into NaN at the next step.",
        fix="Start at the layer named; look for sqrt, log or division at zero, and for overflow in half precision.",
        reference="Pascanu et al. 2013, On the difficulty of training recurrent neural networks, arXiv:1211.5063",
    ),
    Rule(
        id="A404",
        category="optimisation",
        claim="The loss has a gradient at the input",
        threshold="at most 1 % of the images with a zero or non-finite input gradient (error beyond 10 %)",
        needs=(InputGradients,),
        judge=_input_gradients_exist,
        why="Where the gradient is zero, gradient attacks fail and explanations are blank: it only looks robust.",
        fix="Attack the margin of the logits instead of the cross-entropy; look for rounding, clamping or saturation.",
        reference="Athalye et al. 2018, arXiv:1802.00420",
    ),
)
