"""Statistics measured anew are those of one forward pass of all images as one batch, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase

from assay.data.dataset import ImageDataset
from assay.errors import ModelError
from assay.evaluate import predict
from assay.training.averaging import refresh_batchnorm


def ordered(n: int, *, size: int = 4) -> ImageDataset:
    """Two classes, one after the other: dark pictures, then bright ones."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (n, 2, size, size), dtype=torch.uint8, generator=random)
    labels = (torch.arange(n) >= n // 2).long()
    return ImageDataset(images + (150 * labels).to(torch.uint8)[:, None, None, None], labels, ("dark", "bright"))


class Twice(nn.Module):
    """One normalisation layer, called with pixels and with its own rectified output."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2)
        self.fc = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(input=F.relu(self.norm(x))).flatten(1))


class Activated(nn.BatchNorm2d):
    """A normalisation layer that ends in an activation."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(super().forward(input))


def head(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "first": lambda: nn.Sequential(nn.BatchNorm2d(2), *head(2)),
    "cumulative": lambda: nn.Sequential(nn.BatchNorm2d(2, momentum=None), *head(2)),
    "synchronised": lambda: nn.Sequential(nn.SyncBatchNorm(2), *head(2)),
    "of vectors": lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)),
    "subclass": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), Activated(4), nn.Conv2d(4, 3, 2), Activated(3), *head(3)),
    "deep": lambda: nn.Sequential(
        *(m for _ in range(5) for m in (nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Tanh())), *head(2)
    ),
    "instance": lambda: nn.Sequential(nn.InstanceNorm2d(2, affine=True, track_running_stats=True), *head(2)),
    "shared": Twice,
}


def oracle(model: nn.Module, data: ImageDataset) -> dict[str, tuple[Tensor, Tensor]]:
    """One pass of all images, the inputs of each layer put together; instance normalisation as torch defines it."""
    model = copy.deepcopy(model).double().eval()
    seen: dict[str, list[Tensor]] = {}
    for name, module in model.named_modules():
        if isinstance(module, _NormBase):
            module.train()
            hook = lambda _, args, named, name=name: seen.setdefault(name, []).append([*args, *named.values()][0])  # noqa: E731
            module.register_forward_pre_hook(hook, with_kwargs=True)
    with torch.no_grad():
        model(data.images.double() / 255)
    values = {name: torch.cat([x.transpose(0, 1).flatten(1) for x in parts], dim=1) for name, parts in seen.items()}
    moments = {name: (x.mean(dim=1), x.var(dim=1)) for name, x in values.items()}
    for name, module in model.named_modules():
        if isinstance(module, nn.InstanceNorm2d):
            within = seen[name][0].flatten(2)
            moments[name] = within.mean(dim=(0, 2)), within.var(dim=2).mean(dim=0)
    return moments


@pytest.mark.parametrize("n", [2, 60, 61])
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_any_batch_size_gives_the_statistics_of_one_batch(make: Callable[[], nn.Module], n: int) -> None:
    torch.manual_seed(1)
    model, data = make().eval(), ordered(n)
    wanted = oracle(model, data)
    momenta = [module.momentum for module in model.modules() if isinstance(module, _NormBase)]
    assert refresh_batchnorm(model, data, samples=n, batch_size=20) == len(wanted)
    for name, (mean, variance) in wanted.items():
        layer = model.get_submodule(name)
        assert torch.allclose(layer.running_mean.double(), mean, rtol=1e-3, atol=1e-4 * float(variance.max().sqrt()))
        assert torch.allclose(layer.running_var.double(), variance, rtol=1e-3)
    assert not any(module.training for module in model.modules())
    assert momenta == [module.momentum for module in model.modules() if isinstance(module, _NormBase)]


