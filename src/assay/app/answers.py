"""What the controls of the app ask for: their values go to a view; its result, or the line that refuses, is HTML."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from assay.app.panels import (
    show_attack,
    show_error,
    show_factorization,
    show_map,
    show_picture,
    show_prediction,
    show_recurrence,
    show_samples,
)
from assay.augment.operations import TWELVE
from assay.data.dataset import to_unit_range
from assay.errors import AssayError, DataError
from assay.lowrank.summary import read_channels
from assay.records.attack import Norm
from assay.views.attack import AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.context import LIMITS, Limits, ViewContext
from assay.views.explanation import explain_picture, parse_method
from assay.views.factorization import factor_picture
from assay.views.picture import Picture, apply_operations, pick_sample, predict_picture, read_picture
from assay.views.recurrence import RecurrenceChoice, measure_recurrence
from assay.views.samples import SampleSearch
from assay.wording import epsilon, norm

AS_IT_IS = "(as it is)"
ANY = "(any)"
_NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
SIGNS: dict[str, Norm] = {norm(name): name for name in _NORMS}


def _errors_shown(answer: Callable[..., str]) -> Callable[..., str]:
    """The answer, with bad input shown as its one line instead of raised."""

    @wraps(answer)
    def run(*inputs: Any) -> str:
        try:
            return answer(*inputs)
        except AssayError as error:
            return _refuse(error)

    return run


def _refuse(error: AssayError) -> str:
    return show_error(" ".join(str(error).split()))


class Answers:
    """One method for each thing that the page asks; each request carries all that its answer depends on."""

    def __init__(self, context: ViewContext, limits: Limits = LIMITS) -> None:
        self.context, self.limits = context, limits
        self._search = SampleSearch(context)

    def look(self, *inputs: Any) -> tuple[str, str]:
        """The picture, and what the model says of it."""
        try:
            prediction = predict_picture(self.context, self._picture(*inputs))
        except AssayError as error:
            return _refuse(error), ""
        return show_picture(prediction), show_prediction(self.context, prediction)

    @_errors_shown
    def find(self, wanted: str, label: str, start: str, *attack: Any) -> str:
        """Thumbnails of the samples from a place on, or before it."""
        place, backwards = _parse_place(start, len(self.context.dataset))
        choice, of = _parse_attack(*attack), self._class(label, none=ANY)
        samples = self._search.find(
            wanted, start=place, backwards=backwards, label=of, choice=choice, limits=self.limits
        )
        return show_samples(self.context, samples, what=_describe(wanted, choice))

    @_errors_shown
    def attack(self, name: str, norm: str, size: float, steps: float, *inputs: Any) -> str:
        """The attack that is set, on the picture."""
        choice = _parse_attack(name, norm, size, steps)
        return show_attack(
            self.context, attack_picture(self.context, self._picture(*inputs), choice, limits=self.limits)
        )

    @_errors_shown
    def smallest(self, norm: str, *inputs: Any) -> str:
        """The smallest perturbation of the picture that is found."""
        chosen = AttackChoice.parse({"norm": SIGNS.get(norm, norm)})
        picture = self._picture(*inputs)
        return show_attack(
            self.context, find_smallest_perturbation(self.context, picture, norm=chosen.norm, limits=self.limits)
        )

    @_errors_shown
    def explain(self, method: str, *inputs: Any) -> str:
        """What the answer on the picture rests on, by one method."""
        return show_map(self.context, explain_picture(self.context, self._picture(*inputs), parse_method(method)))

    @_errors_shown
    def factor(self, sample: str, upload: str | None, rank: float, scale: float) -> str:
        """The picture at a rank, and its gauge."""
        if upload is None:
            chosen = self._choose(sample, None, AS_IT_IS)
            words = self.context.words
            data = words[words.index("--data") :] if "--data" in words else ()
            channels, name, words = to_unit_range(chosen.image).double(), chosen.name, (*data, *chosen.words)
        else:
            longest = self.limits.longest
            content, name = _read(upload, self.limits)
            channels = read_channels(content, name=name, longest=longest)
            words = (name, "--longest", str(longest))
        most = min(channels.shape[1:])
        return show_factorization(
            factor_picture(channels, name=name, rank=min(int(rank), most), scale=scale, words=words)
        )

    @_errors_shown
    def recurrence(self, radius: float, norm: float, hidden: float, length: float, cell: str) -> str:
        """The gradient of a recurrence over time."""
        values = {"radius": radius, "norm": norm, "hidden": int(hidden), "length": int(length), "cell": cell}
        return show_recurrence(measure_recurrence(RecurrenceChoice.parse(values), limits=self.limits))

    def _picture(self, sample: str, upload: str | None, label: str, *magnitudes: float | bool) -> Picture:
        values = zip(TWELVE, magnitudes, strict=True)
        given = {name: float(value) for name, value in values if not (value is False or value is None)}
        return apply_operations(self._choose(sample, upload, label), given)

    def _choose(self, sample: str, upload: str | None, label: str) -> Picture:
        other, data = self._class(label, none=AS_IT_IS), self.context.dataset
        if upload is None:
            chosen = pick_sample(data, str(sample).strip())
        else:
            content, name = _read(upload, self.limits)
            chosen = read_picture(
                content, name=name, shape=data.shape, preparation=data.preparation, limits=self.limits
            )
        return chosen if other is None else chosen.with_label(other, name=label)

    def _class(self, name: str, *, none: str) -> int | None:
        """The label of a class by its name; None for the choice that is none. Raises :class:`DataError`."""
        if name == none:
            return None
        if name not in self.context.classes:
            raise DataError("label", expected="a class of the data", got=repr(name)[:80])
        return self.context.classes.index(name)


def _parse_place(text: str, n: int) -> tuple[int, bool]:
    """A place in the data, and whether the samples before it are wanted (``<40``) or those from it on (``40``)."""
    digits = str(text).removeprefix("<")
    if not (digits.isdecimal() and len(digits) < 12):
        raise DataError("start", expected=f"0..{n}, or < before it", got=repr(text)[:80])
    return int(digits), str(text).startswith("<")


def _parse_attack(name: str, norm: str, size: float, steps: float) -> AttackChoice:
    epsilon = size / 255 if SIGNS.get(norm) == "linf" else size
    values = {"attack": name, "norm": SIGNS.get(norm, norm), "epsilon": epsilon, "steps": int(steps)}
    return AttackChoice.parse(values)


def _describe(wanted: str, choice: AttackChoice) -> str:
    """``samples``, ``wrong samples``, ``samples that pgd breaks within L∞ 8/255``."""
    if wanted != "broken":
        return "samples" if wanted == "all" else f"{wanted} samples"
    if not choice.prepare().uses_epsilon:
        return f"samples that {choice.attack} breaks"
    size = f"{norm(choice.norm)} {epsilon(choice.epsilon, choice.norm)}"
    return f"samples that {choice.attack} breaks {'within' if choice.prepare().constrained else 'with steps of'} {size}"


def _read(upload: str, limits: Limits) -> tuple[bytes, str]:
    """The bytes of an upload, at most one beyond the limit, and its file name."""
    path = Path(upload)
    with path.open("rb") as file:
        return file.read(limits.upload_bytes + 1), path.name
