"""Options that the data, the length of the run or the caller leave without effect are refused before it begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.errors import OptionError, UnusedOptionError
from assay.training.loop import fit
from assay.training.recipes import Recipe

Make = Callable[[], nn.Module]


def own_loss(images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def own_perturbation(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    return images


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "smoothing of a loss of one's own": (
        {"label_smoothing": 0.1}, {"loss": own_loss}, r"label_smoothing: no effect while the loss is your own",
    ),
    "an adversary beside one's own": (
        {"adversary": {"name": "pgd"}}, {"perturb": own_perturbation},
        r"adversary: no effect while the perturbation is your own",
    ),
    "stages of larger images": (
        {"resolution": [[0.0, 12], [0.5, 24]]}, {}, r"resolution: no effect on images of 12×12",
    ),
    "pruning of one epoch": (
        {"epochs": 1, "prune": {"share": 0.3}}, {}, r"prune\.share: no effect in 1 epochs of 6 steps: none would be",
    ),
    "pruning of less than a step": ({"prune": {"share": 0.01}}, {}, r"prune\.share: no effect in 3 epochs of 6 steps"),
    "an average that takes nothing in": (
        {"average": {"decay": 0.9, "every": 19}}, {}, r"average\.every: expected at most the 18 steps .*, got 19$",
    ),
    "a warm-up to the end": (
        {"schedule": {"name": "linear", "warmup": 0.99}}, {},
        r"schedule\.warmup: expected a share that leaves a step after the warm-up, of 18 in all, got 0\.99",
    ),
    "resuming without a folder": ({}, {"resume": True, "out": None}, r"resume: no effect without out"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "message"), CASES.values(), ids=CASES)
def test_what_cannot_act_is_refused_before_anything_is_written(
    tmp_path: Path,
    smallnet: Make,
    blobs: ImageDataset,
    recipe: Recipe,
    changes: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    model, folder = smallnet(), tmp_path / "run"
    changed = Recipe.parse({**recipe.model_dump(), **changes})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(OptionError, match=message) as caught:
        fit(model, blobs, recipe=changed, **{"out": folder, **options})
    assert "no effect" not in message or isinstance(caught.value, UnusedOptionError)
    assert not folder.exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
