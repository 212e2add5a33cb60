"""Models that fool attacks are caught by name."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from assay.attacks.engine import attack
from assay.attacks.methods.apgd import APGDT
from assay.attacks.methods.gradient import PGD
from assay.attacks.methods.square import Square
from assay.attacks.sanity import measure_attack_sanity
from assay.data.dataset import ImageDataset, to_unit_range
from assay.records.attack import AttackSanity
from assay.verdict.attack_sanity import RULES
from assay.verdict.catalogue import judge

EPSILON = 8 / 255


class Wrapped(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class Detached(Wrapped):
    def forward(self, x):
        return self.model(x.detach())


class Quantised(Wrapped):
    def forward(self, x):
        return self.model((x * 15).round() / 15)


class Noisy(Wrapped):
    def forward(self, x):
        return self.model(x + 0.1 * torch.randn_like(x))


class Saturated(Wrapped):
    def forward(self, x):
        return 1e5 * self.model(x)


class Softmaxed(Wrapped):
    def forward(self, x):
        return self.model(x).softmax(dim=1)


class LogSoftmaxed(Wrapped):
    def forward(self, x):
        return self.model(x).log_softmax(dim=1)


class BatchStatistics(Wrapped):
    def forward(self, x):
        return self.model(x - x.mean(dim=0, keepdim=True) + 0.5)


class Broken(Wrapped):
    """A gradient that points the other way."""

    def forward(self, x):
        return self.model(2 * x.detach() - x)


class NotFinite(Wrapped):
    def forward(self, x):
        # The square root of an exact zero has an infinite gradient.
        return self.model(x) + (x - x.detach()).abs().sum(dim=(1, 2, 3)).sqrt()[:, None]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, ImageDataset]:
    """A network that tells four blurred patterns apart with a margin, as trained networks do."""
    torch.manual_seed(0)
    patterns = nn.functional.interpolate(torch.rand(4, 3, 3, 3), size=8, mode="bilinear")
    labels = torch.arange(64) % 4
    images = (0.25 + 0.5 * patterns[labels] + 0.08 * torch.randn(64, 3, 8, 8)).clamp(0, 1)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.Flatten(), nn.Linear(12 * 64, 4)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    data = ImageDataset((images * 255).round().byte(), labels, ("a", "b", "c", "d"), name="patterns", split="test")
    return net.eval().requires_grad_(True), data


def raised(model: nn.Module, data: ImageDataset) -> set[str]:
    sanity = measure_attack_sanity(model, data, epsilon=EPSILON, n=24, queries=80)
    assert AttackSanity.model_validate_json(sanity.model_dump_json()) == sanity
    return {check.name for check in sanity.checks if check.raised}


def test_an_honest_network_raises_nothing(trained):
    net, data = trained
    sanity = measure_attack_sanity(net, data, epsilon=EPSILON, n=24, queries=80)
    assert {check.name for check in sanity.checks if check.raised} == set()
    assert len(sanity.checks) == 15
    statuses = {verdict.status for verdict in judge([sanity], rules=RULES)}
    assert statuses <= {"pass", "not run"}


@pytest.mark.parametrize(
    ("mask", "name", "rule"),
    [
        (Detached, "not differentiable", "A216"),
        (Detached, "zero gradients", "A214"),
        (Detached, "survives any epsilon", "A219"),
        (Quantised, "zero gradients", "A214"),
        (Noisy, "randomised", "A212"),
        (Saturated, "saturated", "A215"),
        (Softmaxed, "not logits", "A213"),
        (LogSoftmaxed, "not logits", "A213"),
        (BatchStatistics, "depends on the batch", "A223"),
        (Broken, "black box beats white box", "A221"),
        (Broken, "survives any epsilon", "A219"),
        (NotFinite, "zero gradients", "A214"),
    ],
)
def test_masked_models_are_caught_by_name(trained, mask, name, rule):
    net, data = trained
    model = mask(net).eval()
    sanity = measure_attack_sanity(model, data, epsilon=4 * EPSILON, n=24, queries=80)
    check = sanity.find(name)
    assert check is not None
    assert check.raised, check
    verdict = next(verdict for verdict in judge([sanity], rules=RULES) if verdict.rule == rule)
    assert verdict.status in {"warn", "error"}
    assert verdict.measured == check.detail


def test_training_mode_is_noticed_and_left_on(trained):
    net, data = trained
    net.train()
    try:
        assert "train mode" in raised(net, data)
        assert all(module.training for module in net.modules())
    finally:
        net.eval()


def test_nothing_right_leaves_the_attacks_out(trained):
    net, data = trained
    wrong = ImageDataset(data.images, (data.labels + 1) % 4, data.classes)
    sanity = measure_attack_sanity(net, wrong, n=16)
    assert sanity.find("one step beats many") is None
    assert {verdict.status for verdict in judge([sanity], rules=RULES) if verdict.rule == "A217"} == {"not run"}


def test_what_pgd_broke_is_not_attacked_again_and_the_numbers_are_those_of_all(conv_net, small_set, monkeypatch):
    data = to_unit_range(small_set.images)
    run = partial(attack, conv_net, data, small_set.labels, ids=small_set.ids, epsilon=0.02)
    options = (PGD(steps=20), PGD(steps=40, restarts=2), Square(queries=30), APGDT(steps=50, n_target_classes=3))
    pgd, more, square, strong = (run(attack=each).robust for each in options)
    assert 0 < int(pgd.sum()) < len(pgd)
    attacked: list[int] = []

    def counted(model, images, *rest, **named):
        attacked.append(len(images))
        return attack(model, images, *rest, **named)

    monkeypatch.setattr("assay.attacks.sanity.attack", counted)
    sanity = measure_attack_sanity(conv_net, small_set, epsilon=0.02, queries=30, n=len(small_set))
    share = partial(torch.mean, dtype=torch.float64)
    values = {check.name: check.value for check in sanity.checks}
    assert values["more steps help"] == pytest.approx(float(share((pgd & ~more).float())))
    assert values["black box beats white box"] == pytest.approx(float(share((pgd & ~square).float())))
    together = float(share((pgd & ~(square & strong)).float()))
    assert values["far from the ensemble"] == pytest.approx(together)
    assert attacked[:4] == [len(small_set)] * 4
    assert attacked[4:] == [int(pgd.sum()), int(pgd.sum()), int((pgd & square).sum())]
