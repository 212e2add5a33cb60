"""APGD, FAB, Square and their ensemble against torchattacks, with the same budgets on a small network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.engine import attack
from assay.attacks.methods.apgd import APGD, APGDT
from assay.attacks.methods.ensembles import StandardAttack
from assay.attacks.methods.fab import FAB
from assay.attacks.methods.square import Square, _bump
from assay.attacks.options import AttackOptions

torchattacks = pytest.importorskip("torchattacks")

STEPS, QUERIES = 10, 100
EPSILONS = {"linf": 0.05, "l2": 0.6}
THEIRS = {"linf": "Linf", "l2": "L2"}


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 64, 10)
    )
    for _ in range(10):
        net(torch.rand(32, 3, 8, 8))
    return net.eval()


@pytest.fixture(scope="module")
def samples(network: nn.Module) -> tuple[Tensor, Tensor]:
    images = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return images, network(images).argmax(dim=1)


def their_part(name: str, network: nn.Module, norm: str):
    shared = {"norm": THEIRS[norm], "eps": EPSILONS[norm], "seed": 0}
    return {
        "apgd-ce": lambda: torchattacks.APGD(network, steps=STEPS, **shared),
        "apgd-t": lambda: torchattacks.APGDT(network, steps=STEPS, n_classes=10, **shared),
        "fab-t": lambda: torchattacks.FAB(network, steps=STEPS, multi_targeted=True, n_classes=10, **shared),
        "square": lambda: torchattacks.Square(network, n_queries=QUERIES, **shared),
    }[name]()


OURS: dict[str, AttackOptions] = {
    "apgd-ce": APGD(steps=STEPS),
    "apgd-t": APGDT(steps=STEPS),
    "fab-t": FAB(steps=STEPS),
    "square": Square(queries=QUERIES),
}


@pytest.mark.parametrize(
    ("name", "norm"),
    [("apgd-ce", "linf"), ("apgd-ce", "l2"), ("apgd-t", "linf"), ("apgd-t", "l2"), ("fab-t", "linf"), ("fab-t", "l2")],
)
def test_each_gradient_part_breaks_what_theirs_breaks(network, samples, name, norm):
    images, labels = samples
    with torch.no_grad():
        theirs = network(their_part(name, network, norm)(images, labels)).argmax(dim=1) != labels
    ours = attack(network, images, labels, attack=OURS[name], norm=norm, epsilon=EPSILONS[norm]).broken
    assert int(theirs.sum()) >= 3
    assert int((theirs & ~ours).sum()) <= 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_finds_as_many(network, samples, norm):
    images, labels = samples
    with torch.no_grad():
        theirs = network(their_part("square", network, norm)(images, labels)).argmax(dim=1) != labels
    ours = attack(network, images, labels, attack=OURS["square"], norm=norm, epsilon=EPSILONS[norm]).broken
    assert int(theirs.sum()) >= 1
    assert int(ours.sum()) >= int(theirs.sum()) - 1


@pytest.mark.parametrize("side", [2, 3, 5, 6, 11])
def test_the_bumps_are_theirs(network, side):
    reference = torchattacks.Square(network).eta(side)
    ours = _bump(side)
    assert torch.allclose(ours, reference, atol=1e-6) or torch.allclose(ours.T, reference, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", pytest.param("l2", marks=pytest.mark.full)])
def test_the_ensemble_is_never_weaker(network, samples, norm):
    images, labels = samples
    together = torchattacks.MultiAttack([their_part(name, network, norm) for name in OURS])
    with torch.no_grad():
        theirs = network(together(images, labels)).argmax(dim=1) != labels
    options = StandardAttack(steps=STEPS, queries=QUERIES)
    ours = attack(network, images, labels, attack=options, norm=norm, epsilon=EPSILONS[norm]).broken
    assert int((theirs & ~ours).sum()) == 0
