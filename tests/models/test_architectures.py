from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from assay.models.architectures import ARCHITECTURES, build, near

KNOWN = ", ".join(ARCHITECTURES)
IMAGE_NETWORKS = [name for name in ARCHITECTURES if name not in {"lstm", "rnn", "gru"}]


@pytest.mark.parametrize("name", IMAGE_NETWORKS)
def test_every_architecture_takes_pixels_and_gives_logits(name: str) -> None:
    model = build(name, classes=7, image_shape=(3, 32, 32)).eval()
    with torch.no_grad():
        logits = model(torch.rand(2, 3, 32, 32))
    assert logits.shape == (2, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", ["resnet20", "allcnn", "mlp"])
def test_weights_follow_from_the_seed_and_draw_nothing_from_the_global_state(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build(name, classes=3, image_shape=(1, 16, 16), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(first.state_dict().values(), other.state_dict().values(), strict=True)
    )


def test_required_architectures_are_there() -> None:
    required = {f"resnet{depth}" for depth in (18, 20, 32, 34, 44, 50, 56, 110)} | {"allcnn", "mlp"}
    assert required <= set(ARCHITECTURES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet21"}, f"architecture: expected one of {KNOWN}, got 'resnet21' (did you mean resnet20?)"),
        ({"name": "zzz"}, f"architecture: expected one of {KNOWN}, got 'zzz'"),
        ({"classes": 1}, "classes: expected at least 2, got 1"),
        ({"image_shape": (3, 32)}, "image_shape: expected three sizes (C, H, W) of at least 1, got (3, 32)"),
        ({"image_shape": (3, 0, 32)}, "image_shape: expected three sizes (C, H, W) of at least 1, got (3, 0, 32)"),
    ],
)
def test_bad_input(arguments: dict[str, object], message: str, refused: Callable[[Callable[[], object]], str]) -> None:
    chosen = {"name": "resnet20", "classes": 10, "image_shape": (3, 32, 32), **arguments}
    name = str(chosen.pop("name"))
    assert refused(lambda: build(name, **chosen)) == message  # type: ignore[arg-type]


def test_near_prefers_the_longest_common_beginning() -> None:
    assert near("resnet21", ["resnet32", "resnet20", "resnet50"]) == "'resnet21' (did you mean resnet20?)"
    assert near("xyz", ["resnet20"]) == "'xyz'"
