"""One picture under attack, and the smallest perturbation that changes its prediction; both verified by the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import Field
from torch import Tensor

from assay.arguments import checked
from assay.attacks.examples import magnification
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods import find_attack
from assay.attacks.options import AttackOptions
from assay.data.dataset import to_unit_range
from assay.errors import OptionError
from assay.options import Options
from assay.records.attack import Norm
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

    ``adversarial`` and ``perturbation`` are float32 (C, H, W), the latter magnified ``magnified`` times about mid-grey;
    ``before`` and ``after`` the probabilities of the classes; ``losses`` the cross-entropy of ``label`` after each
    step, the first before the attack. ``distance`` is that of a successful adversarial image in ``norm``, else None;
    ``survives_rounding`` tells whether it is still misclassified as an 8-bit file. A picture that was ``misclassified``
    before is not attacked.
    """

    picture: Picture
    classes: tuple[str, ...]
    label: int
    attack: str
    norm: Norm
    epsilon: float | None
    words: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    adversarial: Tensor
    perturbation: Tensor
    magnified: float
    success: bool
    misclassified: bool
    distance: float | None
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
            ball = "" if self.epsilon is None else f" within {norm(self.norm)} {word_epsilon(self.epsilon, self.norm)}"
            return f"The attack failed: still {last} after {self.attack}{ball}."
        if self.epsilon is None:
            size = distance(self.distance or 0.0, self.norm)
            return f"The smallest perturbation found is {norm(self.norm)} {size}: {first} became {last}."
        return f"The attack succeeded: {first} became {last}."


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


def _run(
    context: ViewContext,
    picture: Picture,
    attack: AttackOptions,
    choice: AttackChoice,
    words: tuple[str, ...],
    limits: Limits,
) -> PictureAttack:
    with context.exclusive_model() as model:
        dataset = as_labelled(context, picture)
        try:
            options = choice.model_dump(include={"norm", "epsilon", "seed"})
            until = deadline(limits.seconds)
            measured = measure_robust_accuracy(model, dataset, attack=attack, on_step=until, **options)
        except OutOfTimeError as error:
            raise OutOfTimeError(f"{attack.name} was {error}, without success so far; try fewer steps") from None
    result, record = measured.result, measured.record
    clean = to_unit_range(dataset.images[0])
    success = bool(result.broken[0])
    adversarial = result.adversarial[0] if success or not attack.constrained else clean
    perturbation = adversarial - clean
    factor = magnification(perturbation)
    return PictureAttack(
        picture=picture,
        classes=context.classes,
        label=int(dataset.labels[0]),
        attack=attack.name,
        norm=choice.norm,
        epsilon=None if attack.name == "min-norm" else choice.epsilon,
        words=words,
        before=tuple(result.clean_logits[0].softmax(dim=0).tolist()),
        after=tuple(result.logits[0].softmax(dim=0).tolist()),
        adversarial=adversarial,
        perturbation=(0.5 + factor * perturbation).clamp(0, 1),
        magnified=factor,
        success=success,
        misclassified=not bool(result.clean_correct[0]),
        distance=float(result.distances[0]) if success else None,
        losses=record.loss_per_step,
        passes=record.forward_equivalents,
        seconds=record.seconds,
        survives_rounding=record.correct_after_rounding == 0 if success else None,
        notes=result.notes,
    )
