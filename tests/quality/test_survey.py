"""Odd pictures are counted, and accuracy is told with and without what leaked."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import assay
from assay.data.dataset import ImageDataset
from assay.intervals import newcombe
from assay.quality import split_accuracy
from assay.verdict import judge

Make = Callable[..., Tensor]
AsSet = Callable[..., ImageDataset]


def test_odd_pictures_are_counted(photographs: Make, pictured: AsSet) -> None:
    ordinary = photographs(20)
    dark = (photographs(2).float() * 0.05).byte()
    bright = (235 + photographs(3).float() * 0.07).byte()
    empty = torch.full((4, 3, 64, 64), 100, dtype=torch.uint8)
    small = F.interpolate(photographs(5).float(), (5, 5), mode="area")
    blurred = F.interpolate(small, (64, 64), mode="bicubic").clamp(0, 255).byte()
    survey = assay.survey_pictures(pictured(torch.cat([ordinary, dark, bright, empty, blurred])))
    assert {each.oddity: each.n for each in survey.odd} == {"nearly empty": 4, "dark": 2, "bright": 3, "blurred": 5}
    assert survey.n_odd == 14
    assert next(each for each in survey.odd if each.oddity == "dark").examples == ("test/20", "test/21")


def test_ordinary_digits_are_not_odd() -> None:
    survey = assay.survey_pictures(assay.load_dataset("digits"))
    assert survey.n_odd == 0
    assert sum(each.n for each in survey.classes) == survey.n == 359


def test_accuracy_with_and_without() -> None:
    correct, related = [True] * 8 + [False] * 2 + [True] * 5, [False] * 10 + [True] * 5
    record = split_accuracy(correct, related, against="train")
    assert (record.every.correct, record.without_duplicate.accuracy, record.with_duplicate.accuracy) == (13, 0.8, 1.0)
    assert (record.low, record.high) == newcombe(8, 10, 5, 5)


def test_the_rule_on_leaks_speaks_only_beyond_noise() -> None:
    """Where leaks are no more often right than the others it warns in at most 2.5 % of the sets, about."""
    generator = torch.Generator().manual_seed(0)
    warned, sets = 0, 400
    for _ in range(sets):
        correct = (torch.rand(1000, generator=generator) < 0.9).tolist()
        related = (torch.rand(1000, generator=generator) < 0.06).tolist()
        verdicts = {v.rule: v.status for v in judge([split_accuracy(correct, related, against="train")])}
        warned += verdicts["A704"] == "warn"
    assert warned <= 0.025 * sets + 3 * (0.025 * sets) ** 0.5


def test_a_check_tells_accuracy_again_without_leaks(photographs: Make, pictured: AsSet) -> None:
    """A model that knows the leaked pictures, and nothing else."""
    images, labels = photographs(60, size=16), torch.arange(60) % 2
    test = pictured(images, labels=labels)
    train = pictured(images[:20], labels=labels[:20], split="train")

    class Remembers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("known", images[:20].float() / 255)

        def forward(self, x: Tensor) -> Tensor:
            distances = (x[:, None] - self.known).square().mean(dim=(2, 3, 4))
            label = (distances.argmin(dim=1) % 2) * (distances.amin(dim=1) < 1e-4)
            return F.one_hot(label, 2).float() * 5 + distances.amin(dim=1, keepdim=True)

    budget = assay.check.Budget(name="tiny", clean=60, attacked=4, probed=4, steps=1, sanity_samples=2)
    checkup = assay.run_check(Remembers(), test, budget=budget, against=train)
    record = next(checkup.each(assay.records.quality.RelatedAccuracy))
    assert (record.with_duplicate.correct, record.with_duplicate.n, record.without_duplicate.n) == (20, 20, 40)
    assert record.without_duplicate.accuracy == 0.5
    statuses = {verdict.rule: verdict.status for verdict in checkup.verdicts}
    assert (statuses["A701"], statuses["A704"]) == ("error", "warn")
