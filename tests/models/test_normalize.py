from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from assay.errors import OptionError
from assay.models.wrappers import PRESETS, Normalization, Normalize, Normalized, choose_normalization


def test_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel() -> None:
    images = torch.rand(2, 3, 4, 5)
    out = Normalize(PRESETS["imagenet"])(images)
    for c, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        torch.testing.assert_close(out[:, c], (images[:, c] - mean) / std)


def test_none_leaves_pixels_exactly_as_they_are() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(Normalize(choose_normalization("none", channels=3))(images), images)


def test_numbers_are_saved_but_never_trained() -> None:
    layer = Normalize(PRESETS["cifar10"])
    assert set(layer.state_dict()) == {"mean", "std"}
    assert list(layer.parameters()) == []


def test_a_grey_image_is_shown_to_every_channel() -> None:
    out = Normalize(Normalization((0.0, 0.5, 1.0), (1.0, 1.0, 2.0)))(torch.ones(1, 1, 2, 2))
    assert out[0, :, 0, 0].tolist() == [1.0, 0.5, 0.0]


def test_follows_the_model_to_half_precision() -> None:
    layer = Normalize(PRESETS["imagenet"]).to(torch.bfloat16)
    assert layer(torch.rand(1, 3, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_half_floats_takes_pixels_of_both_kinds(dtype: torch.dtype, whole: bool, channels: int) -> None:
    inner = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    expected = Normalized(Normalize(PRESETS["imagenet"]), inner)
    model = Normalized(Normalize(PRESETS["imagenet"]), copy.deepcopy(inner).to(dtype))
    model = model.to(dtype) if whole else model
    images = torch.rand(2, channels, 5, 5)
    with torch.no_grad():
        for pixels in (images, images.to(dtype)):
            torch.testing.assert_close(model(pixels).float(), expected(images), atol=0.1, rtol=0.1)
            assert model(pixels).dtype == dtype


@pytest.mark.parametrize(
    ("wanted", "channels", "expected"),
    [
        (None, 3, PRESETS["imagenet"]),
        (None, 1, Normalization((0.5,), (0.5,))),
        (None, 4, Normalization((0.5,) * 4, (0.5,) * 4)),
        ("cifar10", 3, PRESETS["cifar10"]),
        ("none", 2, Normalization((0.0, 0.0), (1.0, 1.0))),
        ("0.5/0.25", 3, Normalization((0.5,) * 3, (0.25,) * 3)),
        ("0.1,0.2,0.3/1,2,3", 3, Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))),
        (([0.1, 0.2], [0.3, 0.4]), 2, Normalization((0.1, 0.2), (0.3, 0.4))),
    ],
)
def test_spellings(wanted: object, channels: int, expected: Normalization) -> None:
    assert choose_normalization(wanted, channels=channels) == expected  # type: ignore[arg-type]


def test_imagenet_in_grey_is_its_mean_over_channels() -> None:
    mean, std = choose_normalization("imagenet", channels=1)
    assert mean == pytest.approx(((0.485 + 0.456 + 0.406) / 3,))
    assert std == pytest.approx(((0.229 + 0.224 + 0.225) / 3,))


@pytest.mark.parametrize(
    ("wanted", "fragment"),
    [
        ("imagnet", "expected imagenet, cifar10, none, or numbers m1,m2,m3/s1,s2,s3, got 'imagnet'"),
        ("0.5,0.5,0.5", "got '0.5,0.5,0.5'"),
        ("1/2/3", "got '1/2/3'"),
        ("0.5,0.5/1", "mean: expected 1 or 3 numbers, one a channel, got 2 numbers"),
        ("0/0", "std: expected numbers above 0"),
        ("0/-1", "std: expected numbers above 0"),
        ("nan/1", "mean: expected finite numbers"),
        ("0/inf", "std: expected finite numbers"),
    ],
)
def test_wrong_spellings_say_what_was_expected(wanted: str, fragment: str) -> None:
    with pytest.raises(OptionError) as caught:
        choose_normalization(wanted, channels=3)
    assert fragment in str(caught.value)


@given(st.text(max_size=20))
def test_any_text_is_understood_or_refused(text: str) -> None:
    try:
        found = choose_normalization(text, channels=3)
    except OptionError as error:
        assert str(error).startswith("normalization")
    else:
        assert len(found.mean) == len(found.std) == 3


def test_normalized_puts_the_layer_before_the_model() -> None:
    normalize, inner = Normalize(PRESETS["imagenet"]), torch.nn.Conv2d(3, 2, 1)
    images = torch.rand(1, 3, 2, 2)
    torch.testing.assert_close(Normalized(normalize, inner)(images), inner(normalize(images)))


def test_one_deviation_beside_three_means_leaves_the_means_as_they_are() -> None:
    chosen = choose_normalization("0.1,0.2,0.3/0.5", channels=3)
    assert chosen == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
