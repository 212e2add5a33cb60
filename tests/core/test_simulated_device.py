"""On a device without float64 every measurement gives what it gives on the CPU, and makes no float64 tensor there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import assay
from assay.data.dataset import ImageDataset
from assay.runtime import exact_device, to_double
from simulated_device import simulated_device

ATTACKS = {
    "pgd": assay.PGD(steps=2),
    "square": assay.Square(queries=3),
    "adaptive": assay.AdaptiveAttack(steps=2, queries=3, boundary_steps=2, short_queries=2, n_target_classes=2),
    "min-norm": assay.MinimumNorm(steps=3),
    "signed-steps": assay.SignedSteps(steps=2),
    "transforms": "transforms",
}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 4, 10))
    model = nn.Sequential(*layers)
    model(torch.rand(16, 1, 8, 8))
    return model.eval()


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    digits = assay.load_dataset("digits", limit=24)
    return replace(digits, images=digits.images[:, :, ::4, ::4].contiguous())


MEASURES: dict[str, Callable[[nn.Module, ImageDataset], Any]] = {
    "clean accuracy": assay.measure_clean_accuracy,
    "sanity": lambda model, data: assay.measure_attack_sanity(model, data, n=1, queries=2),
    "gradient flow": assay.measure_gradient_flow,
    "input gradients": assay.measure_input_gradients,
    "normalization": assay.audit_normalization,
    "modes": assay.audit_modes,
    "invariance": assay.measure_invariance,
    "spectra": lambda model, data: assay.measure_spectra(model),
    "anatomy": lambda model, data: assay.measure_anatomy(model, image_shape=data.shape),
}


def numbers(value: Any) -> Any:
    """The floats of a record, without the times it took."""
    dumped = value.record.model_dump(mode="json", exclude={"seconds", "images_per_second"})
    return [leaf for leaf in torch.utils._pytree.tree_leaves(dumped) if isinstance(leaf, float)]


@pytest.mark.parametrize(
    ("name", "norm"), [(name, "linf") for name in ATTACKS] + [("pgd", "l2"), ("square", "l1"), ("min-norm", "l1")]
)
def test_attacks(name: str, norm: Any, data: ImageDataset) -> None:
    images = data.images.float() / 255

    def run(model: nn.Module) -> Any:
        return assay.attack(model, images[:6], data.labels[:6], attack=ATTACKS[name], norm=norm, epsilon=0.2)

    expected = run(network())
    with simulated_device() as device:
        result = run(network().to(device))
    assert torch.allclose(result.adversarial, expected.adversarial, atol=1e-6)
    assert torch.equal(result.broken, expected.broken)


@pytest.mark.parametrize("name", list(MEASURES))
def test_measurements(name: str, data: ImageDataset) -> None:
    expected = MEASURES[name](network(), data)
    with simulated_device() as device:
        result = MEASURES[name](network().to(device), data)
    assert numbers(result) == pytest.approx(numbers(expected), rel=1e-4, abs=1e-6, nan_ok=True)


def test_exact_numbers_are_made_on_the_cpu() -> None:
    with simulated_device() as device:
        on_device = torch.ones(2, device=device)
        assert exact_device(device) == torch.device("cpu")
        assert to_double(on_device).device == torch.device("cpu")
        with pytest.raises(TypeError, match="float64"):
            on_device.double()
        with pytest.raises(TypeError, match="float64"):
            torch.zeros(1, dtype=torch.float64, device=device)
        with pytest.raises(RuntimeError, match="expected all tensors on one device"):
            on_device + torch.ones(2)
