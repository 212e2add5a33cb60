"""Records of attacks on data sets."""

from __future__ import annotations

import base64
import io
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from assay.attacks.engine import attack
from assay.attacks.examples import pick_gallery
from assay.attacks.measure import count_correct_after_rounding, crossing, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods.gradient import PGD
from assay.data.dataset import ImageDataset
from assay.errors import DataError, OptionError
from assay.evaluate import predict
from assay.records.attack import EpsilonPoint, RobustAccuracy
from assay.records.samples import read_runs
from assay.runtime import hooked


@pytest.mark.parametrize("name", ["fgsm", "pgd", "signed-steps", "noise"])
def test_records_are_equal_from_one_seed_and_travel_through_json(conv_net, small_set, name):
    first = measure_robust_accuracy(conv_net, small_set, attack=name, epsilon=0.02, seed=4).record
    second = measure_robust_accuracy(conv_net, small_set, attack=name, epsilon=0.02, seed=4).record
    assert first.model_copy(update={"seconds": 0.0}) == second.model_copy(update={"seconds": 0.0})
    assert RobustAccuracy.model_validate_json(first.model_dump_json()) == first
    assert first.attack == name
    assert first.clean_correct == 44
    assert len(first.loss_per_step) == len(first.accuracy_per_step)
    assert first.accuracy_per_step[0] == pytest.approx(44 / 48)


def test_another_seed_starts_elsewhere(conv_net, small_set):
    one, two = (
        measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=2), epsilon=0.02, seed=seed).result
        for seed in (0, 1)
    )
    assert not torch.equal(one.adversarial, two.adversarial)


def test_the_record_counts_what_the_result_holds(conv_net, small_set):
    measured = measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=10), epsilon=0.02)
    record, result = measured.record, measured.result
    assert record.correct == int(result.robust.sum()) == 44 - int(result.broken.sum())
    assert record.accuracy_per_step[-1] == pytest.approx(record.accuracy)
    assert list(record.accuracy_per_step) == sorted(record.accuracy_per_step, reverse=True)
    assert record.loss_per_step[0] == pytest.approx(float(predict(conv_net, small_set).losses.mean()), rel=1e-6)
    assert 0 < record.mean_distance <= 0.02 + 1e-6
    # Broken samples leave: less work than 10 steps of two passes on 44 samples.
    assert record.forward_equivalents < 21 * 44 / 48
    assert record.step_size == pytest.approx(0.005)


def test_known_predictions_spare_the_clean_pass(conv_net, small_set):
    images = small_set.images.float() / 255
    known = predict(conv_net, small_set).logits
    spared = attack(conv_net, images, small_set.labels, attack="fgsm", clean_logits=known)
    full = attack(conv_net, images, small_set.labels, attack="fgsm")
    assert full.counts.forwards - spared.counts.forwards == 48
    assert torch.equal(full.broken, spared.broken)


def test_rounding_to_bytes_by_hand(conv_net, small_set):
    result = measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=5), epsilon=0.4 / 255).result
    with torch.no_grad():
        stored = (result.adversarial * 255).round() / 255
        right = (conv_net(stored).argmax(dim=1) == small_set.labels) & result.clean_correct
    assert count_correct_after_rounding(conv_net, small_set, result) == int(right.sum())
    assert int(right.sum()) == 44  # 0.4 of a grey level rounds away


def test_pictures_on_levels_of_8_bits_are_not_evaluated_again(conv_net, small_set):
    for epsilon, again in ((8 / 255, False), (7.3 / 255, True)):
        result = measure_robust_accuracy(conv_net, small_set, attack="fgsm", epsilon=epsilon).result
        with torch.no_grad():
            stored = (result.adversarial * 255).round() / 255
            right = (conv_net(stored).argmax(dim=1) == small_set.labels) & result.clean_correct
        calls = []
        with hooked(conv_net.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))):  # noqa: B023
            assert count_correct_after_rounding(conv_net, small_set, result) == int(right.sum())
        assert result.broken.any()
        assert bool(calls) is again


def test_the_curve_falls_and_agrees_with_single_attacks(conv_net, small_set):
    epsilons = (0.04, 0.01, 0.02)
    curve = measure_epsilon_curve(conv_net, small_set, epsilons=epsilons, attack=PGD(steps=5))
    assert [point.epsilon for point in curve.points] == [0.0, 0.01, 0.02, 0.04]
    counts = [point.correct for point in curve.points]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 44
    for point in curve.points[1:]:
        single = measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=5), epsilon=point.epsilon).record
        assert point.correct <= single.correct
    assert curve.median_epsilon == crossing(curve.points)


