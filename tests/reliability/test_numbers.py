"""Extreme but legal models and pictures: every probe measures them rightly or refuses them in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.attacks import find_attack, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.sanity import measure_attack_sanity
from assay.data.dataset import ImageDataset
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.invariance import measure_invariance
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.saliency import measure_input_gradients
from assay.errors import AssayError
from assay.evaluate import measure_clean_accuracy
from assay.lowrank.spectrum import measure_spectra
from assay.models.anatomy import measure_anatomy
from assay.records.base import Record
from assay.runtime import preserved


class Linear(nn.Module):
    """Logits scale·(Wx) for a fixed W; ``spoil`` changes them."""

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: int,
        *,
        scale: float = 1.0,
        dtype: torch.dtype = torch.float32,
        spoil: Callable[[Tensor, Tensor], Tensor] = lambda logits, images: logits,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(math.prod(shape), classes).to(dtype)
        with torch.no_grad():
            self.head.weight.mul_(scale)
            self.head.bias.zero_()
        self.spoil = spoil
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        return self.spoil(self.head(images.to(self.head.weight.dtype).flatten(1)), images)


def nan_for_some(logits: Tensor, images: Tensor) -> Tensor:
    return torch.where(images.flatten(1)[:, :1] > 0.5, torch.nan, logits)


def strided(logits: Tensor, images: Tensor) -> Tensor:
    return logits.repeat_interleave(2, dim=1)[:, ::2]


SHAPE = (1, 6, 6)
CASES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "huge logits": (SHAPE, 4, {"scale": 1e30}),
    "tiny logits": (SHAPE, 4, {"scale": 1e-30}),
    "NaN for some": (SHAPE, 4, {"spoil": nan_for_some}),
    "constant": (SHAPE, 4, {"scale": 0.0}),
    "two classes": (SHAPE, 2, {}),
    "a thousand classes": (SHAPE, 1000, {}),
    "one pixel": ((3, 1, 1), 4, {}),
    "512 pixels": ((1, 512, 512), 3, {}),
    "four channels": ((4, 6, 6), 4, {}),
    "float64": (SHAPE, 4, {"dtype": torch.float64}),
    "bfloat16": (SHAPE, 4, {"dtype": torch.bfloat16}),
    "strided logits": (SHAPE, 4, {"spoil": strided}),
}

PROBES: dict[str, Callable[[nn.Module, ImageDataset], Record]] = {
    "clean accuracy": measure_clean_accuracy,
    "fgsm": lambda model, data: measure_robust_accuracy(model, data, attack="fgsm").record,
    "pgd": lambda model, data: measure_robust_accuracy(model, data, attack="pgd").record,
    "apgd-t": lambda model, data: measure_robust_accuracy(model, data, attack="apgd-t").record,
    "square": lambda model, data: (
        measure_robust_accuracy(model, data, attack=find_attack("square", {"steps": 60})).record
    ),
    "min-norm": lambda model, data: (
        measure_robust_accuracy(model, data, attack="min-norm", norm="l2", epsilon=0.5).record
    ),
    "curve": measure_epsilon_curve,
    "sanity": measure_attack_sanity,
    "modes": audit_modes,
    "invariance": measure_invariance,
    "input gradients": lambda model, data: measure_input_gradients(model, data, n=len(data), shown=2),
    "gradient flow": lambda model, data: measure_gradient_flow(model, data, n=len(data)),
    "spectra": lambda model, data: measure_spectra(model),
    "anatomy": lambda model, data: measure_anatomy(model, image_shape=data.shape, name="linear"),
}


def make_case(name: str) -> tuple[Linear, ImageDataset]:
    shape, classes, options = CASES[name]
    draws = torch.Generator().manual_seed(1)
    n = 3 if shape[1] == 512 else 10
    images = torch.randint(0, 256, (n, *shape), generator=draws, dtype=torch.uint8)
    names = tuple(f"class {index}" for index in range(classes))
    return Linear(shape, classes, **options), ImageDataset(images, torch.arange(n) % classes, classes=names, name=name)


def numbers(value: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from numbers(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numbers(item, f"{path}[{index}]")
    elif isinstance(value, float):
        yield path, value


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_measures_or_refuses_and_leaves_the_model_alone(probe: str, case: str) -> None:
    model, data = make_case(case)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    try:
        record = PROBES[probe](model, data)
    except AssayError as error:
        assert 10 < len(str(error)) < 400
        assert "\n" not in str(error)
    else:
        document = record.model_dump_json()
        assert type(record).model_validate_json(document) == record or "NaN" in document
        shares = [
            (path, x) for path, x in numbers(json.loads(document)) if path.endswith(("accuracy", ".low", ".high"))
        ]
        assert all(0 <= x <= 1 for _, x in shares), shares
    assert not model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("case", [case for case in CASES if case not in {"NaN for some", "bfloat16"}])
def test_the_clean_accuracy_is_that_of_a_plain_loop(case: str) -> None:
    model, data = make_case(case)
    with preserved(model), torch.no_grad():
        logits = model(data.images.float() / 255)
    expected = int((logits.argmax(dim=1) == data.labels).sum())
    if case == "constant":  # equal logits: no class is chosen, whatever argmax says
        assert measure_clean_accuracy(model, data).correct in {0, expected}
    else:
        assert measure_clean_accuracy(model, data).correct == expected


def test_what_a_linear_model_loses_is_known_whatever_its_scale() -> None:
    """One signed step moves the margin of two classes by ε·‖w₁ − w₀‖₁ inside the box: no scale changes who breaks."""
    margin = find_attack("pgd", {"loss": "margin"})  # cross-entropy has no gradient left where float32 saturates
    data = make_case("two classes")[1]
    images, sides = data.images.double().flatten(1) / 255, torch.where(data.labels == 1, 1.0, -1.0).double()
    for scale in (1e-20, 1.0, 1e20):
        model = Linear(SHAPE, 2, scale=scale)
        weight = (model.head.weight[1] - model.head.weight[0]).double()
        worst = (images - 8 / 255 * sides[:, None] * weight.sign()).clamp(0, 1)
        expected = int(((worst @ weight) * sides > 0).sum())
        assert measure_robust_accuracy(model, data, attack=margin, epsilon=8 / 255).record.correct == expected
