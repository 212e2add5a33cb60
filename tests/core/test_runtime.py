"""Random streams, devices, and the promise to leave a model as it was found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.errors import OptionError
from assay.runtime import choose_device, describe_environment, generator, preserved


def test_a_key_gives_one_stream_and_neighbouring_keys_unrelated_ones() -> None:
    draws = {key: torch.rand(1000, generator=generator(*key)) for key in [(0,), (1,), (0, 0), (0, 1), (1, 0)]}
    assert torch.equal(draws[(0, 1)], torch.rand(1000, generator=generator(0, 1)))
    keys = list(draws)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            correlation = torch.corrcoef(torch.stack([draws[a], draws[b]]))[0, 1]
            assert abs(float(correlation)) < 0.12, (a, b)


def test_preserved_puts_everything_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.LazyLinear(2))
    images = torch.rand(8, 3, 6, 6)
    model(images).sum().backward()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    gradient = model[4].weight.grad
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected_draw = torch.rand(1)
    torch.manual_seed(3)
    with preserved(model, training=True):
        assert model[1].training
        assert model[4].weight.grad is None
        model(images).sum().backward()
        model[0].weight.requires_grad_(True)
    assert [module.training for module in model] == [True, False, True, True, True]
    assert not model[0].weight.requires_grad
    assert model[4].weight.grad is gradient
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.rand(1), expected_draw)


def test_preserved_puts_everything_back_after_an_error() -> None:
    model = nn.Sequential(nn.Dropout())
    with pytest.raises(ZeroDivisionError), preserved(model, training=False):
        raise ZeroDivisionError
    assert model.training
    assert model[0].training


def test_an_unknown_device_is_refused_by_name() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(OptionError, match="device: expected auto or one of: .*cpu, got tpu"):
        choose_device("tpu")


def test_the_environment_names_no_machine() -> None:
    record = describe_environment(torch.device("cpu"))
    assert record.torch == torch.__version__
    assert record.cores >= 1
    assert record.memory_gib > 0