def test_deep_networks_stay_near_the_statistics_of_one_batch() -> None:
    """Every further pass adds to the errors of the layers before it: eight passes were twice as far away as two."""
    torch.manual_seed(3)
    blocks = (m for _ in range(24) for m in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()))
    model, data = nn.Sequential(nn.Conv2d(2, 8, 1), *blocks, *head(8)).eval(), ordered(120)
    wanted = oracle(model, data)
    refresh_batchnorm(model, data, samples=120, batch_size=12)
    for name, (mean, variance) in wanted.items():
        shift = (model.get_submodule(name).running_mean.double() - mean).abs() / variance.sqrt()
        assert float(shift.max()) < 0.2, name


def test_a_last_batch_of_two_weighs_as_two_images_and_one_of_one_is_no_fault() -> None:
    images = torch.zeros(252, 1, 1, 1, dtype=torch.uint8)
    images[250:] = 255
    data = ImageDataset(images, torch.arange(252) % 2, ("a", "b"))
    for n in (252, 251):
        model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2))
        assert refresh_batchnorm(model, data.subset(torch.arange(252 - n, 252))) == 1
        share = 2 / n
        assert float(model[0].running_mean) == pytest.approx(share, rel=1e-5)
        assert float(model[0].running_var) == pytest.approx(share * (1 - share) * n / (n - 1), rel=1e-5)


def test_a_set_ordered_by_class_gives_a_fair_sample() -> None:
    data, model = ordered(400), nn.Sequential(nn.BatchNorm2d(2), *head(2))
    wanted = oracle(model, data)["0"]
    refresh_batchnorm(model, data, samples=100)
    assert torch.allclose(model[0].running_mean.double(), wanted[0], atol=0.05)
    assert torch.allclose(model[0].running_var.double(), wanted[1], rtol=0.1)


class Supervised(nn.Module):
    """Wants labels when it trains, and normalises a second time under a condition on the layer's own mode."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.norm, self.rest, self.strict = nn.BatchNorm2d(2), nn.Sequential(*head(2)), strict

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.training and labels is None:
            raise KeyError("labels")
        if self.strict and self.norm.training:
            raise KeyError("labels")
        return self.rest(self.norm(x))


def test_a_model_whose_training_mode_fails_is_measured_or_refused_and_left_as_it_was() -> None:
    data, lenient, strict = ordered(60), Supervised(strict=False).eval(), Supervised(strict=True).eval()
    assert refresh_batchnorm(lenient, data) == 1
    assert float(lenient.norm.running_mean.mean()) > 0.3
    with pytest.raises(
        ModelError, match=r"^model\(images\): expected a model that takes images \(60, 2, 4, 4\).*labels"
    ):
        refresh_batchnorm(strict, data)
    assert float(strict.norm.running_mean.abs().max()) == 0
    assert not any(module.training for module in strict.modules())


def test_one_value_a_channel_has_no_variance() -> None:
    vectors = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 2)).eval()
    with pytest.raises(ModelError, match=r"more than 1 value per channel"):
        refresh_batchnorm(vectors, ordered(1))
    assert float(vectors[1].running_var.min()) == 1


def test_layers_that_keep_no_statistics_or_are_frozen_stay_as_they_are() -> None:
    class Frozen(nn.BatchNorm2d):
        def train(self, mode: bool = True) -> Frozen:
            return super().train(False)

    free = nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), *head(2))
    assert refresh_batchnorm(free, ordered(20)) == 0
    mixed = nn.Sequential(Frozen(2), nn.BatchNorm2d(2), nn.BatchNorm2d(2), *head(2))
    mixed[2].eval()  # by hand, in a model that is in training mode
    assert refresh_batchnorm(mixed, ordered(20)) == 1
    assert [float(mixed[i].running_var.max()) == 1 for i in range(3)] == [True, False, True]
    assert refresh_batchnorm(mixed.eval(), ordered(20)) == 2  # nothing says any more that the last one is frozen


def test_the_accuracy_of_a_trained_network_outlives_a_sorted_set() -> None:
    torch.manual_seed(0)
    data = ordered(300)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *head(4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(data.images.float() / 255), data.labels).backward()
        optimizer.step()
    refresh_batchnorm(model.eval(), data, samples=100)
    assert float(predict(model, data).correct.double().mean()) > 0.99
