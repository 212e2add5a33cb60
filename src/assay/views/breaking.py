"""One picture under attack, and the smallest change that breaks it; both through the one engine, which judges again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import Field
from torch import Tensor

from assay.attacks.examples import magnification
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods import find_attack
from assay.attacks.options import AttackOptions
from assay.data.dataset import to_unit_range
from assay.errors import OptionError
from assay.options import Options
from assay.records.attack import Norm
from assay.views.looking import target_of
from assay.views.picture import Picture
from assay.views.subject import LIMITS, Limits, OutOfTimeError, Subject, at_most, until
from assay.wording import epsilon_option

# The attacks that answer about one picture while somebody waits, and the option that ``steps`` means for each.
OFFERED: Mapping[str, str | None] = MappingProxyType(
    {
        "fgsm": None,
        "pgd": "steps",
        "signed-steps": "steps",
        "apgd-ce": "steps",
        "apgd-t": "steps",
        "fab-t": "steps",
        "square": "queries",
        "noise": "draws",
        "transforms": None,
    }
)
SEARCH_STEPS = 60
SEARCHED: tuple[Norm, ...] = ("linf", "l2")


class AttackChoice(Options):
    """Which attack, how large a change in which norm (pixel units), how many steps."""

    attack: str = "pgd"
    norm: Norm = "linf"
    epsilon: float = Field(default=8 / 255, ge=0)
    steps: int = Field(default=10, ge=1)
    seed: int = 0

    def prepare(self) -> AttackOptions:
        """The engine's options; :class:`OptionError` for an attack that is not offered here."""
        if self.attack not in OFFERED:
            raise OptionError("attack", expected=f"one of {', '.join(OFFERED)}", got=repr(self.attack))
        knob = OFFERED[self.attack]
        return find_attack(self.attack, {} if knob is None else {knob: self.steps})

    @property
    def words(self) -> tuple[str, ...]:
        """The options of a command line that ask for the same."""
        size: tuple[str, ...] = ("--norm", self.norm, "--epsilon", epsilon_option(self.epsilon, self.norm))
        if self.attack == "transforms":  # keeps to no ball and takes no steps of that size
            size = ()
        count = () if OFFERED[self.attack] is None else ("--steps", str(self.steps))
        seed = ("--seed", str(self.seed)) if self.seed else ()
        return ("--attack", self.attack, *size, *count, *seed)


@dataclass(frozen=True, eq=False)
class Breakage:
    """What an attack made of one picture.

    ``adversarial`` and ``perturbation`` float32 (C, H, W), the latter magnified ``magnified`` times about mid-grey;
    ``before`` and ``after`` the probabilities; ``distance`` of the adversarial image in ``norm``, None without one;
    ``losses`` after each step, the first before the attack; ``survives_rounding`` whether it still breaks as an 8-bit
    file. ``already_wrong`` pictures are not attacked; ``stopped`` tells that the time ran out.
    """

    picture: Picture
    classes: tuple[str, ...]
    target: int
    attack: str
    norm: Norm
    epsilon: float | None
    words: tuple[str, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    adversarial: Tensor
    perturbation: Tensor
    magnified: float
    broken: bool
    already_wrong: bool
    distance: float | None
    losses: tuple[float, ...]
    passes: float
    seconds: float
    survives_rounding: bool | None
    notes: tuple[str, ...] = ()


def break_picture(subject: Subject, picture: Picture, choice: AttackChoice, *, limits: Limits = LIMITS) -> Breakage:
    """Attack one picture. Raises :class:`OutOfTimeError` when ``limits.seconds`` are over before the attack is."""
    at_most(choice.steps, limits.steps, where="steps")
    return _run(
        subject,
        picture,
        choice.prepare(),
        norm=choice.norm,
        epsilon=choice.epsilon,
        seed=choice.seed,
        words=choice.words,
        limits=limits,
    )


def find_smallest(
    subject: Subject, picture: Picture, *, norm: Norm = "linf", steps: int = SEARCH_STEPS, limits: Limits = LIMITS
) -> Breakage:
    """The nearest image that the model gets wrong, as the minimum-norm search finds it: an upper bound of the least ε.

    The search is free to leave any ball; what it finds is judged again by the untouched model.
    Reference: Pintor et al. 2021, *Fast minimum-norm adversarial attacks*. Raises :class:`OptionError` for L1, whose
    steps the bounds of the pixels cut short: the search would end far from the least ε.
    """
    at_most(steps, limits.steps, where="steps")
    if norm not in SEARCHED:
        raise OptionError("norm", expected=f"one of {', '.join(SEARCHED)}, for the smallest change", got=norm)
    return _run(
        subject,
        picture,
        find_attack("min-norm", {"steps": steps}),
        norm=norm,
        epsilon=farthest(norm, picture),
        seed=0,
        words=("--smallest", "--norm", norm, *(() if steps == SEARCH_STEPS else ("--steps", str(steps)))),
        limits=limits,
    )


def farthest(norm: Norm, picture: Picture) -> float:
    """The distance between a black and a white picture of this size: no two are farther apart."""
    pixels = picture.image.numel()
    return {"linf": 1.0, "l2": float(pixels**0.5), "l1": float(pixels)}[norm]


def _run(
    subject: Subject,
    picture: Picture,
    attack: AttackOptions,
    *,
    norm: Norm,
    epsilon: float,
    seed: int,
    words: tuple[str, ...],
    limits: Limits,
) -> Breakage:
    with subject.alone() as model:
        asked = target_of(subject, picture)
        try:
            measured = measure_robust_accuracy(
                model, asked, attack=attack, norm=norm, epsilon=epsilon, seed=seed, on_step=until(limits.seconds)
            )
        except OutOfTimeError as error:
            raise OutOfTimeError(f"{attack.name} was {error}: not broken so far; try fewer steps") from None
    result, record = measured.result, measured.record
    clean = to_unit_range(asked.images[0])
    adversarial = result.adversarial[0]
    broken = bool(result.broken[0])
    moved = broken or not attack.constrained
    delta = (adversarial if moved else clean) - clean
    factor = magnification(delta)
    smallest = attack.name == "min-norm"
    return Breakage(
        picture=picture,
        classes=subject.classes,
        target=int(asked.labels[0]),
        attack=attack.name,
        norm=norm,
        epsilon=None if smallest else epsilon,
        words=words,
        before=tuple(result.clean_logits[0].softmax(dim=0).tolist()),
        after=tuple(result.logits[0].softmax(dim=0).tolist()),
        adversarial=adversarial if moved else clean,
        perturbation=(0.5 + factor * delta).clamp(0, 1),
        magnified=factor,
        broken=broken,
        already_wrong=not bool(result.clean_correct[0]),
        distance=float(result.distances[0]) if broken else None,
        losses=record.loss_per_step,
        passes=record.forward_equivalents,
        seconds=record.seconds,
        survives_rounding=record.correct_after_rounding == 0 if broken else None,
        notes=result.notes,
    )
