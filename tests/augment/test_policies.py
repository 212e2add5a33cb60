"""Policies: what they draw depends on the sample alone, in the proportions they promise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from assay.augment.language import parse_policy
from assay.augment.operations import CODES, OPERATIONS
from assay.augment.plan import apply_operation
from assay.augment.policies import Step, choose, crop, cutout, flip, flip_crop
from assay.augment.published import AutoAugment, RandAugment, TrivialAugmentWide
from assay.errors import DataError, OptionError

POLICIES = {
    "randaugment": RandAugment(),
    "trivialaugment": TrivialAugmentWide(),
    "autoaugment": AutoAugment("svhn"),
    "flip_crop": flip_crop(),
    "everything": crop(2) + flip() + choose(2, Step("Rotate", -30, 30), Step("Hue", -0.5, 0.5, 0.5)) + cutout(5, p=0.5),
}
KEY = {"seed": 3, "epoch": 1}


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 64), order_seed=st.integers(0, 1000))
def test_a_sample_gets_the_same_picture_in_any_batch_and_order(name, batch_size, order_seed):
    images = torch.randint(0, 256, (64, 3, 9, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(64) * 7919
    policy = POLICIES[name]
    whole = policy(images, ids, **KEY)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(order_seed))
    parts = [policy(images[part], ids[part], **KEY) for part in order.split(batch_size)]
    assert torch.equal(torch.cat(parts), whole[order])
    assert not torch.equal(policy(images, ids, seed=3, epoch=2), whole)
    assert not torch.equal(policy(images, ids, seed=4, epoch=1), whole)


def test_randaugment_draws_every_operation_and_sign_equally_often():
    plan = RandAugment().plan(torch.arange(28_000), seed=0, epoch=0, height=32, width=32)
    counts = torch.bincount(plan.codes.flatten().long(), minlength=len(OPERATIONS))
    drawn = {operation.name for operation in OPERATIONS if counts[operation.code]}
    assert len(drawn) == 14
    assert "Invert" not in drawn
    assert counts[counts > 0].min() > 3750  # 4000 expected, standard deviation 61
    angles = plan.magnitudes[plan.codes == CODES["Rotate"]]
    assert sorted(angles.unique().tolist()) == pytest.approx([-9.0, 9.0])
    assert abs((angles > 0).double().mean() - 0.5) < 0.03


def test_steps_keep_to_their_range_and_probability():
    plan = Step("Posterize", 4, 6, 0.25).plan(torch.arange(8000), seed=0, epoch=0, height=8, width=8)
    happens = plan.codes[:, 0] > 0
    assert abs(happens.double().mean() - 0.25) < 0.02
    assert plan.magnitudes.unique().tolist() == [4.0, 5.0, 6.0]
    shift = crop(2).plan(torch.arange(8000), seed=0, epoch=0, height=8, width=8).places[:, 0]
    assert shift.amin(dim=0).tolist() == [0, 0]
    assert shift.amax(dim=0).tolist() == [4, 4]


def test_links_of_a_chain_draw_independently():
    plan = (flip() + flip()).plan(torch.arange(4000), seed=0, epoch=0, height=8, width=8)
    first, second = (plan.codes > 0).unbind(dim=1)
    assert abs((first & second).double().mean() - 0.25) < 0.03


def test_choice_takes_one_option_each_time():
    policy = choose(2, Step("Invert"), Step("Flip") + Step("Equalize"))
    plan = policy.plan(torch.arange(4000), seed=0, epoch=0, height=8, width=8)
    steps = [[OPERATIONS[code].name for code in row if code] for row in plan.codes.tolist()]
    assert {tuple(step) for step in steps} == {
        ("Invert", "Invert"),
        ("Invert", "Flip", "Equalize"),
        ("Flip", "Equalize", "Invert"),
        ("Flip", "Equalize", "Flip", "Equalize"),
    }


def test_a_plan_tells_in_words_what_it_does():
    plan = (Step("Rotate", 20) + Step("Equalize")).plan(torch.arange(1), seed=0, epoch=0, height=4, width=4)
    assert plan.describe(0) == "Rotate 20° · Equalize"
    assert Step("Flip", p=0).plan(torch.arange(1), seed=0, epoch=0, height=4, width=4).describe(0) == "unchanged"


def test_text_and_python_give_the_same_policy():
    text = "crop(2) + flip() + choose(2, rotate(-30, 30), hue(-0.5, 0.5, p=0.5)) + cutout(5, p=0.5)"
    images, ids = torch.randint(0, 256, (30, 3, 9, 12), dtype=torch.uint8), torch.arange(30)
    assert torch.equal(parse_policy(text)(images, ids, **KEY), POLICIES["everything"](images, ids, **KEY))
    assert parse_policy("randaugment") == RandAugment()
    assert parse_policy("TrivialAugment()") == TrivialAugmentWide()
    assert parse_policy("autoaugment('imagenet')") == AutoAugment("imagenet")
    assert parse_policy("invert(p=0.25)") == Step("Invert", p=0.25)
    assert parse_policy("rotate(5, p=0.25)") == Step("Rotate", 5, p=0.25)
    assert parse_policy("shear_x(-0.2, 0.2)") == Step("ShearX", -0.2, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("randaugmnt", "policy: expected one of autoaugment, .*, got 'randaugmnt'"),
        ("rotate(", "policy: expected policies joined by"),
        ("rotate()", r"policy: rotate: expected arguments \(low: .*, got missing a required argument: 'low'"),
        ("rotate(1, 2, 3, 4)", "policy: rotate: expected arguments"),
        ("rotate('far')", "policy: rotate: expected"),
        ("rotate(30, -30)", "policy: magnitudes of Rotate: expected low ≤ high, got 30, -30"),
        ("posterize(9)", r"policy: magnitude of Posterize: expected 0..8 \(bits\), got 9"),
        ("flip(p=2)", "policy: p of Flip: expected a probability, 0..1, got 2"),
        ("randaugment(magnitude=31)", "policy: magnitude of randaugment: expected a whole number in 0..30, got 31"),
        ("randaugment(2.5)", "policy: operations of randaugment: expected a whole number of at least 1, got 2.5"),
        ("trivialaugment(bins=1)", "policy: bins: expected a whole number of at least 2, got 1"),
        ("choose(1.5, flip())", "policy: count of choose: expected a whole number of at least 1, got 1.5"),
        ("choose(2)", "policy: choose: expected a count and one policy or more, got 2 of none"),
        ("autoaugment('mnist')", "policy: policy of autoaugment: expected cifar10, imagenet or svhn, got 'mnist'"),
        ("flip() - crop()", "policy: expected policies joined by"),
        ("__import__('os').system('true')", "policy: expected policies joined by"),
        ("choose(0, flip())", "policy: count of choose: expected a whole number of at least 1, got 0"),
        ("crop(__import__)", "policy: expected one of"),
    ],
)
def test_a_wrong_line_is_refused_with_its_place(text, message):
    with pytest.raises(OptionError, match=message):
        parse_policy(text)


def test_ids_must_fit_the_batch():
    with pytest.raises(DataError, match=r"ids: expected int64 \(2,\), got torch.int64 \(3,\)"):
        RandAugment()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.arange(3), **KEY)


def test_one_magnitude_a_sample():
    images = torch.randint(0, 256, (5, 3, 6, 6), dtype=torch.uint8)
    factors = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0])
    together = apply_operation(images, "brightness", factors)
    alone = [apply_operation(images[i : i + 1], "Brightness", float(factors[i])) for i in range(5)]
    assert torch.equal(together, torch.cat(alone))
