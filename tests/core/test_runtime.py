"""Random streams, devices, and the promise to leave a model as it was found."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from torch import nn

from assay.errors import OptionError
from assay.runtime import (
    _processor_flags,
    choose_device,
    describe_environment,
    generator,
    has_fast_bfloat16,
    preserved,
)


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


class Rewrites(nn.Module):
    """Overwrites a buffer whose entries share memory, a sparse one, one with a NaN, and one of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("expanded", torch.ones(1).expand(3))
        self.register_buffer("sparse", torch.eye(2).to_sparse())
        self.register_buffer("nan", torch.tensor([float("nan"), 1.0]))
        self.register_buffer("grown", torch.zeros(2))
        self.register_buffer("absent", None)
        self.register_buffer("anywhere", torch.zeros(2, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.expanded.data = torch.zeros(3)
        self.sparse.mul_(2)
        self.nan[1] = 5.0
        self.grown.data = torch.ones(4)
        self.absent = x
        return x


def test_preserved_puts_unusual_buffers_back() -> None:
    model = Rewrites()
    with preserved(model):
        model(torch.ones(2))
    assert torch.equal(model.expanded, torch.ones(3))
    assert torch.equal(model.sparse.to_dense(), torch.eye(2))
    assert model.nan.isnan().tolist() == [True, False]
    assert float(model.nan[1]) == 1
    assert torch.equal(model.grown, torch.zeros(2))
    assert model.absent is None


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


def test_fast_bfloat16_is_read_from_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, fast in (("fpu avx512f avx512_bf16", True), ("fpu amx_bf16", True), ("fpu avx512f", False), ("", False)):
        monkeypatch.setattr("assay.runtime._processor_flags", lambda flags=flags: frozenset(flags.split()))
        assert has_fast_bfloat16(torch.device("cpu")) == fast
        assert not has_fast_bfloat16(torch.device("mps"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/cpuinfo is Linux's")
def test_the_processors_flags_are_found() -> None:
    assert {"sse2", "asimd"} & _processor_flags()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_freed_memory_is_kept_where_glibc_is() -> None:
    code = (
        "import resource, torch\n"
        "from assay.runtime import keep_freed_memory\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    for _ in range(10): torch.ones(16 * 2**20)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "former = faults()\n"
        "assert keep_freed_memory()\n"
        "faults()\n"
        "print(former, faults())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    former, after = map(int, done.stdout.split())
    assert after < former / 5
