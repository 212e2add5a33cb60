from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from assay.data.dataset import ImageDataset
from assay.data.selection import (
    choose_samples,
    evenly_spaced,
    fair_sample,
    interleave,
    is_grouped,
    is_ordered,
    is_skewed,
)
from assay.errors import OptionError

labels_of = st.lists(st.integers(0, 5), min_size=1, max_size=60).map(np.array)


@given(labels_of)
def test_interleave_is_a_permutation_that_keeps_each_class_in_order(labels: np.ndarray) -> None:
    order = interleave(labels)
    assert sorted(order.tolist()) == list(range(len(labels)))
    for label in set(labels.tolist()):
        assert (np.diff(order[labels[order] == label]) > 0).all()


@given(labels_of, st.data())
def test_every_beginning_of_interleave_has_the_proportions_of_the_whole(
    labels: np.ndarray, data: st.DataObject
) -> None:
    m = data.draw(st.integers(1, len(labels)))
    shares = np.bincount(labels, minlength=6) / len(labels)
    taken = np.bincount(labels[interleave(labels)[:m]], minlength=6)
    assert np.abs(taken - m * shares).max() <= len(set(labels.tolist()))


def test_interleave_takes_turns_when_classes_are_of_equal_size() -> None:
    assert interleave(np.array([0, 0, 0, 1, 1, 1])).tolist() == [0, 3, 1, 4, 2, 5]


def test_interleave_puts_the_few_evenly_among_the_many() -> None:
    # Class 0 at 1/12, 3/12, … 11/12; class 1 at 1/4 and 3/4, after class 0 where they tie.
    assert interleave(np.array([0, 0, 0, 0, 0, 0, 1, 1])).tolist() == [0, 1, 6, 2, 3, 4, 7, 5]


def test_limit_takes_the_first_samples_of_a_mixed_source() -> None:
    assert choose_samples(np.array([1, 0, 1, 1, 0]), limit=3).tolist() == [0, 1, 2]


def test_limit_spreads_over_a_source_laid_out_class_by_class() -> None:
    labels = np.repeat([2, 0, 1], 10)
    chosen = choose_samples(labels, limit=6)
    assert np.bincount(labels[chosen]).tolist() == [2, 2, 2]


def test_without_a_limit_the_order_of_the_file_stays() -> None:
    assert choose_samples(np.repeat([0, 1], 3), limit=None).tolist() == list(range(6))
    assert choose_samples(np.repeat([0, 1], 3), limit=99).tolist() == list(range(6))


def test_what_counts_as_laid_out_class_by_class() -> None:
    assert is_grouped(np.array([0, 0, 1]))
    assert not is_grouped(np.array([0, 1, 0]))
    assert not is_grouped(np.array([0, 1, 2]))
    assert not is_grouped(np.array([4, 4, 4]))


def test_a_set_that_is_nearly_ordered_is_skewed_and_a_mixed_one_is_not() -> None:
    nearly = np.repeat([0, 1], 50)
    nearly[[0, 99]] = nearly[[99, 0]]  # no longer one unbroken run a class
    assert not is_grouped(nearly)
    assert is_skewed(nearly, 40)
    assert np.bincount(nearly[choose_samples(nearly, limit=40)]).tolist() == [20, 20]
    assert not is_skewed(nearly, 8)  # eight of one class may be chance; the order of all of them is not
    assert np.bincount(nearly[choose_samples(nearly, limit=8)]).tolist() == [4, 4]
    mixed = np.random.default_rng(0).permutation(nearly)
    assert not is_skewed(mixed, 40)
    assert choose_samples(mixed, limit=40).tolist() == list(range(40))


def test_a_fair_sample_of_an_ordered_set_has_every_class_and_of_a_mixed_set_is_the_first() -> None:
    images = torch.zeros(100, 1, 2, 2, dtype=torch.uint8)
    ordered = ImageDataset(images, torch.arange(100) // 50, ("a", "b"))
    assert fair_sample(ordered, 40).labels.bincount().tolist() == [20, 20]
    mixed = ImageDataset(images, torch.arange(100) % 2, ("a", "b"))
    assert fair_sample(mixed, 40).ids.tolist() == list(range(40))
    assert fair_sample(mixed, 500) is mixed


def test_evenly_spaced_samples_reach_from_the_first_to_the_last() -> None:
    data = ImageDataset(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.arange(9) % 2, ("a", "b"))
    assert evenly_spaced(data, 5).ids.tolist() == [0, 2, 4, 6, 8]
    assert evenly_spaced(data, 9) is data


def test_an_order_that_depends_on_the_class_is_told_from_a_mixed_one() -> None:
    draws = np.random.default_rng(0)
    for shares in ([0.5, 0.5], [0.9, 0.1], [0.98, 0.01, 0.01], [0.1] * 10):
        labels = draws.choice(len(shares), 2000, p=shares)
        assert not any(is_ordered(draws.permutation(labels)) for _ in range(200))
        nearly = np.sort(labels)
        nearly[draws.integers(0, 2000, 20)] = 0  # no longer one unbroken run a class
        assert is_ordered(nearly)
    assert not is_ordered(np.array([3, 3, 3, 3]))
    assert not is_ordered(np.arange(50) % 10)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 10, 25])
def test_a_sample_of_a_sorted_set_has_as_many_classes_as_it_can(n: int) -> None:
    data = ImageDataset(torch.zeros(200, 1, 2, 2, dtype=torch.uint8), torch.arange(200) // 20, tuple("abcdefghij"))
    counts = fair_sample(data, n).labels.bincount(minlength=10)
    assert (len(fair_sample(data, n)), int((counts > 0).sum())) == (n, min(n, 10))
    assert counts.max() - counts.min() <= 1
    spaced = evenly_spaced(data, n)
    assert (len(spaced), len(spaced.labels.unique())) == (n, min(n, 10))


@pytest.mark.parametrize("n", [0, -1])
def test_no_sample_at_all_is_refused(n: int) -> None:
    data = ImageDataset(torch.zeros(9, 1, 2, 2, dtype=torch.uint8), torch.arange(9) % 2, ("a", "b"))
    for choose in (fair_sample, evenly_spaced):
        with pytest.raises(OptionError, match=f"^samples: expected at least 1, got {n}$"):
            choose(data, n)


def test_evenly_spaced_samples_are_fair_where_the_classes_come_round_in_step() -> None:
    data = ImageDataset(torch.zeros(991, 1, 2, 2, dtype=torch.uint8), torch.arange(991) % 10, tuple("abcdefghij"))
    spaced = evenly_spaced(data, 100)  # every tenth sample would be of class a
    assert spaced.labels.bincount(minlength=10).tolist() == [10] * 10
    assert spaced.ids.tolist() == sorted(spaced.ids.tolist())
