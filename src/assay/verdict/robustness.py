"""Does it hold when somebody pushes?"""

from __future__ import annotations

from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.finding import Status
from assay.verdict.rule import Evidence, Outcome, Rule, grade, percent
from assay.wording import ball, distance, epsilon, norm

KEPT = (0.75, 0.50)  # share of the clean accuracy that should be left: warn below the first, error below the second
VISIBLE = 2 / 255
NOISE = 0.02


def _attack(evidence: Evidence, name: str) -> RobustAccuracy | None:
    return next((record for record in evidence.each(RobustAccuracy) if record.attack == name), None)


def _keeps(evidence: Evidence, name: str) -> Outcome | None:
    robust = _attack(evidence, name)
    if robust is None or robust.clean_correct == 0:
        return None
    clean = robust.clean_correct / robust.n
    # The upper end of the interval: a small sample is given the benefit of the doubt.
    status = grade(-robust.high / clean, warn=-KEPT[0], error=-KEPT[1])
    interval = f"{percent(robust.low)} to {percent(robust.high)}, n = {robust.n:,}"
    measured = f"{percent(clean)} falls to {percent(robust.accuracy)} ({interval})"
    return Outcome(status, measured, robust.accuracy, where=f"{robust.attack}, {ball(robust)}")


def _one_step(evidence: Evidence) -> Outcome | None:
    return _keeps(evidence, "fgsm")


def _many_steps(evidence: Evidence) -> Outcome | None:
    return _keeps(evidence, "pgd")


def _invisible_change(evidence: Evidence) -> Outcome | None:
    curve = next((curve for curve in evidence.each(EpsilonCurve) if curve.norm == "linf"), None)
    if curve is None or curve.points[0].correct == 0:  # two grey levels say nothing of a radius in another norm
        return None
    if curve.median_epsilon is None:
        largest = curve.points[-1].epsilon
        return Outcome("pass", f"more than half still held at {norm('linf')} {epsilon(largest, 'linf')}", largest)
    size = f"{norm('linf')} {distance(curve.median_epsilon, 'linf')}"
    status = grade(-curve.median_epsilon, warn=-VISIBLE, error=-VISIBLE / 2)
    return Outcome(status, f"half of the images break at {size}", curve.median_epsilon)


def _iterating_helps(evidence: Evidence) -> Outcome | None:
    one, many = _attack(evidence, "fgsm"), _attack(evidence, "pgd")
    if one is None or many is None or one.epsilon != many.epsilon or one.norm != many.norm:
        return None
    excess = many.accuracy - one.accuracy
    measured = f"one step leaves {percent(one.accuracy)}, {many.steps} steps leave {percent(many.accuracy)}"
    return Outcome(grade(excess, warn=0.0, error=NOISE), measured, excess)


def _steps_climb(evidence: Evidence) -> Outcome | None:
    signed = _attack(evidence, "signed-steps")
    if signed is None or len(signed.loss_per_step) < 2:
        return None
    losses = signed.loss_per_step
    falls = [k for k in range(1, len(losses)) if not losses[k] > losses[k - 1]]
    measured = "mean loss " + " → ".join(f"{loss:.2f}" for loss in losses)
    where = "" if not falls else "step " + ", ".join(str(k) for k in falls)
    # Later steps may overshoot a network that is already wrong everywhere; the first must climb.
    status: Status = "error" if 1 in falls else "warn" if falls else "pass"
    return Outcome(status, measured, losses[-1] - losses[0], where=where)


def _successes_hold(evidence: Evidence) -> Outcome | None:
    attacks = [record for record in evidence.each(RobustAccuracy) if record.constrained]
    if not attacks:
        return None
    outside = sum(record.outside_ball for record in attacks)
    unconfirmed = sum(record.unconfirmed for record in attacks)
    where = ", ".join(record.attack for record in attacks if record.outside_ball or record.unconfirmed)
    measured = f"{outside} outside the ball, {unconfirmed} not confirmed by the untouched model"
    return Outcome("warn" if outside + unconfirmed else "pass", measured, float(outside + unconfirmed), where=where)


_ADVERSARIAL_TRAINING = (
    "Train against the attack (adversarial training, the `robust` recipe), or state that the model must not face "
    "anyone who can change its input."
)

RULES = (
    Rule(
        id="A201",
        category="robustness",
        claim="It survives one gradient step",
        threshold="at least 75 % of its clean accuracy left (error below 50 %)",
        needs=(RobustAccuracy,),
        judge=_one_step,
        why="One step that no person would notice is the cheapest attack there is.",
        fix=_ADVERSARIAL_TRAINING,
        reference="Goodfellow et al. 2015, Explaining and harnessing adversarial examples, arXiv:1412.6572",
    ),
    Rule(
        id="A202",
        category="robustness",
        claim="It survives a patient attacker",
        threshold="at least 75 % of its clean accuracy left (error below 50 %)",
        needs=(RobustAccuracy,),
        judge=_many_steps,
        why="An attacker is not limited to one step; only what is left after many steps is worth calling robust.",
        fix=_ADVERSARIAL_TRAINING,
        reference="Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083",
    ),
    Rule(
        id="A203",
        category="robustness",
        claim="No invisible change breaks half of the images",
        threshold="median breaking epsilon at least 2/255 (error below 1/255)",
        needs=(EpsilonCurve,),
        judge=_invisible_change,
        why="Two grey levels of 255 are less than a JPEG file or another camera changes.",
        fix=_ADVERSARIAL_TRAINING,
        reference="Carlini et al. 2019, On evaluating adversarial robustness, arXiv:1902.06705, section 4",
    ),
    Rule(
        id="A204",
        category="robustness",
        claim="More steps break more images",
        threshold="many steps leave no more than one step does (error: 2 points more)",
        needs=(RobustAccuracy,),
        judge=_iterating_helps,
        why="When a stronger attack does worse, gradients are masked and every robust accuracy flatters the model.",
        fix="Look for quantised, random or saturated layers; trust only attacks that do without gradients until then.",
        reference="Athalye et al. 2018, Obfuscated gradients give a false sense of security, arXiv:1802.00420",
        scored=False,
    ),
    Rule(
        id="A205",
        category="robustness",
        claim="Each signed gradient step raises the loss",
        threshold="mean loss rises at every one of the steps (error: not even at the first)",
        needs=(RobustAccuracy,),
        judge=_steps_climb,
        why="The loss climbs when gradients point uphill; where not, attacks and adversarial training are blind.",
        fix="If the first step fails, look for zero or wrong gradients; if only later ones do, the steps overshoot.",
        reference="Goodfellow et al. 2015, arXiv:1412.6572",
        scored=False,
    ),
    Rule(
        id="A206",
        category="robustness",
        claim="Every success was confirmed",
        threshold="0 adversarial images outside the ball, 0 that the untouched model still gets right",
        needs=(RobustAccuracy,),
        judge=_successes_hold,
        why="An attack that cheats, or a model that changes its answer, makes robust accuracy meaningless.",
        fix="Rejected candidates were not counted; look for randomness or dependence on the batch.",
        reference="Carlini et al. 2019, arXiv:1902.06705, section 5",
        scored=False,
    ),
)
