"""Evaluation mode, and what the mode it was handed over in costs."""

from __future__ import annotations

import copy

import torch
from torch import nn

from assay.comparison.differences import paired_difference
from assay.data.dataset import ImageDataset, to_unit_range
from assay.evaluate import call
from assay.fixes.fix import Change, Fix, Workshop
from assay.runtime import device_of, dtype_of, preserved

BATCH = 250


def _evaluate(shop: Workshop) -> Change:
    fixed = copy.deepcopy(shop.model).eval()
    data = shop.bench.clean
    before = _right_as_handed_over(shop.model, data, seed=shop.bench.seed)
    after = _right_as_handed_over(fixed, data, seed=shop.bench.seed)
    effect = paired_difference("accuracy as handed over", before.numpy(), after.numpy())
    return Change(f"model.eval(); as handed over it was asked in batches of {BATCH}", model=fixed, effects=(effect,))


def _right_as_handed_over(model: nn.Module, data: ImageDataset, *, seed: int) -> torch.Tensor:
    """bool (N,): which samples are right with every module in the mode it is in."""
    parts = []
    with preserved(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for batch in data.batches(BATCH):
            logits = call(model, to_unit_range(batch.images.to(device_of(model)), dtype_of(model)))
            parts.append(logits.argmax(dim=1).cpu() == batch.labels)
    return torch.cat(parts)


EVALUATION_MODE = Fix("evaluation mode", "mode", _evaluate, stages=("mode audit",))
