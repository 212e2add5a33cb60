"""The training loop: learns, repeats to the bit, resumes to the bit, stops in good order."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.sequences import SYNTHETIC_TASKS, make_task
from assay.data.sources import load_dataset
from assay.errors import DivergedError, InterruptedRunError, OptionError, OutputError
from assay.evaluate import measure_clean_accuracy
from assay.training.classifier import build_for, train_classifier
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe, load_recipe, recipe_names
from assay.training.sampling import Sampler
from assay.training.sequence_model import build_sequence_for, train_sequence_model

Make = Callable[[], nn.Module]


def with_(recipe: Recipe, **changes: object) -> Recipe:
    return Recipe.parse({**recipe.model_dump(), **changes})


def states_equal(first: nn.Module, second: nn.Module) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_it_learns_and_leaves_the_model_in_evaluation_mode(smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    model = smallnet()
    run = fit(model, blobs, recipe=with_(recipe, epochs=6), validation=blobs)
    assert measure_clean_accuracy(model, blobs).accuracy > 0.95
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [epoch.steps for epoch in run.epochs] == [6] * 6
    assert run.epochs[-1].loss < run.epochs[0].loss
    assert run.epochs[-1].validation_accuracy == measure_clean_accuracy(model, blobs).accuracy
    assert run.n == 120


def test_plain_sgd_equals_the_loop_written_out(smallnet: Make, blobs: ImageDataset) -> None:
    recipe = Recipe.parse(
        {
            "name": "plain",
            "epochs": 2,
            "batch_size": 40,
            "label_smoothing": 0.1,
            "optimizer": {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
            "schedule": {"name": "linear"},
            "augment": {"name": "none"},
        }
    )
    ours, theirs = (nn.Sequential(*(m for m in smallnet() if not isinstance(m, nn.Dropout))) for _ in range(2))
    fit(ours, blobs, recipe=recipe, seed=3)

    decayed = [theirs[0].weight, theirs[3].weight, theirs[6].weight]
    rest = [parameter for parameter in theirs.parameters() if all(parameter is not other for other in decayed)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=True)
    sampler = Sampler(120, 40, 3)
    for step in range(6):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step / 6)
        chosen = sampler.indices(step)
        optimizer.zero_grad()
        F.cross_entropy(
            theirs(to_unit_range(blobs.images[chosen])), blobs.labels[chosen], label_smoothing=0.1
        ).backward()
        optimizer.step()
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, theirs.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_one_seed_gives_equal_bits_and_another_does_not(smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    first, second, other = smallnet(), smallnet(), smallnet()
    fit(first, blobs, recipe=recipe, seed=1)
    torch.rand(7)  # what the program drew before does not matter
    fit(second, blobs, recipe=recipe, seed=1)
    fit(other, blobs, recipe=recipe, seed=2)
    assert states_equal(first, second)
    assert not states_equal(first, other)


def test_training_leaves_the_programs_random_numbers_alone(smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(smallnet(), blobs, recipe=with_(recipe, epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_micro_batches_sum_to_the_gradient_of_the_whole_batch(blobs: ImageDataset, recipe: Recipe) -> None:
    models = []
    for micro_batch in (None, 5):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        fit(model, blobs, recipe=with_(recipe, micro_batch=micro_batch))
        models.append(model)
    for ours, theirs in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


FEATURES = {
    "adamw": {"optimizer": {"name": "adamw", "lr": 0.01}},
    "muon": {"optimizer": {"name": "muon", "lr": 0.05, "side_lr": 0.05, "unit_norm": True}},
    "muon in bfloat16": {"optimizer": {"name": "muon", "lr": 0.05, "side_lr": 0.05}, "precision": "bfloat16"},
    "averaged": {"average": {"decay": 0.9}},
    "mixup": {"mix": {"name": "mixup"}},
    "cutmix": {"mix": {"name": "cutmix", "alpha": 1.0}},
    "adversary": {"adversary": {"name": "pgd", "steps": 2, "step_size": 0.02, "watch": 20}},
    "windows": {"resolution": [[0.0, 10], [0.5, 12]], "optimizer": {"lr": 0.05}},
    "resized": {"resolution": [[0.0, 8], [0.5, 12]], "shrink": "resize"},
    "adaptive clipping": {"clip": {"name": "adaptive", "limit": 0.01}},
}


@pytest.mark.parametrize("changes", FEATURES.values(), ids=FEATURES.keys())
@pytest.mark.parametrize("stop_at", [1, 8])
def test_stopped_and_resumed_it_ends_in_the_same_weights(
    tmp_path: Path, blobs: ImageDataset, recipe: Recipe, changes: dict[str, object], stop_at: int
) -> None:
    def convnet() -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Dropout(0.2), nn.Linear(24, 3),
        )  # fmt: skip

    changed = with_(recipe, epochs=2, **changes)
    uninterrupted, parts = convnet(), convnet()
    expected = fit(uninterrupted, blobs, recipe=changed, seed=4)

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match=rf"interrupted after step {stop_at + 1} of 12; go on with --resume"):
        fit(parts, blobs, recipe=changed, seed=4, out=tmp_path, on_step=stop)
    resumed = convnet()
    run = fit(resumed, blobs, recipe=changed, seed=4, out=tmp_path, resume=True)
    assert states_equal(uninterrupted, resumed)
    saved = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in uninterrupted.state_dict().items())
    assert [epoch.loss for epoch in run.epochs] == [epoch.loss for epoch in expected.epochs]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == list(range(1, 13))
    assert [line["epoch"] for line in lines if line["kind"] == "epoch"] == [0, 1]


def test_resuming_another_run_names_the_difference(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe
) -> None:
    fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path)
    with pytest.raises(
        OptionError, match=r"state\.pt: recipe\.epochs: expected 1\.0 as in the run to resume, got 3\.0"
    ):
        fit(smallnet(), blobs, recipe=recipe, out=tmp_path, resume=True)
    with pytest.raises(OptionError, match=r"state\.pt: recipe\.optimizer\.name: expected 'sgd' as in .*, got 'adamw'"):
        fit(smallnet(), blobs, recipe=with_(recipe, optimizer={"name": "adamw"}, epochs=1), out=tmp_path, resume=True)
    with pytest.raises(OptionError, match=r"state\.pt: seed: expected 0 as in the run to resume, got 9"):
        fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path, resume=True, seed=9)
    other = replace(
        blobs, images=blobs.images ^ (torch.arange(120) == 7).byte().view(-1, 1, 1, 1)
    )  # one image, one bit
    with pytest.raises(OptionError, match=r"state\.pt: data\.checksum: expected"):
        fit(smallnet(), other, recipe=with_(recipe, epochs=1), out=tmp_path, resume=True)


def test_a_damaged_state_is_refused_in_one_line(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe
) -> None:
    fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path)
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(OptionError, match=r"state\.pt: expected the state of a run, got a damaged file"):
        fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path, resume=True)


def test_a_learning_rate_that_explodes_names_step_layer_and_checkpoint(
    tmp_path: Path, blobs: ImageDataset, recipe: Recipe
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 50), nn.ReLU(), nn.Linear(50, 3))
    hot = with_(recipe, optimizer={"lr": 1e6})
    with pytest.raises(DivergedError, match=r"^step \d+: the loss is .*that of step \d+ in ") as caught:
        fit(model, blobs, recipe=hot, out=tmp_path, checkpoint_seconds=0)
    stored = int(str(caught.value).split("that of step ")[1].split()[0])
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    assert content["step"] == stored
    assert all(bool(tensor.isfinite().all()) for tensor in content["model"].values())


def test_a_nan_is_traced_to_the_layer_that_made_it(blobs: ImageDataset, recipe: Recipe) -> None:
    class Bad(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / 0 * 0 if self.training else x

    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 8), Bad(), nn.Linear(8, 3))
    with pytest.raises(
        DivergedError, match=r"^step 1: the loss is nan .*first in layer 2 \(Bad, output\); no checkpoint"
    ):
        fit(model, blobs, recipe=recipe)


def test_perturb_sees_pixels_and_replaces_them(smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    seen = []

    def blacken(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        assert model.training
        seen.append((images.shape, float(images.min()), float(images.max()), labels.shape))
        return torch.zeros_like(images)

    model = smallnet()
    fit(model, blobs, recipe=with_(recipe, epochs=1), perturb=blacken)
    assert len(seen) == 6
    assert seen[0][0] == (20, 1, 12, 12)
    assert 0 <= seen[0][1] < seen[0][2] <= 1
    assert measure_clean_accuracy(model, blobs).accuracy < 0.6  # black images teach nothing


def test_a_full_disk_is_an_error_and_the_former_checkpoint_stays(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path)
    before = (tmp_path / "state.pt").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written.*No space left on device"):
        fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path, resume=True)
    assert (tmp_path / "state.pt").read_bytes() == before
    assert not list(tmp_path.glob(".*.tmp"))


def test_metrics_hold_what_the_callback_saw(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe
) -> None:
    seen: list[StepMetrics] = []
    fit(smallnet(), blobs, recipe=with_(recipe, epochs=1), out=tmp_path, on_step=seen.append)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines if line["kind"] == "step"] == [metrics.loss for metrics in seen]
    assert [metrics.step for metrics in seen] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(m.gradient_norm) and m.gradient_norm > 0 for m in seen)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["data"]["name"] == "blobs"
    assert config["model"]["name"] == "torch.nn.modules.container:Sequential"  # somebody's own, not the recipe's
    assert "mean" not in config["model"]


def test_bfloat16_trains_as_well(smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    model = smallnet()
    fit(model, blobs, recipe=with_(recipe, epochs=6, precision="bfloat16"))
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert measure_clean_accuracy(model, blobs).accuracy > 0.9


@pytest.mark.parametrize("fast", [False, True])
def test_auto_takes_bfloat16_where_the_machine_multiplies_it_and_the_run_keeps_which_it_was(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.training.loop.has_fast_bfloat16", lambda _: fast)
    automatic, named = smallnet(), smallnet()
    run = fit(automatic, blobs, recipe=with_(recipe, precision="auto"), out=tmp_path)
    fit(named, blobs, recipe=with_(recipe, precision="bfloat16" if fast else "float32"))
    assert states_equal(automatic, named)
    stored = json.loads((tmp_path / "config.json").read_text())["recipe"]["precision"]
    assert stored == run.precision == ("bfloat16" if fast else "float32")


def test_an_adversary_works_in_the_precision_of_the_run(blobs: ImageDataset, recipe: Recipe) -> None:
    seen = set()

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(144, 3)

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.linear(images.flatten(1))
            if self.training and torch.is_grad_enabled():
                seen.add(logits.dtype)
            return logits

    adversary = {"name": "pgd", "steps": 2, "watch": 0}
    fit(Watched(), blobs, recipe=with_(recipe, epochs=1, precision="bfloat16", adversary=adversary))
    assert seen == {torch.bfloat16}


def test_the_time_is_split_without_rest(tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe) -> None:
    changed = with_(recipe, adversary={"name": "pgd", "steps": 1, "watch": 20})
    run = fit(smallnet(), blobs, recipe=changed, validation=blobs, out=tmp_path)
    split = run.time_split
    assert split is not None
    assert all(took > 0 for took in split.model_dump().values())
    steps = split.images + split.adversary + split.network + split.update
    assert steps == pytest.approx(run.seconds, rel=1e-6)
    without = fit(smallnet(), blobs, recipe=recipe).time_split
    assert without is not None
    assert without.adversary == 0


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_makes_a_step(name: str) -> None:
    few = ["batch_size=8", "micro_batch=4", "epochs=1"]
    recipe = load_recipe(name, overrides=few)
    if recipe.data in SYNTHETIC_TASKS:
        recipe = load_recipe(name, overrides=[*few, "sequence.samples=8"])
        task = make_task(recipe.data, length=recipe.sequence.length)
        trained = train_sequence_model(task, recipe=recipe)
        start = build_sequence_for(recipe, task, seed=0)
        assert all(not torch.equal(a, b) for a, b in zip(trained.model.parameters(), start.parameters(), strict=True))
        return
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = ImageDataset(images, torch.arange(8) % 4, ("a", "b", "c", "d"), split="train")
    watched = ["adversary.watch=8"] if recipe.adversary.name != "none" else []
    recipe = load_recipe(name, overrides=[*few, *watched, "refresh_batchnorm=8"])
    trained = train_classifier(data, recipe=recipe)
    before = build_for(recipe, data, seed=0)
    moved = [not torch.equal(a, b) for a, b in zip(trained.model.parameters(), before.parameters(), strict=True)]
    trainable = [parameter.requires_grad for parameter in before.parameters()]
    assert moved == trainable


def test_an_adversary_that_fails_is_replaced_and_logged(
    tmp_path: Path, smallnet: Make, blobs: ImageDataset, recipe: Recipe
) -> None:
    changed = with_(recipe, epochs=2, adversary={"name": "n-fgsm", "watch": 20, "gap": 0.0, "fallback_steps": 2})
    model = smallnet()
    fit(model, blobs, recipe=changed, out=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    watches = [line for line in lines if line["kind"] == "watch"]
    assert [line["epoch"] for line in watches] == [0, 1]
    for line in watches:
        assert line["n"] == 20
        assert line["fallen_back"] >= (line["fgsm_accuracy"] - line["pgd_accuracy"] > 0)


def test_a_run_from_before_sections_were_choices_is_resumed(tmp_path: Path) -> None:
    """The run was interrupted after three of five steps; its state lists all options of all choices."""
    former = Path(__file__).parent / "former_run"
    for name in ("config.json", "state.pt"):
        (tmp_path / name).write_bytes((former / name).read_bytes())
    recipe = load_recipe("digits", overrides=["epochs=1", "model_options.widths=[4, 4, 4]"])
    data = load_dataset("digits", split="train", limit=320)
    steps: list[StepMetrics] = []
    resumed = train_classifier(data, recipe=recipe, out=tmp_path, resume=True, on_step=steps.append)
    complete = train_classifier(data, recipe=recipe)
    assert [metrics.step for metrics in steps] == [4, 5]
    # The first three steps were made on another machine, whose sums round otherwise: by far less than two steps move.
    third = torch.load(former / "state.pt", weights_only=True)["model"]
    end, whole_run = resumed.model.state_dict(), complete.model.state_dict()
    moved = sum(float((whole_run[name] - third[name]).square().sum()) for name, _ in complete.model.named_parameters())
    apart = sum(float((whole_run[name] - end[name]).square().sum()) for name, _ in complete.model.named_parameters())
    assert apart < 1e-4 * moved
    assert "betas" not in json.loads((tmp_path / "config.json").read_text())["recipe"]["optimizer"]
