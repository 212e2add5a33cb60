"""One picture under attack, and the smallest perturbation that changes its prediction; both verified by the engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from assay.arguments import checked
from assay.attacks.engine import attack as run_attack
from assay.attacks.examples import magnification
from assay.attacks.measure import attack_inputs, count_correct_after_rounding
from assay.attacks.methods import find_attack
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.attacks.threat import Threat
from assay.data.dataset import ImageDataset, to_unit_range
from assay.errors import OptionError
from assay.models.calls import calling
from assay.options import Options
from assay.records.attack import Norm
from assay.runtime import pixel_dtype
from assay.views.context import LIMITS, Limits, OutOfTimeError, ViewContext, check_limit, deadline
from assay.views.picture import Picture, as_labelled
from assay.wording import distance, epsilon_option, norm, percent
from assay.wording import epsilon as word_epsilon

_IN_STEPS = ("pgd", "signed-steps", "apgd-ce", "apgd-t", "fab-t")
# The attacks that are quick enough on one picture, and the option that ``steps`` sets for each.
ATTACKS: Mapping[str, str | None] = MappingProxyType(
    {"fgsm": None, **dict.fromkeys(_IN_STEPS, "steps"), "square": "queries", "noise": "draws", "transforms": None}
)
SEARCH_STEPS = 60
SEARCH_NORMS: tuple[Norm, ...] = ("linf", "l2")


class AttackChoice(Options):
    """Name of the attack, norm and radius ε of the ball (pixel units), number of steps."""

    attack: str = "pgd"
    norm: Norm = "linf"
    epsilon: float = Field(default=8 / 255, ge=0)
    steps: int = Field(default=10, ge=1)
    seed: int = 0

    def prepare(self) -> AttackOptions:
        """The engine's options; :class:`OptionError` for an attack that is not offered here."""
        if self.attack not in ATTACKS:
            raise OptionError("attack", expected=f"one of {', '.join(ATTACKS)}", got=repr(self.attack))
        option = ATTACKS[self.attack]
        return find_attack(self.attack, {} if option is None else {option: self.steps})

    @property
    def words(self) -> tuple[str, ...]:
        """The same as options of ``assay look``."""
        bounded = self.attack != "transforms"  # image operations have no ball
        ball = ("--norm", self.norm, "--epsilon", epsilon_option(self.epsilon, self.norm)) if bounded else ()
        count = () if ATTACKS[self.attack] is None else ("--steps", str(self.steps))
        seed = ("--seed", str(self.seed)) if self.seed else ()
        return ("--attack", self.attack, *ball, *count, *seed)


@dataclass(frozen=True, eq=False)
class PictureAttack:
    """The result of an attack on one picture.

    ``adversarial`` is the misclassified image or, where there was no ``success``, the best attempt: of the images
    inside the ball that were tried, the one on which the label is least likely (of an attack without a ball, the image
    it ended with). It and ``perturbation`` are float32 (C, H, W), the latter magnified ``magnified`` times about
    mid-grey; ``before`` and ``after`` the probabilities of the classes; ``losses`` the cross-entropy of ``label`` after
    each step, the first before the attack. ``attempt`` names what is shown of an attack that failed. ``moved`` is the
    distance of ``adversarial`` in ``norm``, ``distance`` the same where it is a success, else None;
    ``survives_rounding`` tells whether that is still misclassified as an 8-bit file. A picture that was
    ``misclassified`` before is not attacked.
    """

    picture: Picture
    classes: tuple[str, ...]
    label: int
    attack: str
    norm: Norm
    epsilon: float | None
    attempt: str
    words: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    adversarial: Tensor
    perturbation: Tensor
    magnified: float
    success: bool
    misclassified: bool
    distance: float | None
    moved: float
    losses: tuple[float, ...]
    passes: float
    seconds: float
    survives_rounding: bool | None
    notes: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        top = [max(range(len(p)), key=p.__getitem__) for p in (self.before, self.after)]
        first, last = (
            f"{self.classes[i]} ({percent(p[i])})" for i, p in zip(top, (self.before, self.after), strict=True)
        )
        if self.misclassified:
            predicted, label = self.classes[top[0]], self.classes[self.label]
            return f"Misclassified before any attack: predicted {predicted}, label {label}."
        if not self.success:
            return f"Held: {self._outcome()}."
        if self.epsilon is None:
            size = distance(self.distance or 0.0, self.norm)
            return f"The smallest perturbation found is {norm(self.norm)} {size}: {first} became {last}."
        return f"The attack succeeded: {first} became {last}."

    def _outcome(self) -> str:
        """What came of the attempt that is shown, in numbers that tell before and after apart."""
        label, was, now = self.classes[self.label], self.before[self.label], self.after[self.label]
        if not now < was:
            return f"{self.attempt} did not lower {label}, {percent(was)} before and {percent(now)} after"
        for digits in (1, 2, 3):
            first, last = percent(was, digits=digits), percent(now, digits=digits)
            if first != last:
                return f"{self.attempt} lowered {label} from {first} to {last}"
        losses = " to ".join(f"{-math.log(p):.2g}" for p in (was, now))
        return f"{self.attempt} raised the loss of {label} from {losses} nats; it stays at {percent(now)}"


@checked
def attack_picture(
    context: ViewContext, picture: Picture, choice: AttackChoice, *, limits: Limits = LIMITS
) -> PictureAttack:
    """Attack one picture. Raises :class:`OutOfTimeError` when ``limits.seconds`` are over before the attack is."""
    check_limit(choice.steps, limits.steps, where="steps")
    return _run(context, picture, choice.prepare(), choice, words=choice.words, limits=limits)


