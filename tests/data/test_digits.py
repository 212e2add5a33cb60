from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets

from assay.data.sources import digits, load_dataset
from assay.errors import DataError


def test_the_two_splits_are_all_digits_once_each() -> None:
    train, test = load_dataset("digits", split="train"), load_dataset("digits")
    assert (len(train), len(test)) == (1438, 359)
    assert sorted(torch.cat([train.ids, test.ids]).tolist()) == list(range(1797))
    shares = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert (shares - 0.2).abs().max() < 0.005
    assert train.classes == tuple("0123456789")


def test_pictures_are_scikit_learns_enlarged_four_times() -> None:
    test = load_dataset("digits")
    assert test.shape == (1, 32, 32)
    source = datasets.load_digits()
    assert test.labels.tolist() == source.target[test.ids].tolist()
    # Twin: linear interpolation along one axis, then along the other; the pixels' centres are what is sampled.
    centres = (np.arange(32) + 0.5) / 4 - 0.5

    def enlarge(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(centres, np.arange(8), row) for row in rows])

    for place in (0, 100, 358):
        small = source.images[test.ids[place]]
        twin = enlarge(enlarge(small).T).T * (255 / 16)
        assert np.abs(test.images[place, 0].numpy() - twin).max() <= 0.5 + 1e-9


def test_a_version_of_scikit_learn_that_keeps_them_elsewhere_is_asked_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    read = load_dataset("digits", split="train")
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    again = load_dataset("digits", split="train")
    assert torch.equal(read.images, again.images)
    assert torch.equal(read.labels, again.labels)


def test_the_split_never_changes() -> None:
    assert load_dataset("digits").ids[:8].tolist() == [2, 8, 13, 35, 37, 38, 43, 54]
    assert load_dataset("digits", limit=5).ids.tolist() == load_dataset("digits").ids[:5].tolist()


def test_there_is_no_validation_split() -> None:
    with pytest.raises(DataError, match="digits: expected a 'validation' split, got only test and train"):
        load_dataset("digits", split="val")
