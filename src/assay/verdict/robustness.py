"""Accuracy under attack, and whether the attacks themselves did what they should."""

from __future__ import annotations

from itertools import pairwise

from assay.intervals import share_bounds
from assay.records.attack import EpsilonCurve, RobustAccuracy
from assay.records.finding import Status
from assay.verdict import examples as ex
from assay.verdict.rule import EARLY, Evidence, Rule, RuleExamples, RuleResult, grade, grade_share, tell_needed
from assay.wording import ball, distance, epsilon, epsilon_option, norm, percent

ROBUST_SHARE = (0.75, 0.50)  # robust over clean accuracy: warn below the first, error below the second
IMPERCEPTIBLE = 2 / 255
HALF = 0.5
NOISE = 0.02


def _attack(evidence: Evidence, name: str) -> RobustAccuracy | None:
    return next((record for record in evidence.each(RobustAccuracy) if record.attack == name), None)


def _robust_to(evidence: Evidence, name: str) -> RuleResult | None:
    robust = _attack(evidence, name)
    if robust is None:
        return evidence.failure(RobustAccuracy, name=name)
    if robust.clean_correct == 0:
        return None
    before = robust.clean_correct / robust.n
    held = min(robust.accuracy * robust.n, robust.clean_correct)  # of those that were right before
    status = grade_share(held, robust.clean_correct, warn=ROBUST_SHARE[0], error=ROBUST_SHARE[1])
    interval = f"{percent(robust.low)} to {percent(robust.high)}, n = {robust.n:,}"
    measured = f"{percent(before)} falls to {percent(robust.accuracy)} ({interval})"
    needed = _needed(status, held, robust.clean_correct, ROBUST_SHARE[0], n=robust.n)
    return RuleResult(
        status,
        measured + needed,
        robust.accuracy,
        where=f"{robust.attack}, {ball(robust)}",
        short=f"{percent(before)} → {percent(robust.accuracy)}",
        command=_command(robust),
    )


def _command(robust: RobustAccuracy) -> str:
    """The command that runs this attack again on as many images."""
    steps = "" if robust.steps == 1 else f" --steps {robust.steps}"
    restarts = "" if robust.restarts == 1 else f" --restarts {robust.restarts}"
    radius = f"--norm {robust.norm} --epsilon {epsilon_option(robust.epsilon, robust.norm)}"
    return f"assay attack MODEL --data DATA --attack {robust.attack} {radius}{steps}{restarts} --limit {robust.n}"


def _needed(status: Status, held: float, before: int, least: float, *, n: int) -> str:
    """How many images would settle a share of those ``before`` that should be ``least``, of ``n`` images in all."""
    share = held / before
    variance = max(share * (1 - share), least * (1 - least)) * n / before
    return tell_needed(status, distance=abs(share - least), variance=variance, n=n)


def _median_epsilon(evidence: Evidence) -> RuleResult | None:
    curve = next((curve for curve in evidence.each(EpsilonCurve) if curve.norm == "linf"), None)
    if curve is None or not curve.points or curve.points[0].correct == 0:  # 2/255 means nothing in another norm
        return None
    at_limit, at_half = (_correct_at(curve, size) for size in (IMPERCEPTIBLE, IMPERCEPTIBLE / 2))
    if at_limit is None or at_half is None:
        return None  # a curve that ends before it says nothing
    before, n = curve.points[0].correct, curve.points[0].n
    status = grade_share(min(at_limit, before), before, warn=HALF, error=-1)
    if status == "warn":
        status = "error" if grade_share(min(at_half, before), before, warn=HALF, error=-1) == "warn" else "warn"
    largest = max(point.epsilon for point in curve.points)
    measured = f"more than half still correct at {norm('linf')} {epsilon(largest, 'linf')}"
    if curve.median_epsilon is not None:
        measured = f"half of the images misclassified at {norm('linf')} {distance(curve.median_epsilon, 'linf')}"
    measured += f"; {percent(at_limit / before)} of the correct ones (n = {before:,}) still correct at 2/255"
    value = largest if curve.median_epsilon is None else curve.median_epsilon
    short = "" if curve.median_epsilon is None else f"half of the images at {distance(curve.median_epsilon, 'linf')}"
    return RuleResult(status, measured + _needed(status, at_limit, before, HALF, n=n), value, short=short)


def curve_is_open(curve: EpsilonCurve) -> bool:
    """Whether more samples could change what is said of the ε that breaks half, at bounds for looking early."""
    if not curve.points or curve.points[0].correct == 0:
        return False
    before = curve.points[0].correct
    shares = []
    for size in (IMPERCEPTIBLE, IMPERCEPTIBLE / 2):
        held = _correct_at(curve, size)
        if held is None:
            return False
        shares.append(share_bounds(min(held, before), before, level=EARLY))
    (low, high), (low_at_half, high_at_half) = shares
    return low <= HALF and (high >= HALF or low_at_half <= HALF <= high_at_half)


