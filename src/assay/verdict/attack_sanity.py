"""Can the results of the attacks be trusted? One rule for each check of :class:`~assay.records.attack.AttackSanity`."""

from __future__ import annotations

from assay.records.attack import AttackSanity, SanityName
from assay.records.finding import Status, Verdict
from assay.verdict import examples as ex
from assay.verdict.rule import Evidence, Rule, RuleExamples, RuleResult, reads
from assay.wording import ball

_CARLINI = "Carlini et al. 2019, On evaluating adversarial robustness, arXiv:1902.06705, section 5"
_ATHALYE = "Athalye et al. 2018, Obfuscated gradients give a false sense of security, arXiv:1802.00420"
_CROCE = "Croce & Hein 2020, Reliable evaluation of adversarial robustness, arXiv:2003.01690"


def _rule(key: tuple[str, SanityName, Status], *texts: str) -> Rule:
    """A rule about one check: id, check and status where it is raised; the texts in the order of the unpacking."""
    rule_id, name, status = key
    claim, fault, threshold, why, fix, mend, reference, limits, passing, failing = texts

    def judge(sanity: AttackSanity) -> RuleResult | None:
        check = sanity.find(name)
        if check is None or check.value is None or sanity.n == 0:
            return None
        where = f"{ball(sanity)}, n = {sanity.n:,}"
        return RuleResult(status if check.raised else "pass", check.detail, check.value, where=where)

    return Rule(
        id=rule_id,
        claim=claim,
        fault=fault,
        threshold=threshold,
        **reads(AttackSanity, judge),
        why=why,
        fix=fix,
        command="assay attack MODEL --data DATA --sanity",
        mend=mend,
        limits=limits,
        examples=RuleExamples(
            passing=lambda: (ex.sanity(name, 0.0, passing),), failing=lambda: (ex.sanity(name, 1.0, failing),)
        ),
        reference=reference,
        scored=False,
        on_request=True,
    )


