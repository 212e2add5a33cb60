from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from assay.data.labels import assign_classes, derive_classes, number_labels, read_labels
from assay.errors import DataError


def numbered(values: object, classes: tuple[str, ...] | None = None) -> tuple[list[int], tuple[str, ...]]:
    labels = read_labels(values, where="labels")
    names = classes or derive_classes(labels, where="labels")
    return number_labels(labels, classes=names, where="labels").tolist(), names


@pytest.mark.parametrize(
    ("values", "numbers", "classes"),
    [
        (np.array([2, 0, 1], np.uint8), [2, 0, 1], ("0", "1", "2")),
        (np.array([2.0, 0.0], np.float32), [2, 0], ("0", "1", "2")),
        (["dog", "cat", "dog"], [1, 0, 1], ("cat", "dog")),
        (np.array([b"dog", b"cat"]), [1, 0], ("cat", "dog")),
        (["10", "2"], [10, 2], tuple(str(i) for i in range(11))),
        ([True, False], [1, 0], ("false", "true")),
        (["1", "b"], [0, 1], ("1", "b")),
        ([1, 2, 10], [0, 1, 9], tuple(str(i) for i in range(1, 11))),
        (["010", "002", "001"], [2, 1, 0], ("001", "002", "010")),
        (["01", "2", "10"], [0, 1, 2], ("01", "2", "10")),
    ],
    ids=[
        "bytes",
        "whole floats",
        "text",
        "byte text",
        "numbers as text",
        "truth values",
        "mixed text",
        "from 1",
        "zeros in front",
        "some zeros in front",
    ],
)
def test_numbers_labels_of_every_kind(values: object, numbers: list[int], classes: tuple[str, ...]) -> None:
    assert numbered(values) == (numbers, classes)


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        ([0, 1, 12], tuple("0123456789"), r"labels\[2\]: expected 0..9, got 12"),
        ([0, 1, 10], tuple("0123456789"), r"labels\[2\]: expected 0..9, got 10"),
        ([0, -1, 1], None, r"labels\[1\]: expected 0..1, got -1 \(not labelled"),
        ([-1, -1], tuple("ab"), r"labels\[0\]: expected 0..1, got -1"),
        ([0, -7], tuple("ab"), r"labels\[1\]: expected 0..1, got -7$"),
        (["cat", "cow"], ("cat", "dog"), r"labels\[1\]: expected one of cat, dog, got 'cow'"),
        (["cat", ""], None, r"labels\[1\]: expected a label, got none"),
        (np.array(["cat", None], object), None, r"labels\[1\]: expected a label, got none"),
        (np.array(["cat", 3], object), None, r"labels\[1\]: expected a class number or a class name, got int 3"),
        ([0.0, 1.5], None, r"labels\[1\]: expected a class number or a class name, got 1.5"),
        ([0.0, float("nan")], None, r"labels\[1\]: .* got nan"),
        ([float("inf"), 0.0], None, r"labels\[0\]: .* got inf"),
        ([0, 10**9], None, r"labels\[1\]: expected a class number below 100,000, got 1000000000"),
        (
            np.zeros((2, 3), np.int64),
            None,
            r"labels: expected one label for each image, got an array of shape \(2, 3\)",
        ),
        (np.array([1j, 2j]), None, "labels: expected class numbers or class names, got values of type complex128"),
        ([3, 3, 3], None, "labels: expected labels of at least two classes, got only 3$"),
        (["a", "a"], None, "labels: expected labels of at least two classes, got only 'a'"),
    ],
)
def test_names_the_first_label_that_is_wrong(values: object, classes: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        numbered(values, classes)


@given(st.lists(st.text(min_size=1), min_size=2))
def test_text_labels_come_back_from_their_numbers(texts: list[str]) -> None:
    assume(len(set(texts)) > 1 and not all(re.fullmatch("[+-]?[0-9]+", text) for text in texts))
    numbers, classes = numbered(texts)
    assert [classes[number] for number in numbers] == texts


def test_labels_that_count_from_1_are_told_and_a_class_without_samples_is_named() -> None:
    from_1 = assign_classes(np.arange(1, 11), names=None, where="y")
    assert (from_1.numbers.tolist(), from_1.classes) == (list(range(10)), tuple(str(i) for i in range(1, 11)))
    assert from_1.notes == ("y: the labels count from 1, so class 1 is the first of 10",)
    named = assign_classes(np.array([1, 2, 3]), names=("a", "b", "c"), where="y")
    assert (named.numbers.tolist(), len(named.notes)) == ([0, 1, 2], 1)
    gap = assign_classes(np.array([0, 2, 3]), names=None, where="y")
    assert (gap.numbers.tolist(), gap.notes) == ([0, 2, 3], ("y: no sample of 1 of the 4 classes: 1",))
    declared = assign_classes(np.array([1, 2]), names=("1", "2", "3"), where="y")  # may be the places of "2" and "3"
    assert (declared.numbers.tolist(), declared.notes) == ([1, 2], ("y: no sample of 1 of the 3 classes: 1",))


def test_classes_are_those_of_all_splits_together() -> None:
    test = assign_classes(np.array([2, 1]), names=None, where="y", others=[np.array([0, 3])])
    assert (test.numbers.tolist(), test.classes) == ([2, 1], ("0", "1", "2", "3"))
    from_1 = assign_classes(np.array([1, 2]), names=None, where="y", others=[np.array([1, 2, 3])])
    assert (from_1.numbers.tolist(), from_1.classes) == ([0, 1], ("1", "2", "3"))
    texts = assign_classes(np.array(["c"], object), names=None, where="y", others=[np.array(["a", "b"], object)])
    assert (texts.numbers.tolist(), texts.classes) == ([2], ("a", "b", "c"))


def test_numbers_as_text_are_matched_with_names_that_are_numbers() -> None:
    names = ("0", "1", "10", "2")  # as folders sort
    stored = read_labels(["10", "2"], where="y", names=names)
    assert assign_classes(stored, names=names, where="y").numbers.tolist() == [2, 3]


def test_a_text_that_is_the_name_of_two_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"y\[1\]: expected one of .*, got 'crane', the name of several"):
        number_labels(np.array(["cat", "crane"], object), classes=("cat", "crane", "crane"), where="y")
