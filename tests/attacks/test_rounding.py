"""Searching in bfloat16: what it may change, and what it may not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks import surrogate as rounding
from assay.attacks.engine import attack
from assay.attacks.methods.gradient import PGD
from assay.attacks.network import Network
from assay.attacks.surrogate import make_bf16_surrogate
from assay.errors import OptionError


@pytest.fixture
def images(small_set):
    return small_set.images.float() / 255


def test_logits_are_float32_and_close_and_the_resolution_bounds_every_margin(conv_net, images):
    bf16_surrogate = make_bf16_surrogate(conv_net, images, precision="bfloat16", classes=4)
    assert bf16_surrogate is not None
    with torch.no_grad():
        logits, expected = bf16_surrogate(images), conv_net(images)
    assert logits.dtype == torch.float32  # the last layer is not rounded
    spread = float(expected.max() - expected.min())
    assert 0 < float((logits - expected).abs().max()) < 0.02 * spread
    gaps = (logits[:, :, None] - logits[:, None, :]) - (expected[:, :, None] - expected[:, None, :])
    assert float(gaps.abs().max()) == pytest.approx(bf16_surrogate.resolution, rel=1e-4)
    assert all(parameter.dtype == torch.float32 for parameter in conv_net.parameters())


def test_auto_leaves_alone_what_is_small_not_convolutional_or_not_quick(conv_net, images, monkeypatch):
    monkeypatch.setattr(rounding, "has_fast_bfloat16", lambda device: True)
    assert make_bf16_surrogate(conv_net, images, precision="auto", classes=4) is None
    monkeypatch.setattr(rounding, "MIN_PARAMETERS", 1)
    assert make_bf16_surrogate(conv_net, images, precision="auto", classes=4) is not None
    assert make_bf16_surrogate(conv_net, images, precision="float32", classes=4) is None
    dense = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert make_bf16_surrogate(dense, images, precision="auto", classes=4) is None
    assert make_bf16_surrogate(conv_net.double(), images.double(), precision="auto", classes=4) is None
    monkeypatch.setattr(rounding, "has_fast_bfloat16", lambda device: False)
    assert make_bf16_surrogate(conv_net.float(), images, precision="auto", classes=4) is None


def test_auto_refuses_a_network_whose_answers_do_not_survive(images, monkeypatch):
    class Delicate(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            pooled = self.conv(x).mean(dim=(2, 3))
            return (pooled - pooled.detach().round(decimals=2)) * 1e3

    monkeypatch.setattr(rounding, "has_fast_bfloat16", lambda device: True)
    monkeypatch.setattr(rounding, "MIN_PARAMETERS", 1)
    torch.manual_seed(0)
    assert make_bf16_surrogate(Delicate(), images, precision="auto", classes=4) is None


def test_an_unknown_precision_is_named(conv_net, images):
    with pytest.raises(OptionError, match="precision: expected auto, float32 or bfloat16, got 'fp8'"):
        attack(conv_net, images, torch.zeros(48, dtype=torch.int64), precision="fp8")


def test_what_it_finds_is_judged_in_float32_and_as_much_as_float32_finds(conv_net, small_set, images, fingerprint):
    before = fingerprint(conv_net)
    found = {
        precision: attack(conv_net, images, small_set.labels, attack=PGD(steps=20), epsilon=0.02, precision=precision)
        for precision in ("float32", "bfloat16")
    }
    assert found["bfloat16"].precision == "bfloat16"
    with torch.no_grad():
        after = conv_net(found["bfloat16"].adversarial).argmax(dim=1)
    assert torch.equal(after != small_set.labels, ~found["bfloat16"].robust)
    assert int((found["bfloat16"].broken != found["float32"].broken).sum()) <= 1
    assert 5 < int(found["float32"].broken.sum()) < 44
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        for a, b in zip(before, fingerprint(conv_net), strict=True)
    )


def test_what_bfloat16_cannot_tell_is_verified_by_the_original_model(conv_net, small_set, images, monkeypatch):
    """A resolution as wide as the logits sends every iterate to the original model, which gets all of them right."""
    verified: list[int] = []
    genuine = Network.verify

    def verify(self, x):
        verified.append(len(x))
        return genuine(self, x)

    monkeypatch.setattr(Network, "verify", verify)
    monkeypatch.setattr(rounding, "_measure", lambda converted, model, example: rounding.Bf16Surrogate(converted, 1e9))
    result = attack(conv_net, images, small_set.labels, attack=PGD(steps=3), epsilon=1e-6, precision="bfloat16")
    assert not result.broken.any()
    assert sum(verified[1:]) >= 2 * 44
    assert result.counts.unconfirmed == 0


def test_the_nearest_and_the_last_image_are_searched_in_float32(conv_net, small_set, images):
    for name in ("min-norm", "signed-steps"):
        both = [
            attack(conv_net, images, small_set.labels, attack=name, epsilon=0.02, precision=precision)
            for precision in ("float32", "bfloat16")
        ]
        assert torch.equal(both[0].adversarial, both[1].adversarial)
