from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.errors import OptionError
from assay.records.preparation import Preparation

sides = st.integers(1, 2000)
pairs = st.tuples(sides, sides)
numbers = st.floats(0.01, 300, allow_nan=False)
resizes = st.one_of(
    st.just({}),
    st.builds(lambda side: {"resize": side}, sides),
    st.builds(lambda pair, fit: {"resize": pair, "fit": fit}, pairs, st.sampled_from(["squash", "border", "cover"])),
)
normalizations = st.one_of(
    st.just({}),
    st.builds(lambda m, s: {"mean": m, "std": s}, st.tuples(*[numbers] * 3), st.tuples(*[numbers] * 3)),
)
preparations = st.builds(
    lambda resize, normalization, **rest: Preparation(**resize, **normalization, **rest),
    resizes,
    normalizations,
    crop=st.none() | pairs,
    fill=st.none() | st.tuples(*[st.integers(0, 255)] * 3),
    rounding=st.sampled_from(["torchvision", "transformers", "assay"]),
    channels=st.sampled_from(["rgb", "bgr"]),
    scale=st.sampled_from([1, 255]),
    source=st.just("--prepare"),
)


@given(preparations)
def test_what_is_spelled_is_parsed_to_the_same(preparation: Preparation) -> None:
    spelled = preparation.spelled
    if not spelled:
        return
    again = Preparation.parse(spelled)
    assert {**again.model_dump(), "mean": 0, "std": 0} == {**preparation.model_dump(), "mean": 0, "std": 0}
    for ours, theirs in zip((again.mean, again.std), (preparation.mean, preparation.std), strict=True):
        assert ours == theirs or set(ours) == set(theirs)  # equal numbers are written once
    assert Preparation.model_validate_json(preparation.model_dump_json()) == preparation


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("resize=256:bicubic,crop=224", "resize=256:bicubic,crop=224"),
        (" resize=256 : BICUBIC , crop=224x192 ", "resize=256:bicubic,crop=224x192"),
        ("resize=256x128", "squash=256x128"),
        ("squash=224", "squash=224"),
        ("border=64:lanczos,crop=64,fill=1,2,3", "border=64:lanczos,crop=64,fill=1,2,3"),
        ("mean=0.5,0.4,0.3,std=0.2,0.2,0.2", "mean=0.5,0.4,0.3,std=0.2"),
        ("mean=103.9,116.8,123.7,std=1,bgr,scale=255", "mean=103.9,116.8,123.7,std=1,bgr,scale=255"),
    ],
)
def test_the_grammar(text: str, spelled: str) -> None:
    assert Preparation.parse(text).spelled == spelled


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "got ''"),
        ("resize", "got 'resize'"),
        ("resize=abc", "got 'resize=abc'"),
        ("resize=256:", "got 'resize=256:'"),
        ("resize=0", "resize of 'resize=0'"),
        ("resize=256:cubic", "interpolation of 'resize=256:cubic'"),
        ("crop=224:bicubic", "got 'crop=224:bicubic'"),
        ("crop=-3", "got 'crop=-3'"),
        ("resize=3,squash=4", "expected fit once"),
        ("crop=3,crop=4", "expected crop once"),
        ("mean=0.5", "expected mean and std together, or neither"),
        ("mean=0.5,std=0", "std of 'mean=0.5,std=0'"),
        ("mean=a,std=1", "got 'mean=a'"),
        ("mean=nan,std=1", "got 'mean=nan'"),
        ("mean=1e999,std=1", "expected a finite mean and std"),
        ("scale=0", "scale of 'scale=0'"),
        ("bgr=1", "got 'bgr=1'"),
        ("rgb", "got 'rgb'"),
        ("crop=3,rounding=mine", "rounding of"),
        ("fill=300,crop=4", "fill of"),
        ("resize=256,,crop=3", "got"),
    ],
)
def test_what_the_grammar_refuses(text: str, got: str) -> None:
    with pytest.raises(OptionError) as caught:
        Preparation.parse(text)
    message = str(caught.value)
    assert message.startswith("--prepare: expected ")
    assert got in message
    assert "\n" not in message


def test_what_is_not_stated_is_the_models_own() -> None:
    own = Preparation(resize=256, crop=(224, 224), interpolation="bicubic", mean=(0.4,), std=(0.3,), source="timm")
    sized = Preparation.parse("squash=64").over(own)
    assert (sized.resize, sized.crop, sized.interpolation, sized.mean) == ((64, 64), None, "bilinear", (0.4,))
    assert sized.source == "--prepare and timm"
    scaled = Preparation.parse("mean=0.5,std=0.5").over(own)
    assert (scaled.resize, scaled.crop, scaled.interpolation, scaled.mean) == (256, (224, 224), "bicubic", (0.5,))
    both = Preparation.parse("crop=8,mean=0.5,std=0.5")
    assert both.over(own) == both
    assert Preparation.parse("bgr").over(own).normalization == ((0.4,), (0.3,))
    assert Preparation.parse("bgr").over(own).channels == "bgr"


def test_numbers_of_255_become_those_of_pixels_up_to_1() -> None:
    caffe = Preparation.parse("mean=127.5,std=51,scale=255")
    assert caffe.normalization == ((0.5,), (0.2,))
    assert Preparation.parse("scale=255").normalization == ((0.0,), (1 / 255,))
    assert Preparation.parse("bgr").normalization is None