@pytest.mark.parametrize(
    ("correct", "expected"),
    [((8, 6, 2), 0.03), ((8, 5, 1), 0.02), ((4, 2, 1), 0.0), ((9, 8, 7), None), ((9, 9, 1), 0.03)],
)
def test_half_are_broken_where_the_curve_crosses_one_half(correct, expected):
    epsilons = (0.0, 0.02, 0.04) if correct != (8, 6, 2) else (0.0, 0.02, 0.06)
    points = [EpsilonPoint.of(c, 10, epsilon=e) for c, e in zip(correct, epsilons, strict=True)]
    assert crossing(points) == (None if expected is None else pytest.approx(expected))


def test_steps_of_a_named_curve(conv_net, small_set):
    curve = measure_epsilon_curve(conv_net, small_set, epsilons=(0.01,), attack="pgd", steps=3)
    assert curve.steps == 3
    with pytest.raises(OptionError, match="fgsm: steps: expected no option of this name, got 3"):
        measure_epsilon_curve(conv_net, small_set, attack="fgsm", steps=3)
    with pytest.raises(OptionError, match="epsilons: expected finite numbers of at least 0"):
        measure_epsilon_curve(conv_net, small_set, epsilons=(-0.1,))


def decode(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))).astype(int)


def test_the_gallery_shows_the_most_confident_mistakes(conv_net, small_set):
    measured = measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=10), epsilon=12 / 255)
    gallery = pick_gallery(measured, small_set, shown=5)
    confidences = [example.adversarial_confidence for example in gallery.examples]
    assert len(confidences) == 5
    assert confidences == sorted(confidences, reverse=True)
    everyone = measured.result.logits.softmax(dim=1).amax(dim=1)[measured.result.broken]
    assert confidences[0] == pytest.approx(float(everyone.max()))
    for example in gallery.examples:
        row = int(example.sample_id.removeprefix("test/"))
        assert example.label == small_set.classes[small_set.labels[row]] == example.clean_prediction
        assert example.adversarial_prediction != example.label
        image, adversarial, drawn = (
            decode(getattr(example, name)) for name in ("image", "adversarial", "perturbation")
        )
        assert np.array_equal(image.transpose(2, 0, 1), small_set.images[row].numpy())
        assert np.abs(adversarial - image).max() <= 12
        assert example.magnified == 8.0  # 8 · 12/255 is the most that fits half the range
        shift = 255 * (measured.result.adversarial[row] - small_set.images[row] / 255).permute(1, 2, 0).numpy()
        assert np.abs(drawn - (127.5 + 8 * shift)).max() <= 1


def test_a_gallery_of_nothing_broken_is_empty_and_of_other_data_is_refused(conv_net, small_set):
    measured = measure_robust_accuracy(conv_net, small_set, attack="fgsm", epsilon=0.0)
    assert pick_gallery(measured, small_set).examples == ()
    with pytest.raises(DataError, match="dataset: expected the 48 samples that were attacked, got 2"):
        pick_gallery(measured, small_set.subset(torch.tensor([0, 1])))


def test_a_curve_takes_more_samples_only_while_they_are_wanted(conv_net):
    images = torch.randint(0, 256, (600, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    labels = predict(conv_net, ImageDataset(images, torch.zeros(600).long(), tuple("abcd"))).classes
    data = ImageDataset(images, labels, tuple("abcd"), ids=torch.arange(600) * 7)
    measure = partial(measure_epsilon_curve, conv_net, data, epsilons=(0.01, 0.04), attack=PGD(steps=2))
    every, asked = measure(), []

    def more(curve, *, times):
        asked.append(curve.points[0].n)
        return len(asked) < times

    for times, n in ((1, 256), (2, 512), (3, 600)):
        asked.clear()
        curve = measure(still_open=partial(more, times=times))
        assert [point.n for point in curve.points] == [n] * 3
        assert every.per_sample is not None
        assert curve.per_sample is not None
        assert curve.per_sample.samples.n == n
        levels = dict(zip(list_ids(every.per_sample), every.per_sample.unpack(), strict=True))
        own = dict(zip(list_ids(curve.per_sample), curve.per_sample.unpack(), strict=True))
        assert all(levels[each] == level for each, level in own.items())
    assert asked == [256, 512]


def list_ids(levels):
    return [each for run in read_runs(levels.samples.ids) for each in run]