def _correct_at(curve: EpsilonCurve, size: float) -> float | None:
    """How many samples are correct at this ε, straight between the points; None beyond the last."""
    for left, right in pairwise(curve.points):
        if left.epsilon <= size <= right.epsilon:
            share = (size - left.epsilon) / (right.epsilon - left.epsilon)
            return (left.accuracy + share * (right.accuracy - left.accuracy)) * left.n
    return None


def _iterating_helps(evidence: Evidence) -> RuleResult | None:
    one, many = _attack(evidence, "fgsm"), _attack(evidence, "pgd")
    if one is None or many is None:
        failed = (evidence.failure(RobustAccuracy, name=name) for name in ("fgsm", "pgd"))
        return next(filter(None, failed), None)
    if one.epsilon != many.epsilon or one.norm != many.norm or one.clean_correct == 0 or many.clean_correct == 0:
        return None
    excess = many.accuracy - one.accuracy
    measured = f"one step leaves {percent(one.accuracy)}, {many.steps} steps leave {percent(many.accuracy)}"
    short = f"{percent(one.accuracy)} after one step, {percent(many.accuracy)} after {many.steps}"
    return RuleResult(grade(excess, warn=0.0, error=NOISE), measured, excess, short=short)


def _loss_rises(evidence: Evidence) -> RuleResult | None:
    signed = _attack(evidence, "signed-steps")
    if signed is None:
        return evidence.failure(RobustAccuracy, name="signed-steps")
    if len(signed.loss_per_step) < 2 or signed.n == 0:
        return None
    losses = signed.loss_per_step
    falls = [k for k in range(1, len(losses)) if not losses[k] > losses[k - 1]]
    measured = "mean loss " + " → ".join(f"{loss:.2f}" for loss in losses)
    where = "" if not falls else "step " + ", ".join(str(k) for k in falls)
    # Later steps may overshoot a network that is already wrong everywhere; the first must raise the loss.
    status: Status = "error" if 1 in falls else "warn" if falls else "pass"
    return RuleResult(status, measured, losses[-1] - losses[0], where=where)


def _verified(evidence: Evidence) -> RuleResult | None:
    attacks = [record for record in evidence.each(RobustAccuracy) if record.constrained and record.clean_correct > 0]
    if not attacks:
        return None
    outside = sum(record.outside_ball for record in attacks)
    unconfirmed = sum(record.unconfirmed for record in attacks)
    where = ", ".join(record.attack for record in attacks if record.outside_ball or record.unconfirmed)
    measured = f"{outside} outside the ball, {unconfirmed} not confirmed by the original model"
    return RuleResult("warn" if outside + unconfirmed else "pass", measured, float(outside + unconfirmed), where=where)


_ADVERSARIAL_TRAINING = (
    "Train against the attack (adversarial training, the `robust` recipe), or state that the model must not face "
    "anyone who can change its input."
)

