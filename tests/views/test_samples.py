"""Samples are found by what is true of them, in both directions, within the time there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from assay.attacks.engine import attack
from assay.errors import DataError, OptionError
from assay.evaluate import predict
from assay.views.attack import AttackChoice
from assay.views.context import Limits, OutOfTimeError, ViewContext
from assay.views.samples import SampleSearch

CHOICE = AttackChoice(attack="fgsm", epsilon=4 / 255)


@pytest.fixture
def context(network_context: ViewContext) -> ViewContext:
    """Every fifth label is wrong."""
    data = network_context.dataset
    labels = torch.where(torch.arange(len(data)) % 5 == 0, (data.labels + 1) % 4, data.labels)
    return replace(network_context, dataset=replace(data, labels=labels))


def wanted_places(context: ViewContext) -> dict[str, list[int]]:
    """By brute force, all samples at once."""
    data = context.dataset
    right = predict(context.model, data).correct
    broken = attack(context.model, data.images / 255, data.labels, attack="fgsm", epsilon=4 / 255, ids=data.ids).broken
    masks = {"all": torch.ones_like(right), "right": right, "wrong": ~right, "broken": broken}
    return {name: mask.nonzero()[:, 0].tolist() for name, mask in masks.items()}


@pytest.mark.parametrize("most", [1, 3, 40])
@pytest.mark.parametrize("wanted", ["all", "right", "wrong", "broken"])
def test_paging_forth_and_back_meets_every_sample_once(context, wanted, most):
    expected = wanted_places(context)
    assert {name: len(places) > 2 for name, places in expected.items()} == dict.fromkeys(expected, True)
    assert len(expected["broken"]) < len(expected["right"])
    search, n = SampleSearch(context), len(context.dataset)
    forth: list[int] = []
    place = 0
    while place < n:
        page = search.find(wanted, start=place, choice=CHOICE, most=most)
        assert len(page.samples) <= most
        assert page.first == place < page.last
        forth += [sample.place for sample in page.samples]
        place = page.last
    assert forth == expected[wanted]
    back: list[int] = []
    while place > 0:
        page = search.find(wanted, start=place, backwards=True, choice=CHOICE, most=most)
        assert page.first < page.last == place
        back = [sample.place for sample in page.samples] + back
        place = page.first
    assert back == expected[wanted]


def test_a_sample_is_told_by_the_number_that_the_command_line_takes(context):
    page = SampleSearch(context).find("wrong", start=1, most=2)
    assert [sample.place for sample in page.samples] == [5, 10]
    assert [sample.sample_id for sample in page.samples] == [20, 35]
    assert [sample.name for sample in page.samples] == ["test/20", "test/35"]
    assert page.last == 11
    assert not any(sample.right for sample in page.samples)


def test_samples_of_one_label(context):
    page = SampleSearch(context).find(label=2, most=1000)
    assert [sample.place for sample in page.samples] == (context.dataset.labels == 2).nonzero()[:, 0].tolist()
    assert (page.first, page.last) == (0, len(context.dataset))
    empty = SampleSearch(context).find("wrong", label=2, start=len(context.dataset))
    assert empty.samples == ()


def test_what_one_request_found_is_not_measured_again_and_other_attacks_are_told_apart(context, monkeypatch):
    search = SampleSearch(context)
    first = search.find("broken", choice=CHOICE)
    other = search.find("broken", choice=AttackChoice(attack="fgsm", epsilon=0.0))
    assert other.samples == ()
    monkeypatch.setattr("assay.views.samples.run_attack", None)
    monkeypatch.setattr("assay.views.samples.predict", None)
    assert search.find("broken", choice=CHOICE) == first
    assert len(first.samples) > 2


def test_a_search_that_takes_too_long_says_how_far_it_came(context, monkeypatch):
    monkeypatch.setattr(SampleSearch, "_block", lambda *_: 4)
    search = SampleSearch(context)
    with pytest.raises(OutOfTimeError, match=r"the search was stopped after 1e-09 s, before the first samples"):
        search.find("broken", choice=CHOICE, limits=Limits(seconds=1e-9))
    calls = iter(range(100))

    def late(_: float):
        def check(*_: object) -> None:
            if next(calls) >= 3:
                raise OutOfTimeError("stopped")

        return check

    monkeypatch.setattr("assay.views.samples.deadline", late)
    page = search.find("wrong")
    assert page.stopped
    assert (page.first, page.last) == (0, 12)
    assert [sample.place for sample in page.samples] == [0, 5, 10]


def test_wrong_wishes_are_named(context):
    search = SampleSearch(context)
    with pytest.raises(OptionError, match="show: expected one of all, right, wrong, broken, got 'odd'"):
        search.find("odd")
    with pytest.raises(DataError, match=r"sample: expected 0\.\.40, got 41"):
        search.find(start=41)
    with pytest.raises(OptionError, match="steps: expected at most 5, got 6"):
        search.find("broken", choice=AttackChoice(steps=6), limits=Limits(steps=5))
    with pytest.raises(OptionError, match="attack: expected one of fgsm"):
        search.find("broken", choice=AttackChoice(attack="standard"))
