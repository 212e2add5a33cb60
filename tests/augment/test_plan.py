"""Whole programs of operations: fused and one by one, compiled and in plain torch, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.augment.operations import CODES, OPERATIONS, find_operation
from assay.augment.plan import AugmentPlan, apply_operation, apply_plan
from assay.augment.policies import Policy, Step
from assay.augment.published import RandAugment
from assay.errors import DataError, OptionError
from oracles import torch_operations

RANGES = {
    "ShearX": (-1.5, 1.5),
    "ShearY": (-1.5, 1.5),
    "TranslateX": (-40, 40),
    "TranslateY": (-40, 40),
    "Rotate": (-200, 200),
    "Hue": (-0.5, 0.5),
    "Posterize": (0, 8),
    "Solarize": (0, 256),
    "Cutout": (0, 40),
    "Crop": (0, 9),
}


def random_plan(names, *, batch, seed):
    steps: Policy = Step("Identity")
    for name in names:
        operation = find_operation(name)
        low, high = RANGES.get(name, (0, 4)) if operation.takes_magnitude else (0.0, None)
        steps = steps + Step(name, low, high, p=0.8)
    return steps.plan(torch.arange(batch), seed=seed, epoch=0, height=13, width=17)


@settings(max_examples=120, deadline=None)
@given(
    names=st.lists(st.sampled_from([operation.name for operation in OPERATIONS]), min_size=1, max_size=6),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 10**6),
    bilinear=st.booleans(),
)
def test_fused_equals_one_after_the_other_equals_torch(names, height, width, channels, seed, bilinear):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (5, channels, height, width), dtype=torch.uint8, generator=generator)
    plan = random_plan(names, batch=5, seed=seed)
    style = {"fill": 37, "interpolation": "bilinear" if bilinear else "nearest"}
    fused = apply_plan(images, plan, **style)
    stepwise = images
    for step in range(plan.codes.shape[1]):
        part = slice(step, step + 1)
        single = AugmentPlan(plan.codes[:, part], plan.magnitudes[:, part], plan.places[:, part])
        stepwise = apply_plan(stepwise, single, **style)
    assert torch.equal(fused, stepwise)
    plain = torch_operations.apply_plan(images, plan, **style)
    # Between two pixels a value may lie halfway, and the two round sums of another order.
    assert int((fused.int() - plain.int()).abs().max()) <= bilinear


def test_the_input_is_left_alone_and_any_memory_layout_will_do():
    images = torch.randint(0, 256, (6, 3, 8, 9), dtype=torch.uint8)
    before, plan = images.clone(), RandAugment().plan(torch.arange(6), seed=0, epoch=0, height=8, width=9)
    result = apply_plan(images, plan)
    assert torch.equal(images, before)
    assert torch.equal(apply_plan(images.contiguous(memory_format=torch.channels_last), plan), result)
    wide = torch.randint(0, 256, (6, 3, 8, 18), dtype=torch.uint8)
    wide[..., ::2] = images
    assert torch.equal(apply_plan(wide[..., ::2], plan), result)


def test_nothing_to_do_gives_a_copy_and_an_empty_batch_an_empty_one():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    same = apply_operation(images, "Identity")
    assert torch.equal(same, images)
    assert same.data_ptr() != images.data_ptr()
    assert apply_operation(images[:0], "Rotate", 20).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("apply", [apply_operation, torch_operations.apply_operation], ids=["kernels", "torch"])
@pytest.mark.parametrize(
    ("name", "magnitude", "expected"),
    [
        ("Posterize", 0, torch.zeros_like),
        ("Posterize", 8, lambda x: x),
        ("Solarize", 0, lambda x: 255 - x),
        ("Solarize", 256, lambda x: x),
        ("Brightness", 0, torch.zeros_like),
        ("Brightness", 1, lambda x: x),
        ("Color", 1, lambda x: x),
        ("Contrast", 1, lambda x: x),
        ("Sharpness", 1, lambda x: x),
        ("TranslateX", 1000, lambda x: torch.full_like(x, 9)),
        ("TranslateY", -1000, lambda x: torch.full_like(x, 9)),
        ("Rotate", 360, lambda x: x),
        ("Rotate", 180, lambda x: x.flip(2, 3)),
        ("Cutout", 1000, lambda x: torch.full_like(x, 9)),
        ("Cutout", 0, lambda x: x),
        ("ShearX", 0, lambda x: x),
        ("Hue", 0.0, None),
    ],
)
def test_extremes(name, magnitude, expected, apply):
    images = torch.randint(0, 256, (3, 3, 7, 5), dtype=torch.uint8)
    result = apply(images, name, magnitude, fill=9)
    if expected is not None:
        assert torch.equal(result, expected(images))
    assert result.shape == images.shape


@pytest.mark.parametrize("apply", [apply_operation, torch_operations.apply_operation], ids=["kernels", "torch"])
def test_cutout_blanks_a_square_about_its_centre(apply):
    images = torch.full((1, 1, 9, 9), 200, dtype=torch.uint8)
    result = apply(images, "Cutout", 4, place=(1, 7))[0, 0]
    expected = torch.full((9, 9), 200, dtype=torch.uint8)
    expected[0:3, 5:9] = 0
    assert torch.equal(result, expected)


IMAGES = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: apply_operation(IMAGES.float(), "Flip"), DataError, r"images: expected uint8 .*got torch.float32"),
        (
            lambda: apply_operation(torch.zeros(2, 32, 32, 3, dtype=torch.uint8), "Flip"),
            DataError,
            r"is it \(B, H, W, C\)\?, got torch.uint8 \(2, 32, 32, 3\)",
        ),
        (lambda: apply_operation(IMAGES[0], "Flip"), DataError, r"got torch.uint8 \(3, 4, 5\)"),
        (lambda: apply_operation(IMAGES[..., :0], "Flip"), DataError, "at least one pixel"),
        (lambda: apply_operation(IMAGES.numpy(), "Flip"), DataError, "got ndarray"),
        (lambda: apply_operation(IMAGES[:, :2], "Color", 1.0), DataError, "1 or 3 channels for Color, got 2 channels"),
        (lambda: apply_operation(IMAGES, "Swirl"), OptionError, "operation: expected one of Identity, .*got 'Swirl'"),
        (
            lambda: apply_operation(IMAGES, "Posterize", 9),
            OptionError,
            r"magnitude of Posterize: expected 0..8 \(bits\), got 9",
        ),
        (
            lambda: apply_operation(IMAGES, "Hue", torch.tensor([0.1, 0.7])),
            OptionError,
            r"magnitude of Hue: expected -0.5..0.5 \(turn\), got 0.7",
        ),
        (lambda: apply_operation(IMAGES, "Rotate", float("nan")), OptionError, "magnitude of Rotate: .*got nan"),
        (lambda: apply_operation(IMAGES, "Rotate", torch.ones(3)), OptionError, r"magnitude: .*tensor \(2,\), got"),
        (lambda: apply_operation(IMAGES, "Rotate", "20"), OptionError, r"magnitude: expected a number, .*got '20'"),
        (lambda: apply_operation(IMAGES, "Flip", fill=0.5), OptionError, "fill: expected 0..255, .*got 0.5"),
        (lambda: RandAugment()(IMAGES, [0, 1], seed=0, epoch=0), DataError, r"ids: expected int64 \(2,\), got list"),
        (lambda: apply_operation(IMAGES, "Flip", fill=256), OptionError, "fill: expected 0..255"),
        (lambda: apply_operation(IMAGES, "Flip", fill=(1, 2)), OptionError, "fill: expected 0..255, one number or 3"),
        (
            lambda: apply_operation(IMAGES, "Flip", interpolation="cubic"),
            OptionError,
            "interpolation: expected nearest or bilinear, got 'cubic'",
        ),
        (
            lambda: apply_plan(IMAGES, RandAugment().plan(torch.arange(3), seed=0, epoch=0, height=4, width=5)),
            DataError,
            "plan: expected one row for each of 2 images, got 3 rows",
        ),
    ],
)
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


AFTER_A_TABLE = {"Brightness": 1.4, "Contrast": 0.6, "Posterize": 3, "Solarize": 90, "Invert": 0, "Color": 0.4}


@pytest.mark.parametrize("second", [*AFTER_A_TABLE, "Equalize", "AutoContrast"])
@pytest.mark.parametrize("first", ["Equalize", "AutoContrast"])
@pytest.mark.parametrize("size", [(1, 1), (33, 31), (300, 260)], ids=str)
def test_what_acts_on_a_waiting_table_sees_the_pixels_it_stands_for(first, second, size):
    generator = torch.Generator().manual_seed(1)
    rough = torch.randint(0, 256, (4, 3, *size), generator=generator).double()
    images = (60 + rough**2 / 500).byte()  # uneven histograms that touch neither end
    codes = torch.tensor([[CODES[first], CODES[second]]] * 4, dtype=torch.uint8)
    magnitudes = torch.tensor([[0.0, AFTER_A_TABLE.get(second, 0.0)]] * 4, dtype=torch.float64)
    plan = AugmentPlan(codes, magnitudes, torch.zeros(4, 2, 2, dtype=torch.int32))
    one_by_one = apply_operation(apply_operation(images, first), second, AFTER_A_TABLE.get(second, 0.0))
    assert torch.equal(apply_plan(images, plan), one_by_one)
    assert torch.equal(torch_operations.apply_plan(images, plan), one_by_one)


def test_two_and_four_channels_may_move():
    images = torch.randint(0, 256, (2, 4, 6, 6), dtype=torch.uint8)
    assert torch.equal(apply_operation(images, "Flip"), images.flip(3))
    assert torch.equal(apply_operation(images[:, :2], "Invert"), 255 - images[:, :2])
    assert CODES["Flip"] > 0
