"""Can the answers of the attacks be trusted?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from assay.records.attack import AttackSanity, SanityName
from assay.records.finding import Status, Verdict
from assay.verdict.rule import Evidence, Outcome, Rule

_CARLINI = "Carlini et al. 2019, On evaluating adversarial robustness, arXiv:1902.06705, section 5"
_ATHALYE = "Athalye et al. 2018, Obfuscated gradients give a false sense of security, arXiv:1802.00420"
_CROCE = "Croce & Hein 2020, Reliable evaluation of adversarial robustness, arXiv:2003.01690"


class _Doubt(NamedTuple):
    id: str
    check: SanityName
    status: Status
    claim: str
    threshold: str
    why: str
    fix: str
    reference: str


def _judge(doubt: _Doubt) -> Callable[[Evidence], Outcome | None]:
    def judge(evidence: Evidence) -> Outcome | None:
        sanity = evidence.first(AttackSanity)
        check = None if sanity is None else sanity.find(doubt.check)
        if sanity is None or check is None or check.value is None:
            return None
        where = f"{sanity.norm}, n = {sanity.n:,}"
        return Outcome(doubt.status if check.raised else "pass", check.detail, check.value, where=where)

    return judge


_DOUBTS = (
    _Doubt(
        "A211",
        "train mode",
        "warn",
        "The model was handed over in evaluation mode",
        "0 mode-dependent modules in training mode",
        "Dropout and batch statistics that stay on make every number depend on chance and company.",
        "Call model.eval() before evaluating; assay did so for its own measurements.",
        _CARLINI,
    ),
    _Doubt(
        "A212",
        "randomised",
        "error",
        "The same image gets the same answer",
        "logits of repeated passes equal within 1e-4 of their range",
        "Attacks on a randomised model climb a gradient that changes at every step, and look weaker than they are.",
        "Attack the expectation: average the gradient over many passes (`--average 20`).",
        _ATHALYE,
    ),
    _Doubt(
        "A213",
        "not logits",
        "warn",
        "The model returns logits",
        "outputs are neither probabilities nor log-probabilities",
        "A second softmax flattens the loss, and its gradient vanishes where the model is sure.",
        "Return the values before the softmax.",
        _CARLINI,
    ),
    _Doubt(
        "A214",
        "zero gradients",
        "error",
        "Every sample has a gradient to climb",
        "at most 2 % of the samples without a usable gradient of cross-entropy and margin",
        "Where the gradient is zero or not finite, attacks stand still and robust accuracy flatters the model.",
        "Look for quantised inputs, hard thresholds and other steps; attack a smooth stand-in of that layer.",
        _ATHALYE,
    ),
    _Doubt(
        "A215",
        "saturated",
        "error",
        "The cross-entropy does not underflow",
        "at most 2 % of the samples with a zero gradient of the cross-entropy but not of the margin",
        "Logits so large that the softmax is exactly one leave the cross-entropy without a gradient.",
        "Attack with a margin or a ratio of logits: `--loss margin`, `--attack apgd-t`.",
        _CROCE,
    ),
    _Doubt(
        "A216",
        "not differentiable",
        "error",
        "The outputs depend on the input through the graph",
        "a connected graph",
        "A detached or integer-valued layer cuts the gradient off: no gradient attack can do anything.",
        "Remove the detach, or attack without gradients (`--attack square`).",
        _ATHALYE,
    ),
    _Doubt(
        "A217",
        "one step beats many",
        "error",
        "Many steps are at least as strong as one",
        "PGD leaves at most 2 points more than FGSM",
        "Iterating a correct gradient cannot do worse; where it does, the gradient misleads.",
        "Look for masked gradients, and for a step size that overshoots.",
        _ATHALYE,
    ),
    _Doubt(
        "A218",
        "rises with epsilon",
        "error",
        "A larger ball never helps the model",
        "accuracy at twice epsilon at most 2 points higher",
        "The larger ball contains the smaller one; doing worse in it means that the search fails.",
        "Use more steps, another loss, or the ensemble.",
        _CARLINI,
    ),
    _Doubt(
        "A219",
        "survives any epsilon",
        "error",
        "No model survives when every image is allowed",
        "accuracy at most chance where epsilon does not bind",
        "Any image may be replaced by one of another class; an attack that does not find it is broken.",
        "Do not trust any robust accuracy of this attack on this model.",
        _CARLINI,
    ),
    _Doubt(
        "A220",
        "more steps help",
        "warn",
        "The attack has converged",
        "twice the steps and restarts break at most 4 points more",
        "Where more work still breaks more, the number reported is an upper bound that the next run will lower.",
        "Use more steps, or `--attack adaptive`, which stops by a stated rule.",
        _CARLINI,
    ),
    _Doubt(
        "A221",
        "black box beats white box",
        "error",
        "Gradients find what a blind search finds",
        "at most 2 points broken by Square and not by PGD",
        "An attacker who knows the model cannot be weaker than one who does not, unless gradients are masked.",
        "Look for masked gradients; report the ensemble.",
        _ATHALYE,
    ),
    _Doubt(
        "A222",
        "far from the ensemble",
        "warn",
        "PGD is near the strongest attack",
        "within 8 points of all attacks together",
        "A gap means that this model needs the other losses and searches; PGD alone overstates it.",
        "Report `--attack standard` or `adaptive`.",
        _CROCE,
    ),
    _Doubt(
        "A223",
        "depends on the batch",
        "error",
        "A prediction does not depend on its company",
        "logits alone and in a batch equal within 1e-3 of their range",
        "An attack drops samples as they break; where the others' answers change with it, nothing it finds holds.",
        "Use running statistics instead of batch statistics in evaluation mode.",
        _CARLINI,
    ),
    _Doubt(
        "A224",
        "still climbing",
        "warn",
        "The loss has settled by the last steps",
        "the loss of what stands rises at most 10 % over the last fifth of the steps",
        "A loss that still climbs says that the attack was stopped before its end.",
        "Use more steps.",
        _CARLINI,
    ),
    _Doubt(
        "A225",
        "outside the ball",
        "error",
        "Every candidate stayed inside the ball",
        "0 misclassified candidates outside the ball or the box",
        "An attack that leaves its ball breaks more than it may.",
        "They were not counted; report the attack that made them.",
        _CARLINI,
    ),
)

RULES = tuple(
    Rule(
        id=doubt.id,
        category="robustness",
        claim=doubt.claim,
        threshold=doubt.threshold,
        needs=(AttackSanity,),
        judge=_judge(doubt),
        why=doubt.why,
        fix=doubt.fix,
        reference=doubt.reference,
        scored=False,
    )
    for doubt in _DOUBTS
)


def judge_attacks(sanity: AttackSanity) -> list[Verdict]:
    """The verdicts on the attack itself, one a rule of this file."""
    return [rule.verdict(Evidence([sanity])) for rule in RULES]
