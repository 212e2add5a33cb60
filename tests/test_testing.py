"""Assertions that pass only on evidence, and say what is missing when they fail."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.records.accuracy import wilson_interval
from assay.testing import assert_accurate, assert_robust, images_needed


class Brightness(nn.Module):
    """Class 1 where the mean is above one half: an L∞ change breaks an image exactly when it exceeds its margin."""

    def forward(self, images: Tensor) -> Tensor:
        margin = 50 * (images.mean(dim=(1, 2, 3)) - 0.5)
        return torch.stack([-margin, margin], dim=1)


def bright(n: int, *, wrong: int = 0, close: int = 0) -> ImageDataset:
    """Images 20 grey levels from the boundary, ``close`` of them only 2, ``wrong`` of them with the other label."""
    labels = torch.arange(n) % 2
    level = torch.where(labels == 1, 148, 108)
    level[:close] = torch.where(labels[:close] == 1, 129, 126)
    images = level[:, None, None, None].expand(n, 1, 4, 4).to(torch.uint8)
    labels = torch.cat([1 - labels[:wrong], labels[wrong:]])
    return ImageDataset(images, labels, ("dark", "bright"), name="levels")


def test_what_holds_passes_and_is_returned() -> None:
    assert assert_accurate(Brightness(), bright(200, wrong=4), at_least=0.9).correct == 196
    record = assert_robust(Brightness(), bright(200, close=10), epsilon=8 / 255, at_least=0.88, attack="fgsm")
    assert record.correct == 190


def test_what_is_refuted_says_so() -> None:
    with pytest.raises(AssertionError) as failure:
        assert_robust(Brightness(), bright(200, close=100), epsilon=8 / 255, at_least=0.9, attack="fgsm")
    assert str(failure.value) == (
        "accuracy on levels after fgsm within L∞ 8/255: 50.0 % (95 % interval 43.1 % to 56.9 %, n = 200); "
        "expected at least 90.0 %: refuted"
    )


def test_too_few_images_do_not_pass_and_say_how_many_would_do() -> None:
    with pytest.raises(AssertionError) as failure:
        assert_accurate(Brightness(), bright(20), at_least=0.95)
    assert str(failure.value) == (
        "accuracy on levels: 100.0 % (95 % interval 83.9 % to 100.0 %, n = 20); expected at least 95.0 %: "
        "20 images are too few to tell, about 73 would be enough"
    )
    with pytest.raises(AssertionError) as failure:
        assert_accurate(Brightness(), bright(20, wrong=2), at_least=0.95)
    assert str(failure.value) == (
        "accuracy on levels: 90.0 % (95 % interval 69.9 % to 97.2 %, n = 20); expected at least 95.0 %: "
        "20 images are too few to tell, more would not help at this accuracy"
    )


@given(st.integers(1, 99), st.integers(1, 99))
def test_the_number_of_images_asked_for_is_the_least(accuracy: int, at_least: int) -> None:
    needed = images_needed(accuracy / 100, at_least=at_least / 100)
    if accuracy <= at_least:
        assert needed is None
        return
    assert needed is not None
    lower_ends = [wilson_interval(int(accuracy / 100 * n), n)[0] for n in (needed - 1, needed) if n]
    assert lower_ends[-1] >= at_least / 100
    if needed > 1:
        assert lower_ends[0] < at_least / 100


@pytest.mark.parametrize("at_least", [0.0, 1.0, 95, float("nan")])
def test_a_share_is_asked_for(at_least: float) -> None:
    with pytest.raises(OptionError) as refused:
        assert_accurate(Brightness(), bright(4), at_least=at_least)
    assert str(refused.value) == f"at_least: expected a share between 0 and 1, got {at_least}"