RULES = (
    _rule(
        ("A211", "train mode", "warn"),
        "Evaluation mode: the attacked model was handed over with model.eval()",
        "Attacked in training mode",
        "0 mode-dependent modules in training mode",
        "Dropout and batch statistics that stay on make every number depend on chance and on the batch.",
        "Call model.eval() before evaluating; assay did so for its own measurements.",
        "model.eval()",
        _CARLINI,
        "Monte-Carlo dropout, kept in training mode on purpose, is reported as well.",
        "none",
        "2 modules were handed over in training mode, such as ('bn1',)",
    ),
    _rule(
        ("A212", "randomised", "error"),
        "Deterministic: repeated forward passes give equal logits",
        "Randomised: repeated passes differ",
        "logits of repeated passes equal within 1e-4 of their range",
        "Attacks on a randomised model follow a gradient that changes at every step, and look weaker than they are.",
        "Attack the expectation (EOT): average the gradient over many passes (`--eot-samples 20`).",
        "assay attack MODEL --data DATA --eot-samples 20",
        _ATHALYE,
        "A few batches, three passes each: randomness that acts rarely is missed.",
        "2 batches evaluated three times differ by 0 of the range of the logits",
        "2 batches evaluated three times differ by 0.08 of the range of the logits",
    ),
    _rule(
        ("A213", "not logits", "warn"),
        "The model returns logits, not probabilities",
        "Probabilities where logits are expected",
        "outputs are neither probabilities nor log-probabilities",
        "A second softmax flattens the loss, and its gradient vanishes where the model is confident.",
        "Return the values before the softmax.",
        "logits = model(images).log()  # or leave out the last softmax",
        _CARLINI,
        "It looks at values only: a sigmoid or a scaled softmax passes for logits.",
        "outputs look like logits",
        "outputs look like probabilities",
    ),
    _rule(
        ("A214", "zero gradients", "error"),
        "Usable input gradient for every sample (no gradient masking)",
        "No usable input gradient: gradients are masked",
        "at most 2 % of the samples without a usable gradient of cross-entropy and margin",
        "Where the gradient is zero or not finite, gradient attacks cannot move and robust accuracy is too high.",
        "Look for quantised inputs, hard thresholds and other steps; attack a smooth surrogate of that layer (BPDA).",
        "assay attack MODEL --data DATA --attack square",
        _ATHALYE,
        "Zero or not finite only: gradients that exist and point the wrong way pass.",
        "0 % of the samples have no usable gradient of the cross-entropy nor of the margin",
        "40 % of the samples have no usable gradient of the cross-entropy nor of the margin",
    ),
    _rule(
        ("A215", "saturated", "error"),
        "No saturated softmax: the cross-entropy has a gradient",
        "Saturated softmax: the cross-entropy has no gradient",
        "at most 2 % of the samples with a zero gradient of the cross-entropy but not of the margin",
        "Logits so large that the softmax is exactly one leave the cross-entropy without a gradient.",
        "Attack with a margin or a ratio of logits: `--loss margin`, `--attack apgd-t`.",
        "assay attack MODEL --data DATA --attack apgd-t",
        _CROCE,
        "In the precision of this run; a gradient that is tiny and not zero passes.",
        "0 % of the samples have no usable gradient of the cross-entropy, but one of the margin",
        "30 % of the samples have no usable gradient of the cross-entropy, but one of the margin",
    ),
    _rule(
        ("A216", "not differentiable", "error"),
        "Differentiable: the logits depend on the input through the autograd graph",
        "Not differentiable",
        "a connected graph",
        "A detached or integer-valued layer cuts the gradient off: no gradient attack can do anything.",
        "Remove the detach, or attack without gradients (`--attack square`).",
        "assay attack MODEL --data DATA --attack square",
        _ATHALYE,
        "One connected path is enough to pass, though a detached one beside it may carry most of the signal.",
        "the graph is connected",
        "the outputs do not depend on the input through the graph",
    ),
    _rule(
        ("A217", "one step beats many", "error"),
        "PGD is at least as strong as FGSM on the samples of this test (no gradient masking)",
        "PGD is weaker than FGSM: gradients are masked",
        "PGD leaves at most 2 points more than FGSM",
        "Iterating a correct gradient cannot do worse; where it does, the gradient misleads.",
        "Look for masked gradients, and for a step size that overshoots.",
        "assay attack MODEL --data DATA --attack square",
        _ATHALYE,
        "Masking that misleads both attacks alike is not seen.",
        "one step leaves 40.0 %, 20 steps leave 12.0 %",
        "one step leaves 12.0 %, 20 steps leave 40.0 %",
    ),
    _rule(
        ("A218", "rises with epsilon", "error"),
        "Robust accuracy does not rise with ε",
        "Robust accuracy rises with ε: the attack fails",
        "accuracy at twice epsilon at most 2 points higher",
        "The larger ball contains the smaller one; doing worse in it means that the search fails.",
        "Use more steps, another loss, or the ensemble.",
        "assay attack MODEL --data DATA --attack standard",
        _CARLINI,
        "One pair of sizes on a few samples; attacks may fail at both alike.",
        "40.0 % left at epsilon, 12.0 % at twice epsilon",
        "12.0 % left at epsilon, 40.0 % at twice epsilon",
    ),
    _rule(
        ("A219", "survives any epsilon", "error"),
        "Unbounded attack succeeds: accuracy at most chance when ε does not bind",
        "An unbounded attack fails",
        "accuracy at most chance where epsilon does not bind",
        "Any image may be replaced by one of another class; an attack that does not find it is broken.",
        "Do not trust any robust accuracy of this attack on this model.",
        "assay attack MODEL --data DATA --attack square",
        _CARLINI,
        "Necessary, not sufficient: an attack can succeed in a large ball and fail in a small one.",
        "0.0 % left where any image is allowed; chance is 10.0 %",
        "60.0 % left where any image is allowed; chance is 10.0 %",
    ),
    _rule(
        ("A220", "more steps help", "warn"),
        "The attack has converged: more steps and restarts misclassify few more samples",
        "The attack has not converged",
        "twice the steps and restarts break at most 4 points more",
        "Where more work still breaks more, the number reported is an upper bound that the next run will lower.",
        "Use more steps, or `--attack adaptive`, which stops by a stated rule.",
        "assay attack MODEL --data DATA --steps 100 --restarts 5",
        _CARLINI,
        "A plateau is no proof: an attack that is stuck looks converged, too.",
        "twice the steps and restarts break another 0.0 %",
        "twice the steps and restarts break another 12.0 %",
    ),
    _rule(
        ("A221", "black box beats white box", "error"),
        "White-box attack at least as strong as a black-box one (Square)",
        "A black-box attack is stronger: gradients are masked",
        "at most 2 points broken by Square and not by PGD",
        "An attacker who knows the model cannot be weaker than one who does not, unless gradients are masked.",
        "Look for masked gradients; report the ensemble.",
        "assay attack MODEL --data DATA --attack standard",
        _ATHALYE,
        "Square runs with few queries here; with more it might find what PGD missed.",
        "a search without gradients breaks 0.0 % that 20 gradient steps do not",
        "a search without gradients breaks 15.0 % that 20 gradient steps do not",
    ),
    _rule(
        ("A222", "far from the ensemble", "warn"),
        "PGD is close to the attack ensemble",
        "PGD is far from the ensemble",
        "within 8 points of all attacks together",
        "A gap means that this model needs the other losses and searches; PGD alone overstates its robustness.",
        "Report `--attack standard` or `adaptive`.",
        "assay attack MODEL --data DATA --attack standard",
        _CROCE,
        "The ensemble is made of the short attacks of this test, on its few samples.",
        "PGD leaves 40.0 %, all attacks together 38.0 %",
        "PGD leaves 40.0 %, all attacks together 20.0 %",
    ),
    _rule(
        ("A223", "depends on the batch", "error"),
        "Batch-independent: logits of a sample alone equal those in a batch",
        "Logits depend on the other images of the batch",
        "logits alone and in a batch equal within 1e-3 of their range",
        "An attack drops samples once they are misclassified; where this changes other logits, no result holds.",
        "Use running statistics instead of batch statistics in evaluation mode.",
        "model.eval()",
        _CARLINI,
        "Half precision rounds by more than float32 and can fail without any dependence.",
        "a sample alone and in its batch differ by 1e-07 of the range of the logits",
        "a sample alone and in its batch differ by 0.2 of the range of the logits",
    ),
    _rule(
        ("A224", "still climbing", "warn"),
        "The attack loss has converged by the last steps",
        "The attack was stopped while its loss climbed",
        "the loss of the samples still correct rises at most 10 % over the last fifth of the steps",
        "A loss that still rises means that the attack was stopped too early.",
        "Use more steps.",
        "assay attack MODEL --data DATA --steps 100",
        _CARLINI,
        "A loss that oscillates, or rests in a poor local maximum, counts as converged.",
        "the loss of the samples still correct rose by 1.0 % over the last fifth of the steps",
        "the loss of the samples still correct rose by 35.0 % over the last fifth of the steps",
    ),
    _rule(
        ("A225", "outside the ball", "error"),
        "Adversarial examples lie inside the perturbation ball",
        "Adversarial examples outside the ball",
        "0 misclassified images outside the ball or the pixel range",
        "An attack that leaves its ball misclassifies more than its threat model allows.",
        "They were not counted; report the attack that made them.",
        "assay attack MODEL --data DATA --attack pgd",
        _CARLINI,
        "Attacks that stay inside may still be weak; this is about validity, not strength.",
        "0 adversarial images lay outside the ball or the pixel range",
        "3 adversarial images lay outside the ball or the pixel range",
    ),
)


def judge_attacks(sanity: AttackSanity) -> list[Verdict]:
    """The verdicts of these rules on one attack sanity record."""
    return [rule.verdict(Evidence([sanity])) for rule in RULES]