@checked
def find_smallest_perturbation(
    context: ViewContext, picture: Picture, *, norm: Norm = "linf", steps: int = SEARCH_STEPS, limits: Limits = LIMITS
) -> PictureAttack:
    """The nearest misclassified image that the minimum-norm attack finds: an upper bound of the smallest ε.

    The search is not confined to a ball; its result is verified by the unchanged model.
    Reference: Pintor et al. 2021, *Fast minimum-norm adversarial attacks*. Raises :class:`OptionError` for L1, where
    the pixel bounds shorten the steps and the search would end far from the smallest ε.
    """
    check_limit(steps, limits.steps, where="steps")
    if norm not in SEARCH_NORMS:
        raise OptionError("norm", expected=f"one of {', '.join(SEARCH_NORMS)}, for the smallest change", got=norm)
    attack, pixels = find_attack("min-norm", {"steps": steps}), picture.image.numel()
    # between a black and a white picture: no two are farther apart
    largest = {"linf": 1.0, "l2": float(pixels**0.5)}[norm]
    ball = AttackChoice(norm=norm, epsilon=largest)
    words = ("--smallest", "--norm", norm, *(() if steps == SEARCH_STEPS else ("--steps", str(steps))))
    return _run(context, picture, attack, ball, words=words, limits=limits)


class _BestAttempt:
    """Of the images inside the ball that an attack tries, the one on which the label is least likely."""

    def __init__(self, clean: Tensor, label: Tensor, threat: Threat) -> None:
        self._clean, self._label, self._threat = clean, label, threat
        self._loss = -math.inf
        self.image: Tensor | None = None  # (1, C, H, W)

    def __call__(self, rows: Tensor, images: Tensor, logits: Tensor) -> None:
        """Keep the image where it is the best so far."""
        tried, ball = images.detach().float().cpu(), torch.tensor([self._threat.epsilon])
        loss = float(F.cross_entropy(logits.detach().double().cpu(), self._label))
        if loss > self._loss and bool(self._threat.contains(tried, self._clean, ball)[0]):
            self._loss, self.image = loss, tried.clone()


def _run(
    context: ViewContext,
    picture: Picture,
    attack: AttackOptions,
    choice: AttackChoice,
    words: tuple[str, ...],
    limits: Limits,
) -> PictureAttack:
    threat = Threat(norm=choice.norm, epsilon=choice.epsilon, constrained=attack.constrained)
    with context.exclusive_model() as model:
        dataset = as_labelled(context, picture)
        clean = to_unit_range(dataset.images)
        best = _BestAttempt(clean, dataset.labels, threat)
        options = choice.model_dump(include={"norm", "epsilon", "seed"})
        until = deadline(limits.seconds)
        try:
            result = run_attack(
                model, **attack_inputs(model, dataset), attack=attack, on_step=until, on_iterate=best, **options
            )
        except OutOfTimeError as error:
            raise OutOfTimeError(f"{attack.name} was {error}, without success so far; try fewer steps") from None
        success, misclassified = bool(result.broken[0]), not bool(result.clean_correct[0])
        shown, logits = _choose_image(model, dataset, result, best.image)
        still_wrong = count_correct_after_rounding(model, dataset, result) == 0 if success else None
    perturbation = shown - clean[0]
    factor = magnification(perturbation)
    moved = float(threat.distance(shown[None], clean))
    return PictureAttack(
        picture=picture,
        classes=context.classes,
        label=int(dataset.labels[0]),
        attack=attack.name,
        norm=choice.norm,
        epsilon=None if attack.name == "min-norm" else choice.epsilon,
        attempt=_name_attempt(attack, choice),
        words=words,
        before=tuple(result.clean_logits[0].double().softmax(dim=0).tolist()),
        after=tuple(logits.double().softmax(dim=0).tolist()),
        adversarial=shown,
        perturbation=(0.5 + factor * perturbation).clamp(0, 1),
        magnified=factor,
        success=success,
        misclassified=misclassified,
        distance=float(result.distances[0]) if success else None,
        moved=moved,
        losses=() if result.trace is None else tuple(result.trace.losses[0].double().tolist()),
        passes=float(result.counts.forwards + result.counts.backwards),
        seconds=result.seconds,
        survives_rounding=still_wrong,
        notes=result.notes,
    )


def _choose_image(
    model: nn.Module, dataset: ImageDataset, result: AttackResult, attempt: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The image to show, (C, H, W), and the logits of the unchanged model on it, (K,)."""
    ended = bool(result.broken[0]) or (not result.threat.constrained and bool(result.distances.isfinite()[0]))
    if ended or attempt is None or not bool(result.clean_correct[0]):
        return result.adversarial[0], result.logits[0]
    with calling(model, attempt, classes=result.logits.shape[1]) as network, torch.no_grad():
        logits = network(attempt.to(pixel_dtype(model)))[0].float().cpu()
    if int(logits.argmax()) != int(dataset.labels[0]):  # which the search rounded to the other side of the boundary
        return result.adversarial[0], result.logits[0]
    return attempt[0], logits


def _name_attempt(attack: AttackOptions, choice: AttackChoice) -> str:
    """What is shown of an attack that failed, and within what it searched."""
    if attack.name == "min-norm" or not attack.uses_epsilon:
        return f"the best attempt of {attack.name}"
    size = word_epsilon(choice.epsilon, choice.norm)
    if attack.constrained:
        return f"the best attempt of {attack.name} within {norm(choice.norm)} {size}"
    return f"the last image of {attack.name} with steps of {size}"
