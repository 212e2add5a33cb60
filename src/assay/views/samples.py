"""Samples to choose from: by label, by whether the model is right, and by whether an attack breaks them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from itertools import islice
from typing import Literal, get_args

import torch
from torch import Tensor

from assay.attacks.engine import OnStep
from assay.attacks.engine import attack as run_attack
from assay.attacks.measure import attack_inputs
from assay.errors import DataError, OptionError
from assay.evaluate import predict
from assay.views.attack import AttackChoice
from assay.views.context import LIMITS, Limits, OutOfTimeError, ViewContext, check_limit, deadline

Wanted = Literal["all", "right", "wrong", "broken"]
WANTED: tuple[Wanted, ...] = get_args(Wanted)
SHOWN = 40  # samples of one answer
_BLOCK_VALUES = 2**17  # pixel values that the model is given together: some forty pictures of 32×32, one of 224×224
_LARGEST_BLOCK = 64
_CHOICES = 8  # attacks of which the outcomes are kept
_UNKNOWN = -2  # beside -1, which is a prediction that is no number


@dataclass(frozen=True)
class FoundSample:
    """A sample: its ``place`` in the data, its id (as ``--sample`` takes it), and its label.

    ``predicted`` is the class that the model gives it, −1 where its logits are no numbers; ``broken`` whether the
    attack changes that; False where it was not attacked.
    """

    place: int
    sample_id: int
    name: str
    label: int
    predicted: int
    broken: bool = False

    @property
    def right(self) -> bool:
        return self.predicted == self.label


@dataclass(frozen=True)
class FoundSamples:
    """The samples found in the places ``first`` to before ``last``, of ``total`` in all.

    ``stopped`` tells that time was up before enough were found; the search goes on from either end.
    """

    samples: tuple[FoundSample, ...]
    first: int
    last: int
    total: int
    stopped: bool


class SampleSearch:
    """Looks for samples in the order of the data; what was predicted and attacked once is kept.

    Predictions, and what an attack does to a sample, are functions of model, sample and attack alone, so what one
    request leaves here changes no other's answer.
    """

    def __init__(self, context: ViewContext) -> None:
        self._context, self._data = context, context.dataset
        self._predicted = torch.full((len(self._data),), _UNKNOWN)
        self._broken: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()  # by attack int8 (N,): 1, 0, −1 unknown
        self._lock = threading.Lock()

    def find(
        self,
        wanted: str = "all",
        *,
        start: int = 0,
        backwards: bool = False,
        label: int | None = None,
        choice: AttackChoice | None = None,
        most: int = SHOWN,
        limits: Limits = LIMITS,
    ) -> FoundSamples:
        """At most ``most`` samples from the place ``start`` on, or ``backwards`` those before it; of one label or any.

        ``broken`` are those that the model gets right and, after the attack of ``choice``, wrong.
        Raises :class:`OptionError` for another wish, :class:`DataError` for a place outside the data, and
        :class:`OutOfTimeError` where the time is up before the first samples are attacked.
        """
        n = len(self._data)
        if wanted not in WANTED:
            raise OptionError("show", expected=f"one of {', '.join(WANTED)}", got=repr(wanted)[:80])
        if not 0 <= start <= n:
            raise DataError("sample", expected=f"0..{n}", got=start)
        attacked = (choice or AttackChoice()) if wanted == "broken" else None
        if attacked is not None:
            attacked.prepare()  # which refuses an attack that is not offered
            check_limit(attacked.steps, limits.steps, where="steps")
        until = deadline(limits.seconds)
        places = range(start - 1, -1, -1) if backwards else range(start, n)
        chosen = (place for place in places if label is None or int(self._data.labels[place]) == label)
        fitting: list[FoundSample] = []
        frontier, stopped = start, False
        while len(fitting) < most and not stopped:
            block = list(islice(chosen, self._block(most - len(fitting), wanted)))
            if not block:
                frontier = 0 if backwards else n
                break
            try:
                until()
                samples = self._look_at(block, attacked, until)
            except OutOfTimeError as error:
                if frontier == start:
                    raise OutOfTimeError(f"the search was {error}, before the first samples; try fewer steps") from None
                stopped = True
                continue
            for sample in samples[: 1 + _place_of_last(samples, wanted, most - len(fitting))]:
                frontier = sample.place if backwards else sample.place + 1
                fitting += [sample] if _fits(sample, wanted) else []
        first, last = (frontier, start) if backwards else (start, frontier)
        return FoundSamples(tuple(sorted(fitting, key=lambda each: each.place)), first, last, n, stopped)

    def _block(self, missing: int, wanted: str) -> int:
        """How many are looked at together: no more than needed where all are shown, and few of large pictures."""
        few = max(4, min(_LARGEST_BLOCK, _BLOCK_VALUES // self._data.images[0].numel()))
        return min(few, missing) if wanted == "all" else few

    def _look_at(self, places: list[int], choice: AttackChoice | None, until: OnStep) -> list[FoundSample]:
        rows = torch.tensor(places)
        unknown = rows[self._predicted[rows] == _UNKNOWN]
        if len(unknown):
            with self._context.exclusive_model() as model:
                self._predicted[unknown] = predict(model, self._data.subset(unknown)).classes
        broken = None if choice is None else self._attack(rows, choice, until)
        return [
            FoundSample(
                place=place,
                sample_id=int(self._data.ids[place]),
                name=self._data.sample_name(place),
                label=int(self._data.labels[place]),
                predicted=int(self._predicted[place]),
                broken=broken is not None and int(broken[place]) == 1,
            )
            for place in places
        ]

    def _attack(self, rows: Tensor, choice: AttackChoice, until: OnStep) -> Tensor:
        """What is known of this attack, after those of ``rows`` that are right and were not attacked yet."""
        with self._lock:
            known = self._broken.setdefault(choice.words, torch.full((len(self._data),), -1, dtype=torch.int8))
            self._broken.move_to_end(choice.words)
            while len(self._broken) > _CHOICES:
                self._broken.popitem(last=False)
        new = rows[(known[rows] < 0) & (self._predicted[rows] == self._data.labels[rows])]
        if len(new):
            part, ball = self._data.subset(new), choice.model_dump(include={"norm", "epsilon", "seed"})
            with self._context.exclusive_model() as model:
                inputs = attack_inputs(model, part)
                result = run_attack(model, **inputs, attack=choice.prepare(), on_step=until, **ball)
            known[new] = result.broken.to(torch.int8)
        return known


def _fits(sample: FoundSample, wanted: str) -> bool:
    return {"all": True, "right": sample.right, "wrong": not sample.right, "broken": sample.broken}[wanted]


def _place_of_last(samples: list[FoundSample], wanted: str, missing: int) -> int:
    """Where in the block the last of the ``missing`` samples stands; its end where it has fewer."""
    fitting = [i for i, sample in enumerate(samples) if _fits(sample, wanted)]
    return fitting[missing - 1] if len(fitting) >= missing else len(samples) - 1
