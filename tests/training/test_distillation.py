from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset
from assay.training.loop import fit
from assay.training.recipes import Recipe
from assay.training.step import Distillation


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def test_the_loss_is_the_divergence_of_softened_answers() -> None:
    teacher, images = network(0), torch.rand(5, 3, 2, 2)
    logits = network(1)(images)
    found = Distillation(teacher, temperature=2.0)(images, logits, torch.zeros(5, dtype=torch.int64))
    p, q = F.softmax(teacher(images) / 2, 1), F.softmax(logits / 2, 1)
    assert torch.allclose(found, 4 * (p * (p / q).log()).sum())
    found.backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert float(Distillation(teacher)(images, teacher(images), torch.zeros(5)).detach()) < 1e-5


def test_a_network_learns_from_another_whatever_the_labels_say() -> None:
    g = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (256, 3, 2, 2), generator=g, dtype=torch.uint8)
    wrong = torch.randint(0, 3, (256,), generator=g)
    data = ImageDataset(pixels, wrong, ("a", "b", "c"), split="train")
    teacher, student = network(0), network(1)
    recipe = Recipe.parse(
        {
            "name": "t", "epochs": 30, "batch_size": 64, "augment": {"name": "none"}, "mix": {"name": "mixup"},
            "optimizer": {"lr": 0.1, "weight_decay": 0.0},
        },
        where="t",
    )  # fmt: skip

    def agreement() -> float:
        x = pixels.float() / 255
        with torch.no_grad():
            return float((student(x).argmax(1) == teacher(x).argmax(1)).double().mean())

    before = agreement()
    fit(student, data, recipe=recipe, loss=Distillation(teacher))
    assert before < 0.8 and agreement() > 0.9
