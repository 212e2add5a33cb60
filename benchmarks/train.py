"""How fast does training go, and how accurate does it get? Against the same network in a plain PyTorch loop.

Speed: one step of a recipe (forward, backward, update) on random images, against the same step in float32 and against
peers that take the whole batch at once, in torch's default layout and in channels_last; interleaved, medians. Beside
it the achieved GFLOP/s (counted by torch's own counter) and the share of the time that is not spent in convolutions
(torch's profiler).

Accuracy, with --seeds: whole runs of the recipe on CIFAR-10, the test set read once each; mean and standard deviation.

    python benchmarks/train.py --json result.json [--quick] [--recipe cifar10-fast] [--seeds 5 --data-dir DIR]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from assay.data.dataset import ImageDataset
from assay.runtime import describe_environment, has_fast_bfloat16, keep_freed_memory
from assay.training.augmentation import View, build_augmentation
from assay.training.classifier import build_for, train_classifier
from assay.training.optimizers import build_optimizers
from assay.training.recipes import Recipe, load_recipe
from assay.training.sampling import split_batch
from assay.training.step import Objective, accumulate_gradient, image_losses

CONVOLUTIONS = ("aten::convolution_backward", "aten::mkldnn_convolution", "aten::addmm", "aten::mm")


def random_images(count: int) -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return ImageDataset(images, torch.arange(count) % 10, tuple("0123456789"), name="random", split="train")


def our_step(recipe: Recipe, data: ImageDataset) -> Callable[[], None]:
    """What the training loop does in a step, at full resolution, in the precision it would choose here."""
    settled = recipe.settled(fast_bfloat16=has_fast_bfloat16(torch.device("cpu")))
    model = build_for(recipe, data, seed=0).to(memory_format=torch.channels_last).train()
    optimizers = build_optimizers(model, recipe.optimizer)
    augment = build_augmentation(recipe.augment)

    losses = partial(
        image_losses,
        objective=Objective(10, recipe.label_smoothing, precision=settled.precision),
        prepare=View(augment, None, 0, 0),
        layout=torch.channels_last,
    )
    pieces = partial(split_batch, data, torch.arange(recipe.batch_size), size=recipe.micro_batch)

    def step() -> None:
        model.zero_grad(set_to_none=True)
        accumulate_gradient(
            model,
            [(number, partial(losses, batch=batch)) for number, batch in pieces()],
            batch_size=recipe.batch_size,
            key=(0,),
        )
        for optimizer in optimizers:
            optimizer.step()

    return step


def plain_step(recipe: Recipe, data: ImageDataset, layout: torch.memory_format) -> Callable[[], None]:
    """The loop of a tutorial: the same network and rule, the batch in one piece, no augmentation to pay for."""
    model = build_for(recipe, data, seed=0).to(memory_format=layout).train()
    optimizers = build_optimizers(model, recipe.optimizer)
    images = (data.images[: recipe.batch_size].float() / 255).contiguous(memory_format=layout)
    labels = data.labels[: recipe.batch_size]

    def step() -> None:
        model.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing).backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def seconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def measure_speed(recipe: Recipe, *, repeats: int) -> tuple[list[dict], dict]:
    data = random_images(recipe.batch_size)
    steps = {
        "ours": our_step(recipe, data),
        "ours, float32": our_step(recipe.model_copy(update={"precision": "float32"}), data),
        "whole batch, channels_last": plain_step(recipe, data, torch.channels_last),
        "whole batch, default layout": plain_step(recipe, data, torch.contiguous_format),
    }
    for step in steps.values():
        step()
    times = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            times[name].append(seconds(step))
    speed = {name: recipe.batch_size / statistics.median(values) for name, values in times.items()}
    spread = {name: statistics.stdev(v) / statistics.mean(v) if repeats > 1 else 0.0 for name, v in times.items()}
    rows = [
        {
            "case": f"training step of {recipe.name}",
            "peer": peer if peer.startswith("ours") else f"plain PyTorch, {peer}",
            "unit": "images/s",
            "ours": speed["ours"],
            "theirs": speed[peer],
            "ratio": speed["ours"] / speed[peer],
            "spread": spread[peer],
        }
        for peer in list(steps)[1:]
    ]
    return rows, describe_step(recipe, data, speed["ours"])


def describe_step(recipe: Recipe, data: ImageDataset, images_per_second: float) -> dict:
    """FLOPs of an image, GFLOP/s, and where the time of a step goes."""
    model = build_for(recipe, data, seed=0)
    with FlopCounterMode(display=False) as counter:
        F.cross_entropy(model(data.images[:1].float() / 255).expand(2, 10), data.labels[:2]).backward()
    flops = counter.get_total_flops()
    step = our_step(recipe, data)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    events = profiler.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    inside = sum(event.self_cpu_time_total for event in events if event.key in CONVOLUTIONS)
    return {
        "recipe": recipe.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "mflop_per_image": flops / 1e6,
        "images_per_second": images_per_second,
        "gflop_per_second": flops * images_per_second / 1e9,
        "share_outside_convolutions": 1 - inside / total,
    }


def measure_accuracy(recipe: Recipe, *, seeds: int, data_dir: Path | None) -> list[dict]:
    from assay.data.sources import load_dataset
    from assay.evaluate import measure_clean_accuracy
    from assay.models.wrappers import AveragedViews

    train = load_dataset(recipe.data, split="train", data_dir=data_dir)
    test = load_dataset(recipe.data, split="test", data_dir=data_dir)
    runs = []
    for seed in range(seeds):
        trained = train_classifier(train, recipe=recipe, seed=seed)
        run = {"seed": seed, "accuracy": measure_clean_accuracy(trained.model, test).accuracy}
        if recipe.test_views > 1:
            averaged = AveragedViews(trained.model, views=recipe.test_views)
            run["averaged_accuracy"] = measure_clean_accuracy(averaged, test).accuracy
        run |= {"seconds": trained.run.seconds, "precision": trained.run.precision}
        runs.append(run)
        print(", ".join(f"{key} {value}" for key, value in run.items()), flush=True)
    return runs


def describe_runs(runs: list[dict]) -> str:
    """Mean and standard deviation over the seeds."""
    said = []
    for key in ("accuracy", "averaged_accuracy"):
        values = [run[key] for run in runs if key in run]
        if len(values) > 1:
            said.append(f"{key} {statistics.mean(values):.2%} ± {statistics.stdev(values):.2%}")
    wall = [run["seconds"] for run in runs]
    return f"{len(runs)} seeds: {', '.join(said)}, {min(wall):.0f} to {max(wall):.0f} s of training"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--quick", action="store_true", help="end within a minute")
    parser.add_argument("--recipe", default="cifar10-fast")
    parser.add_argument("--set", action="append", default=[], help="change a field of the recipe")
    parser.add_argument("--seeds", type=int, default=0, help="whole runs to make")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    keep_freed_memory()  # as the command does
    recipe = load_recipe(arguments.recipe, overrides=arguments.set)
    rows, details = measure_speed(recipe, repeats=2 if arguments.quick else 7)
    print(f"{'case':36} {'peer':44} {'ours':>8} {'theirs':>8} {'ratio':>6}")
    for row in rows:
        print(f"{row['case']:36} {row['peer']:44} {row['ours']:8.0f} {row['theirs']:8.0f} {row['ratio']:6.2f}")
    print(
        f"{details['mflop_per_image']:.0f} MFLOP an image forward and backward, "
        f"{details['gflop_per_second']:.0f} GFLOP/s, "
        f"{details['share_outside_convolutions']:.0%} of the time outside convolutions"
    )
    runs = [] if arguments.quick else measure_accuracy(recipe, seeds=arguments.seeds, data_dir=arguments.data_dir)
    if len(runs) > 1:
        print(describe_runs(runs))
    if arguments.json:
        environment = describe_environment(torch.device("cpu")).model_dump()
        content = {"environment": environment, "rows": rows, "details": details, "runs": runs}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
