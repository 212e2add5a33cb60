"""Folding BatchNorm into a copy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks.surrogate import agrees, fold_batch_norm


class Residual(nn.Module):
    """Post- and pre-activation norms, a shared norm, and a convolution whose output is used twice."""

    def __init__(self, *, reuse: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.before = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(6, affine=False)
        self.head = nn.Linear(6, 5)
        self.last = nn.BatchNorm1d(5)
        self.reuse = reuse

    def forward(self, x):
        y = self.conv1(x)
        x = self.bn1(y) + (y if self.reuse else 0)
        x = x.relu()
        x = x + self.bn2(self.conv2(self.before(x).relu()))
        return self.last(self.head(x.mean((2, 3))))


def settled(net: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.normal_(module.bias)
    for _ in range(30):
        net(torch.randn(16, 3, 8, 8) * 2 + 1)
    return net.eval()


X = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_every_norm_after_a_linear_layer_is_folded_and_the_answers_stay():
    net = settled(Residual())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    folded, count = fold_batch_norm(net, X)
    assert count == 3
    assert folded is not net
    assert isinstance(folded.bn1, nn.Identity)
    assert isinstance(folded.last, nn.Identity)
    assert isinstance(folded.before, nn.BatchNorm2d)
    with torch.no_grad():
        assert torch.allclose(folded(X), net(X), atol=1e-5)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(not module._forward_hooks for module in net.modules())


def test_a_fold_that_changes_answers_is_refused():
    net = settled(Residual(reuse=True))
    assert fold_batch_norm(net, X) == (net, 0)


class ReadsItsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn(self.conv(x)).mean((2, 3)) * self.bn.weight


class NoCopy(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :2]

    def __deepcopy__(self, memo):
        raise RuntimeError("one of a kind")


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(192, 3)),
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
        nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Flatten()),
        ReadsItsNorm(),
        NoCopy(),
    ],
    ids=["no norm", "batch statistics", "parametrized", "reads its norm", "cannot be copied"],
)
def test_what_cannot_be_folded_is_used_as_it_is(net):
    assert fold_batch_norm(net.eval(), X) == (net, 0)


def test_a_layer_that_runs_twice_is_left_alone():
    conv = nn.Conv2d(3, 3, 3, padding=1)
    net = settled(nn.Sequential(conv, nn.BatchNorm2d(3), conv, nn.BatchNorm2d(3), nn.Flatten()))
    assert fold_batch_norm(net, X) == (net, 0)


def test_agreement_is_relative_to_the_range_of_the_logits():
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        spread = float(net(X).max() - net(X).min())
        bias = other.get_parameter("1.bias")
        bias.add_(0.5e-4 * spread)
        assert agrees(other, net, X)
        bias.add_(1e-4 * spread)
        assert not agrees(other, net, X)
