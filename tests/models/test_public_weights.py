from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from assay.models.sources import load_model, open_model

pytestmark = pytest.mark.shared
FirstImages = Callable[[int], tuple[Tensor, Tensor]]


def resnet20_by_hand(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The public network from its tensors alone: no module of ours or of anybody's."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, scale, shift = (
            state[f"module.{name}.{part}"].view(1, -1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    x = F.conv2d((images - mean) / std, state["module.conv1.weight"], padding=1)
    x = norm(x, "bn1").relu()
    for stage in (1, 2, 3):
        for i in range(3):
            block, stride = f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1
            y = F.conv2d(x, state[f"module.{block}.conv1.weight"], stride=stride, padding=1)
            y = F.conv2d(norm(y, f"{block}.bn1").relu(), state[f"module.{block}.conv2.weight"], padding=1)
            skip = x[:, :, ::stride, ::stride]
            zeros = torch.zeros_like(skip[:, : (y.shape[1] - x.shape[1]) // 2])
            x = (norm(y, f"{block}.bn2") + torch.cat([zeros, skip, zeros], dim=1)).relu()
    return x.mean(dim=(2, 3)) @ state["module.linear.weight"].T + state["module.linear.bias"]


def test_the_public_weights_compute_what_their_tensors_say(public_path: Path, cifar_test: FirstImages) -> None:
    images_u8, labels = cifar_test(500)
    images = images_u8.float() / 255
    state = torch.load(public_path, weights_only=True, map_location="cpu")["state_dict"]
    loaded = open_model("resnet20", weights=public_path, classes=10, image_shape=(3, 32, 32))
    assert loaded.notes == ()
    with torch.inference_mode():
        expected = resnet20_by_hand(state, images)
        logits = loaded.model(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-3)
    assert torch.equal(logits.argmax(1), expected.argmax(1))
    correct = int((logits.argmax(1) == labels).sum())
    assert 0.88 < correct / 500 < 0.95


def test_no_flag_is_needed_and_the_wrong_normalisation_shows(public_path: Path, cifar_test: FirstImages) -> None:
    images_u8, labels = cifar_test(150)
    images = images_u8.float() / 255

    def correct(normalization: str | None) -> int:
        model = load_model("resnet20", weights=public_path, normalization=normalization)
        with torch.inference_mode():
            return int((model(images).argmax(1) == labels).sum())

    assert correct(None) == correct("imagenet")
    assert correct("none") < correct(None) - 30


def test_the_public_weights_score_exactly_what_is_published_of_them(public_path: Path, cifar_test: FirstImages) -> None:
    images_u8, labels = cifar_test(10_000)
    model = load_model("resnet20", weights=public_path).to(memory_format=torch.channels_last)
    correct = 0
    with torch.inference_mode():
        for images, targets in zip(images_u8.split(500), labels.split(500), strict=True):
            batch = (images.float() / 255).contiguous(memory_format=torch.channels_last)
            correct += int((model(batch).argmax(1) == targets).sum())
    assert correct == 9_173
