"""How visible, into which class, how fast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from assay.attacks.examples import describe_attack, psnr, ssim
from assay.attacks.measure import measure_robust_accuracy
from assay.attacks.methods.gradient import PGD
from assay.records.attack import AttackAnatomy


@pytest.mark.parametrize("channels", [1, 3])
def test_visibility_agrees_with_scikit_image(channels):
    generator = torch.Generator().manual_seed(channels)
    images = torch.rand(4, channels, 16, 20, generator=generator)
    changed = (images + 0.1 * torch.randn(images.shape, generator=generator)).clamp(0, 1)
    for i in range(4):
        a, b = (x[i].permute(1, 2, 0).double().numpy() for x in (images, changed))
        assert float(psnr(images, changed)[i]) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0))
        mean, full = structural_similarity(a, b, data_range=1.0, channel_axis=2, full=True)
        # scikit-image leaves out a border of 3, where its windows reach over the edge.
        assert np.isclose(full[3:-3, 3:-3].mean(), mean)
        assert float(ssim(images, changed)[i]) == pytest.approx(mean, abs=1e-6)


def test_identical_pictures_and_tiny_ones():
    images = torch.rand(2, 3, 4, 4)
    assert ssim(images, images).tolist() == pytest.approx([1.0, 1.0])
    assert (psnr(images, images) > 200).all()


def test_the_numbers_of_an_attack(conv_net, small_set):
    measured = measure_robust_accuracy(conv_net, small_set, attack=PGD(steps=4), epsilon=0.06)
    anatomy = describe_attack(measured, small_set)
    assert AttackAnatomy.model_validate_json(anatomy.model_dump_json()) == anatomy
    assert anatomy.broken == int(measured.result.broken.sum()) == sum(t.count for t in anatomy.transitions) > 0
    assert all(t.before != t.after for t in anatomy.transitions)
    counts = [t.count for t in anatomy.transitions]
    assert counts == sorted(counts, reverse=True)
    assert len(anatomy.loss_quantiles) == 5
    assert all(list(row) == sorted(row) for row in anatomy.loss_quantiles)
    assert measured.result.trace is not None
    first = measured.result.trace.losses[:, 0].double()
    assert anatomy.loss_quantiles[0][2] == pytest.approx(float(first.quantile(0.5)))
    assert anatomy.median_psnr is not None
    assert anatomy.lowest_ssim is not None
    assert anatomy.median_ssim is not None
    assert 20 < anatomy.median_psnr < 35
    assert anatomy.lowest_ssim <= anatomy.median_ssim < 1


def test_nothing_broken_has_no_visibility(conv_net, small_set):
    anatomy = describe_attack(measure_robust_accuracy(conv_net, small_set, attack="fgsm", epsilon=0.0), small_set)
    assert anatomy.broken == 0
    assert anatomy.transitions == ()
    assert anatomy.median_psnr is None
