from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from assay.data.selection import choose_samples, interleave, is_grouped

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