RULES = (
    Rule(
        id="A201",
        claim="Robust to a single-step attack (FGSM)",
        fault="Broken by FGSM",
        threshold="at least 75 % of the correct images still correct at the lower end of the 95 % interval (a warning "
        "where the upper end is below, an error below 50 %)",
        needs=(RobustAccuracy,),
        judge=lambda evidence: _robust_to(evidence, "fgsm"),
        why="A single gradient step within an imperceptible ε is the cheapest attack there is.",
        fix=_ADVERSARIAL_TRAINING,
        command="assay attack MODEL --data DATA --attack fgsm",
        mend="assay train DATA --recipe robust",
        limits="Passing means little on its own: a model with masked gradients, or trained against FGSM only, passes "
        "and falls to PGD (A202).",
        examples=RuleExamples(passing=lambda: (ex.attacked("fgsm", 800),), failing=lambda: (ex.attacked("fgsm", 250),)),
        reference="Goodfellow et al. 2015, Explaining and harnessing adversarial examples, arXiv:1412.6572",
    ),
    Rule(
        id="A202",
        claim="Robust to a multi-step attack (PGD)",
        fault="Broken by PGD",
        threshold="at least 75 % of the correct images still correct at the lower end of the 95 % interval (a warning "
        "where the upper end is below, an error below 50 %)",
        needs=(RobustAccuracy,),
        judge=lambda evidence: _robust_to(evidence, "pgd"),
        why="An attacker is not limited to one step; only accuracy under an iterated attack counts as robustness.",
        fix=_ADVERSARIAL_TRAINING,
        command="assay attack MODEL --data DATA --attack pgd",
        mend="assay train DATA --recipe robust",
        limits="An upper bound on robustness: what withstands these PGD steps may fall to the ensemble (`--attack "
        "standard`), to another norm, or to a larger ε; masked gradients make it look better (A204).",
        examples=RuleExamples(passing=lambda: (ex.attacked("pgd", 800),), failing=lambda: (ex.attacked("pgd", 0),)),
        reference="Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv:1706.06083",
    ),
    Rule(
        id="A203",
        claim="Robust to imperceptible perturbations (median adversarial ε)",
        fault="Broken by changes that nobody sees",
        threshold="half of the correct images still correct at 2/255, L∞, at the lower end of the 95 % interval (a "
        "warning where the upper end is below; an error where it is at 1/255)",
        needs=(EpsilonCurve,),
        judge=_median_epsilon,
        why="A change of two grey levels of 255 is less than JPEG compression or another camera makes.",
        fix=_ADVERSARIAL_TRAINING,
        command="assay attack MODEL --data DATA --curve",
        mend="assay train DATA --recipe robust",
        limits="Read between the points of a curve of few images, under an attack that bounds it from above. A data "
        "set whose pixels are not natural images has another limit of perception.",
        examples=RuleExamples(passing=lambda: (ex.curve(3),), failing=lambda: (ex.curve(0.5),)),
        reference="Carlini et al. 2019, On evaluating adversarial robustness, arXiv:1902.06705, section 4",
    ),
    Rule(
        id="A204",
        claim="PGD is at least as strong as FGSM (no gradient masking)",
        fault="PGD is weaker than FGSM: gradients are masked",
        threshold="robust accuracy under PGD at most that under FGSM (error: 2 points more)",
        needs=(RobustAccuracy,),
        judge=_iterating_helps,
        why="When a stronger attack does worse, gradients are masked and every robust accuracy is too high.",
        fix="Look for quantised, random or saturated layers; trust only gradient-free attacks until then.",
        command="assay attack MODEL --data DATA --sanity",
        mend="assay attack MODEL --data DATA --attack square",
        limits="Masking that misleads both attacks alike is not seen; A214 to A222 look for it. It compares two runs "
        "on the same images, without an interval: on few images one sample can make the difference.",
        examples=RuleExamples(
            passing=lambda: (ex.attacked("fgsm", 300), ex.attacked("pgd", 100)),
            failing=lambda: (ex.attacked("fgsm", 300), ex.attacked("pgd", 500)),
        ),
        reference="Athalye et al. 2018, Obfuscated gradients give a false sense of security, arXiv:1802.00420",
        scored=False,
    ),
    Rule(
        id="A205",
        claim="Each signed gradient step raises the loss (informative gradients)",
        fault="Steps along the gradient do not raise the loss",
        threshold="mean loss rises at every one of the steps (error: not even at the first)",
        needs=(RobustAccuracy,),
        judge=_loss_rises,
        why="Where steps along the gradient do not raise the loss, attacks and adversarial training cannot work.",
        fix="If the first step fails, look for zero or wrong gradients; if only later ones do, the steps overshoot.",
        command="assay attack MODEL --data DATA --attack signed-steps",
        mend="assay attack MODEL --data DATA --attack signed-steps --epsilon 2/255",
        limits="A mean over the images at hand, without an interval. The steps are large and not projected: on a "
        "network already wrong everywhere the loss may fall at a later step, which is no fault. Samples whose loss "
        "falls are hidden by the mean.",
        examples=RuleExamples(
            passing=lambda: (ex.signed_steps(0.3, 2.0, 5.0),), failing=lambda: (ex.signed_steps(0.3, 0.3),)
        ),
        reference="Goodfellow et al. 2015, arXiv:1412.6572",
        scored=False,
    ),
    Rule(
        id="A206",
        claim="Adversarial examples verified: inside the ball, misclassified by the original model",
        fault="Adversarial examples that do not count",
        threshold="0 outside the ball, 0 that the original model classifies correctly",
        needs=(RobustAccuracy,),
        judge=_verified,
        why="An attack that leaves its ball, or a model whose predictions vary, makes robust accuracy meaningless.",
        fix="Rejected examples were not counted; look for randomness or dependence on the batch.",
        command="assay attack MODEL --data DATA --attack pgd",
        mend=("model.eval()\ntorch.use_deterministic_algorithms(True)"),
        limits="It checks what attacks found, not what they missed. A model that is random only now and then can pass.",
        examples=RuleExamples(
            passing=lambda: (ex.attacked("pgd", 100),), failing=lambda: (ex.attacked("pgd", 100, unconfirmed=1),)
        ),
        reference="Carlini et al. 2019, arXiv:1902.06705, section 5",
        scored=False,
    ),
)
