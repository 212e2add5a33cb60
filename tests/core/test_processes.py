"""Data parallelism by one all-reduce, and interrupts that wait for the step to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing, nn

from assay.runtime.processes import ALONE, Processes, deferred_interrupts


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def work(rank: int, folder: str) -> None:
    """What each of two processes does: everything is compared with what one process computes of both."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    processes = Processes(rank, 2)
    model = net(rank)
    processes.share_weights(model)
    draws = torch.Generator().manual_seed(0)
    inputs = torch.rand(2, 8, 3, generator=draws)
    model(inputs[rank]).square().sum().backward()
    if rank == 1:
        model[2].bias.grad = None  # counts as zero
    processes.sum_gradients(model)
    processes.average_buffers(model)
    unequal = net(0)
    unequal[1].running_var.fill_(rank)
    processes.average_buffers(unequal, share=(0.75, 0.25)[rank])
    result = {
        "unequal": unequal[1].running_var,
        "weights": model.state_dict(),
        "gradients": [parameter.grad for parameter in model.parameters()],
        "numbers": processes.sum_numbers(rank + 1, torch.tensor(0.5)),
        "tensor": processes.sum_tensor(torch.full((2,), rank + 1)),
        "gathered": processes.gather(f"from {rank}"),
    }
    torch.save(result, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_compute_what_one_does_of_both_halves(tmp_path: Path) -> None:
    multiprocessing.start_processes(work, args=(str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    models = [net(0), net(0)]
    inputs = torch.rand(2, 8, 3, generator=torch.Generator().manual_seed(0))
    for model, part in zip(models, inputs, strict=True):
        model(part).square().sum().backward()
    models[1][2].bias.grad.zero_()
    expected = [a.grad + b.grad for a, b in zip(*(model.parameters() for model in models), strict=True)]
    for result in (first, second):
        for gradient, total in zip(result["gradients"], expected, strict=True):
            torch.testing.assert_close(gradient, total)
        mean = (models[0][1].running_var + models[1][1].running_var) / 2
        torch.testing.assert_close(result["weights"]["1.running_var"], mean)
        assert result["weights"]["1.num_batches_tracked"] == 1, "whole numbers are not averaged"
        assert result["unequal"].unique().tolist() == [0.25], "a process weighs as many samples as it had"
        assert result["numbers"] == (3.0, 1.0)
        assert result["tensor"].tolist() == [3, 3]
        assert result["gathered"] == ["from 0", "from 1"]


def test_one_process_does_nothing_of_it() -> None:
    model = net(0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ALONE.share_weights(model)
    ALONE.sum_gradients(model)
    ALONE.average_buffers(model)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert ALONE.sum_numbers(2, 0.5) == (2.0, 0.5)
    assert ALONE.gather("x") == ["x"]
    assert ALONE.leads


@pytest.fixture
def handlers() -> Iterator[None]:
    """Fails where a block leaves other signal handlers than it found."""
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    assert {number: signal.getsignal(number) for number in former} == former


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_deferred_and_the_second_is_not(number: signal.Signals) -> None:
    with deferred_interrupts(enabled=True) as interrupts:
        assert interrupts.pending is None
        os.kill(os.getpid(), number)
        assert interrupts.pending == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


@pytest.mark.usefixtures("handlers")
def test_interrupts_are_not_deferred_unless_enabled() -> None:
    with pytest.raises(KeyboardInterrupt), deferred_interrupts(enabled=False) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
    assert interrupts.pending is None
