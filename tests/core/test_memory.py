"""Memory that runs out halves the batches and loses nothing; a limit of memory is kept."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from assay.attacks import PGD, measure_robust_accuracy
from assay.check import Budget, run_check
from assay.cli.memory import parse_size
from assay.data.dataset import ImageDataset
from assay.errors import OptionError
from assay.models.calls import rows_that_fit
from assay.records.attack import RobustAccuracy
from assay.records.failure import FailedMeasurement
from assay.runtime.memory import batch_bytes, batch_memory, batch_share, ran_out_of_memory, run_in_memory

TINY = Budget(name="tiny", clean=None, attacked=24, probed=16, steps=2, sanity_samples=8, sanity_queries=5)


class Scarce(nn.Module):
    """A linear model whose backward pass finds memory for so many pixel values of one batch only."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.fc, self.most = nn.Linear(3 * 128 * 128, 3), most
        with torch.no_grad():
            self.fc.weight.copy_(torch.randn(3, 3 * 128 * 128, generator=torch.Generator().manual_seed(0)) / 100)

    def forward(self, x: Tensor) -> Tensor:
        out = self.fc(x.flatten(1))
        if out.requires_grad and x.numel() > self.most:
            out.register_hook(self.refuse)
        return out

    @staticmethod
    def refuse(_: Tensor) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")


def pictures(n: int = 24) -> ImageDataset:
    images = torch.randint(0, 256, (n, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return ImageDataset(images, torch.arange(n) % 3, ("a", "b", "c"))


def test_a_backward_pass_that_finds_no_memory_is_made_in_smaller_batches() -> None:
    data = pictures()
    wanted = measure_robust_accuracy(Scarce(1e12), data, attack=PGD(steps=2))
    with batch_memory() as room:
        measured = measure_robust_accuracy(Scarce(3.5 * data.images[0].numel()), data, attack=PGD(steps=2))
    assert room.halvings >= 2
    assert torch.equal(measured.result.robust, wanted.result.robust)
    differs = (measured.result.adversarial - wanted.result.adversarial).abs() > 1e-5
    assert float(differs.float().mean()) < 1e-3  # where a gradient is nearly zero, rounding decides its sign
    assert batch_share() == 1.0


def test_a_check_loses_no_stage_and_says_so() -> None:
    data = pictures()
    checkup = run_check(Scarce(3.5 * data.images[0].numel()), data, budget=TINY)
    assert not list(checkup.each(FailedMeasurement))
    assert [attack.n for attack in checkup.each(RobustAccuracy)] == [24] * 4
    notes = [stage.note for stage in checkup.stages if stage.note]
    assert notes and all("memory ran out: measured in batches of 1/" in note for note in notes)
    assert set(notes) <= set(checkup.subject.notes)


def test_where_no_batch_is_small_enough_the_measurement_fails_in_one_line() -> None:
    checkup = run_check(Scarce(0), pictures(), budget=TINY)
    failures = list(checkup.each(FailedMeasurement))
    assert {"attack sanity", "accuracy against epsilon", "input gradients"} <= {each.stage for each in failures}
    assert all(
        "can't allocate memory" in each.reason and "fewer or smaller images" in each.way_out for each in failures
    )


def test_other_errors_are_not_tried_again() -> None:
    calls = []

    def run() -> None:
        calls.append(1)
        raise ValueError("no matter of memory")

    with pytest.raises(ValueError, match="no matter"):
        run_in_memory(run)
    assert len(calls) == 1
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = MemoryError()
    assert ran_out_of_memory(wrapped)


def test_a_limit_makes_batches_smaller_and_one_below_what_is_filled_is_refused() -> None:
    usual, rows = batch_bytes(gradients=True), rows_that_fit((3, 224, 224), most=999)
    said = r"memory: expected at least .* GB, as the model, the data and torch fill"
    with pytest.raises(OptionError, match=said), batch_memory(10**6):
        pass
    if sys.platform == "linux":
        script = """
import torch
from assay.runtime.memory import _status, batch_bytes, batch_memory
from assay.models.calls import rows_that_fit
limit = _status("VmRSS") + 500_000_000
with batch_memory(limit):
    print(batch_bytes(gradients=True), rows_that_fit((3, 224, 224), most=999))
    try:
        torch.ones(200_000_000)
        print("got")
    except RuntimeError:
        print("refused")
torch.ones(200_000_000)
"""
        done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=120)
        numbers, outcome = done.stdout.splitlines()
        fewer, fewer_rows = map(int, numbers.split())
        assert (fewer < usual / 4, fewer_rows < rows, outcome) == (True, True, "refused")


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("2.5g", 25 * 10**8), ("900MiB", 900 * 2**20), ("1024", 1024), ("1 kB", 1000), (None, None)],
)
def test_sizes_in_words(text: str | None, size: int | None) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "4 apples", "-1GB", "1.2.3G", "GB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="--memory: expected a size such as 4GB or 900MB, got"):
        parse_size(text)
