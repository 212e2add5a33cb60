"""Epochs that leave out what is learnt best: whom, how many, and to the bit after a stop and in two processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.sequences import make_task
from assay.errors import InterruptedRunError, OptionError
from assay.runtime.processes import ALONE, Processes
from assay.training.checkpoint import RunState
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe, load_recipe
from assay.training.sampling import PrunedSampler
from assay.training.sections import Nothing, PruneOptions
from assay.training.tasks import ImageTask

Make = Callable[[], nn.Module]


def with_prune(recipe: Recipe, **changes: object) -> Recipe:
    """Six steps, four, six."""
    pruned = PruneOptions(share=0.4, start=0.3, end=0.6)
    return recipe.model_copy(update={"prune": pruned, "augment": Nothing(), **changes})


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    share=st.floats(0, 0.5),
    epochs=st.floats(0.1, 6),
    start=st.floats(0, 0.99),
)
def test_steps_and_epochs_agree_with_counting(
    n: int, batch_size: int, share: float, epochs: float, start: float
) -> None:
    options = PruneOptions(share=share, start=start, end=1.0) if share else PruneOptions()
    sampler = PrunedSampler(n, batch_size, 0, epochs, options)
    counted = [epoch for epoch in range(8) for _ in range(sampler.length(epoch))]
    total = sampler.steps(epochs)
    assert [sampler.epoch(step) for step in range(total)] == counted[:total]
    assert sampler.length(0) == sampler.steps_per_epoch
    assert 1 <= total <= max(1, sampler.steps(7))
    for epoch in range(1, 8):
        complete = not start <= epoch / epochs < 1.0
        assert sampler.length(epoch) == sampler.steps_per_epoch if complete else sampler.length(epoch) >= 1


def test_only_the_easier_are_left_out_and_the_others_are_all_there() -> None:
    sampler = PrunedSampler(100, 10, 3, 5, PruneOptions(share=0.3, start=0.4, end=0.8))
    assert [sampler.length(epoch) for epoch in range(5)] == [10, 10, 7, 7, 10]
    assert sampler.steps(5) == 44
    losses = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float()
    losses[losses.argsort()[0]] = torch.inf  # never seen
    left_out = sampler.choose(losses, epoch=2)
    assert left_out is not None
    assert int(left_out.sum()) == 30
    assert losses[left_out].max() <= 60  # of the 60 easiest, none of those never seen
    assert not torch.equal(left_out.nonzero()[:, 0], losses.argsort()[:30].sort().values)  # by chance, not the easiest
    seen = torch.cat([sampler.indices(step, left_out=left_out) for step in range(20, 27)])
    assert torch.equal(seen.sort().values, (~left_out).nonzero()[:, 0])
    assert sampler.choose(losses, epoch=4) is None


def test_the_losses_kept_are_those_of_the_network_at_that_step(blobs: ImageDataset, recipe: Recipe) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    pruned = with_prune(recipe, micro_batch=10)
    task = ImageTask(model, blobs, pruned, seed=0, processes=ALONE, perturb=None, loss=None)
    state = RunState()
    chosen = task._sampler.indices(0)
    for _, micro_batch in task.micro_batches(0, state):
        micro_batch(model)
    task.keep_losses(0, state)
    assert state.losses is not None
    for piece in chosen.split(10):
        logits = model(to_unit_range(blobs.images[piece]))
        each = F.cross_entropy(logits, blobs.labels[piece], reduction="none")
        torch.testing.assert_close(state.losses[piece], (each - each.mean()).detach())
    assert int(state.losses.isinf().sum()) == len(blobs) - len(chosen)


def test_a_run_leaves_out_samples_that_it_had_learnt_best(blobs: ImageDataset, recipe: Recipe) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    place = {image.numpy().tobytes(): i for i, image in enumerate(blobs.images)}
    visits: list[list[int]] = []
    losses = torch.full((len(blobs),), torch.inf)

    def look(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        visits.append([place[(255 * image).round().byte().numpy().tobytes()] for image in images])
        if len(visits) <= 6:  # the first epoch
            with torch.no_grad():
                each = F.cross_entropy(model(images), labels, reduction="none")
            losses[torch.tensor(visits[-1])] = each - each.mean()
        return images

    fit(model, blobs, recipe=with_prune(recipe), perturb=look)
    assert [len(visit) for visit in visits] == [20] * 16
    second = {i for visit in visits[6:10] for i in visit}
    missing = set(range(120)) - second
    assert len(missing) == 40
    assert missing < set(losses.argsort()[:80].tolist())
    assert {i for visit in visits[10:] for i in visit} == set(range(120))


def test_two_processes_note_the_losses_of_the_whole_batch_between_them(blobs: ImageDataset, recipe: Recipe) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    pruned = with_prune(recipe, micro_batch=10)

    def noted(processes: Processes) -> Tensor:
        task = ImageTask(model, blobs, pruned, seed=0, processes=processes, perturb=None, loss=None)
        for _, micro_batch in task.micro_batches(0, RunState()):
            micro_batch(model)
        return task._losses

    first, second, alone = noted(Processes(0, 2)), noted(Processes(1, 2)), noted(ALONE)
    assert torch.equal(first + second, alone)
    assert first.any()
    assert second.any()


@pytest.mark.parametrize("stop_at", [3, 5, 7])
def test_stopped_and_resumed_it_leaves_out_the_same(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe, stop_at: int
) -> None:
    pruned = with_prune(recipe)
    complete, resumed = smallnet(), smallnet()
    fit(complete, blobs, recipe=pruned, seed=4)

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match=rf"after step {stop_at + 1} of 16"):
        fit(smallnet(), blobs, recipe=pruned, seed=4, out=tmp_path, on_step=stop)
    run = fit(resumed, blobs, recipe=pruned, seed=4, out=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(complete.parameters(), resumed.parameters(), strict=True))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "epoch"] == [6, 10, 16]
    assert len(run.epochs) == 3


@pytest.mark.full
def test_torchrun_trains_the_same_network(tmp_path: Path) -> None:
    arguments = (
        "assay", "train", "digits", "--limit", "320", "--no-test", "--set", "epochs=3", "--set", "prune.share=0.4",
        "--set", "prune.start=0.3", "--set", "model_options.widths=[4,4,8]", "--set", "micro_batch=16",
    )  # fmt: skip
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    losses = []
    for name, command in (("one", arguments), ("two", (*launcher, *arguments))):
        done = subprocess.run(
            [sys.executable, "-m", *command, "--out", str(tmp_path / name)],
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if line["kind"] == "step"])
    assert len(losses[0]) == 5 + 3 + 3
    assert losses[1] == pytest.approx(losses[0], rel=2e-3)


def test_a_loss_of_ones_own_and_sequences_cannot_be_pruned_by(
    smallnet: Make, blobs: ImageDataset, recipe: Recipe
) -> None:
    def own(images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.square().sum()

    with pytest.raises(OptionError, match=r"prune\.share: expected 0 where the loss is your own, got 0\.4"):
        fit(smallnet(), blobs, recipe=with_prune(recipe), loss=own)
    adding = load_recipe("adding-lstm").model_copy(update={"prune": PruneOptions(share=0.4)})
    with pytest.raises(OptionError, match=r"prune: expected none of it: adding is a task of sequences"):
        fit(smallnet(), make_task("adding", length=10), recipe=adding)


def test_an_end_before_the_start_is_refused() -> None:
    with pytest.raises(OptionError, match=r"prune\.end: expected a share above the start, 0\.9, got 0\.8"):
        load_recipe("digits", overrides=["prune.share=0.4", "prune.start=0.9", "prune.end=0.8"])
