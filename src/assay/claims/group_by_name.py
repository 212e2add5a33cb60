"""Does matching "bn" in parameter names find the BatchNorms?"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

import torch
from torch import nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import counted, drawn, one_table
from assay.models.sources import load_model
from assay.records.claims import Chart, ClaimEvidence, Point
from assay.training.param_groups import audit_optimizer, split_parameters

DECAY = 5e-4


@register_claim(
    "group-by-name",
    "Matching “bn” in names finds the BatchNorms.",
    decides="The BatchNorm layers of a ResNet-18 whose scale a search by name keeps from weight decay, counted against "
    "the types of the modules: all of them, or not.",
    would_change="Another naming. A network that calls all of its norms bn1, bn2, … passes; the modules' types answer "
    "for any.",
    references=(
        "He et al. 2019, Bag of tricks for image classification, section 3.1 (no bias decay), arXiv:1812.01187",
        "Naming: torchvision.models.resnet calls the norm of a projection downsample.1",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """An optimizer whose groups were made by name, held against the types of the modules that own the parameters."""
    facts, rows, points = [], [], []
    for name, spec in _networks().items():
        model = load_model(spec, image_shape=(3, 224, 224), classes=10)
        norms = split_parameters(model).norm
        wrong = audit_optimizer(model, group_by_name(model, weight_decay=DECAY)).decayed_norms
        layers, missed = _layers(name for name, _ in norms), _layers(wrong)
        total = sum(parameter.numel() for _, parameter in norms)
        decayed = sum(parameter.numel() for key, parameter in norms if key in wrong)
        matched = len(layers) - len(missed)
        facts.append(counted(f"BatchNorms of {name} that the name finds", matched, len(layers)))
        rows.append((name, len(layers), matched, _shown(missed), f"{decayed:,} of {total:,} ({decayed / total:.0%})"))
        points += [Point(series="found by name", x=name, y=matched), Point(series="missed", x=name, y=len(missed))]
    first, _, matched, missed_names, cost = rows[0]
    return ClaimEvidence(
        how=f"In {len(rows)} networks, the parameters that the usual line `'bn' in name or 'bias' in name` keeps from "
        "weight decay, held against the types of the modules that own them.",
        facts=tuple(facts),
        charts=(
            Chart(
                finding=f"In {first} the name misses {missed_names}",
                **drawn("bars", x="network", y="normalisation layers", x_scale="names"),
                points=tuple(points),
            ),
        ),
        tables=one_table(
            "What the name finds, and what it costs",
            ("network", "norms", "found", "missed", "norm parameters decayed by mistake"),
            rows,
        ),
        notes=(
            f"What it costs: {cost} norm parameters of {first} are decayed that were meant not to be. What decaying "
            "all of them costs in accuracy is measured by the claim decay-bias.",
            "The biases of missed norms are called bias, so the usual line spares them; the scales it does not.",
        ),
    )


def group_by_name(model: nn.Module, *, weight_decay: float) -> torch.optim.Optimizer:
    """SGD with the two groups that are made by matching names, as many training scripts do."""
    spared: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (spared if "bn" in name or "bias" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.SGD([group for group in groups if group["params"]], lr=0.1)


def _networks() -> dict[str, str]:
    """Ours, always; those of torchvision where it is installed."""
    theirs = {"torchvision's ResNet-18": "torchvision:resnet18", "its MobileNet-V2": "torchvision:mobilenet_v2"}
    return {**(theirs if find_spec("torchvision") is not None else {}), "our ResNet-18": "resnet18"}


def _layers(parameters: Iterable[str]) -> tuple[str, ...]:
    """The modules that hold them, without the wrapper that normalises the pixels."""
    return tuple(dict.fromkeys(name.rpartition(".")[0].removeprefix("model.") for name in parameters))


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "") if names else "none"
