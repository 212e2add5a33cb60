"""Has a change made anything slower? Two checkouts of assay on the same work, turn by turn, in one run.

    git worktree add ../before COMMIT
    python benchmarks/versions.py --before ../before/src [--after src] [--json FILE] [--rounds 15] [--only attack]

Each checkout runs in a process of its own that stays alive, so nothing is imported or compiled twice; one of them works
while the other waits. ``ratio`` is the median over rounds of before / after, pair by pair: above 1 the later one is
faster. With ``--data-dir`` attacks run on the public ResNet-20 and CIFAR-10 (``--weights``), else on an untrained one.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CASES = ("attack", "augment", "train", "lowrank")


def named(*places: str) -> Any:
    """The first of ``module:attribute`` that this checkout has: names move between versions."""
    for place in places:
        module, _, name = place.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            continue
    raise SystemExit(f"this checkout has none of {', '.join(places)}")


def attack_work(data_dir: str | None, weights: str | None) -> dict[str, Callable[[], object]]:
    import torch

    attack = named("assay:attack")
    torch.manual_seed(0)
    model = named("assay:load_model")("resnet20", weights=weights, classes=10, image_shape=(3, 32, 32))
    if data_dir is None:
        images, labels = torch.rand(128, 3, 32, 32), torch.arange(128) % 10
        labels = model.eval()(images).argmax(dim=1)
    else:
        data = named("assay:load_dataset")("cifar10", split="test", data_dir=Path(data_dir), limit=128)
        images, labels = data.images.float() / 255, data.labels

    def run(name: str, norm: str, epsilon: float) -> Callable[[], object]:
        return lambda: attack(model, images, labels, attack=name, norm=norm, epsilon=epsilon, precision="float32")

    return {
        "attack: fgsm, L-infinity 8/255": run("fgsm", "linf", 8 / 255),
        "attack: pgd, L-infinity 1/255": run("pgd", "linf", 1 / 255),
        "attack: apgd-ce, L2 0.1": run("apgd-ce", "l2", 0.1),
        "attack: transforms": run("transforms", "linf", 8 / 255),
    }


def augment_work() -> dict[str, Callable[[], object]]:
    import torch

    policies = {name: named(f"assay.augment:{name}")() for name in ("RandAugment", "TrivialAugmentWide")}
    work: dict[str, Callable[[], object]] = {}
    for name, policy in policies.items():
        for count, side in ((2_000, 32), (64, 224)):
            images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
            work[f"augment: {name}, 30 x {count} of {side}x{side}"] = partial(repeat_policy, policy, images)
    return work


def repeat_policy(policy: Any, images: Any) -> None:
    import torch

    for epoch in range(30):
        policy(images, torch.arange(len(images)), seed=0, epoch=epoch)


def train_work() -> dict[str, Callable[[], object]]:
    import torch

    dataset_of = named("assay:ImageDataset")
    images = torch.randint(0, 256, (2_000, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = dataset_of(images, torch.arange(2_000) % 10, tuple("0123456789"), name="random", split="train")
    recipe = named("assay:load_recipe")("cifar10-fast", overrides=["epochs=2", "refresh_batchnorm=0"])
    train = named("assay:train_classifier", "assay.training.classifier:train_classifier")
    return {"train: two epochs of cifar10-fast, 2,000 images": lambda: train(data, recipe=recipe, seed=0)}


def lowrank_work() -> dict[str, Callable[[], object]]:
    import numpy as np

    factorize = named("assay:factorize", "assay.lowrank.factorize:factorize")
    generator = np.random.default_rng(0)
    tall = generator.standard_normal((200_000, 100), dtype=np.float32) * np.arange(1, 101, dtype=np.float32) ** -0.5
    wide = generator.standard_normal((3_000, 900), dtype=np.float32) @ np.diag(0.97 ** np.arange(900)).astype(
        np.float32
    )
    return {
        "lowrank: 200,000 x 100, rank 10": lambda: [factorize(tall, 10, assurance="none") for _ in range(3)],
        "lowrank: 3,000 x 900, rank 50": lambda: [factorize(wide, 50, assurance="none") for _ in range(5)],
    }


def work(options: argparse.Namespace) -> None:
    """A checkout's own process: reads the name of a case a line, answers with the seconds it took."""
    jobs: dict[str, Callable[[], object]] = {}
    if options.only in {None, "attack"}:
        jobs |= attack_work(options.data_dir, options.weights)
    if options.only in {None, "augment"}:
        jobs |= augment_work()
    if options.only in {None, "train"}:
        jobs |= train_work()
    if options.only in {None, "lowrank"}:
        jobs |= lowrank_work()
    print(json.dumps(list(jobs)), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        jobs[line.strip()]()
        print(json.dumps(time.perf_counter() - started), flush=True)


def start(source: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(source.resolve()), "OMP_WAIT_POLICY": "passive"}
    arguments = [argument for argument in sys.argv[1:] if argument != "--work"]
    return subprocess.Popen(
        [sys.executable, __file__, *arguments, "--work"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip


def ask(process: subprocess.Popen[str], case: str) -> float:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(case + "\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the src folder of the earlier checkout")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1] / "src")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=CASES)
    parser.add_argument("--data-dir")
    parser.add_argument("--weights")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    before, after = start(options.before), start(options.after)
    assert before.stdout is not None and after.stdout is not None
    cases = json.loads(before.stdout.readline())
    assert cases == json.loads(after.stdout.readline())
    rows = []
    for case in cases:
        ask(before, case), ask(after, case)  # compiles and warms up
        pairs = []
        for number in range(options.rounds):  # who goes first changes, as the second finds warmer caches
            if number % 2:
                late = ask(after, case)
                pairs.append((ask(before, case), late))
            else:
                early = ask(before, case)
                pairs.append((early, ask(after, case)))
        ratios = sorted(early / late for early, late in pairs)
        row = {
            "case": case,
            "peer": "before",
            "unit": "s",
            "ours": statistics.median(late for _, late in pairs),
            "theirs": statistics.median(early for early, _ in pairs),
            "ratio": statistics.median(ratios),
            "quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
            "rounds": options.rounds,
        }
        rows.append(row)
        low, high = row["quartiles"]
        seconds = f"{row['theirs']:8.3f} s {row['ours']:8.3f} s"
        print(f"{case:<48} {seconds}  ratio {row['ratio']:.3f} ({low:.3f} to {high:.3f})", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"environment": {"cpus": os.cpu_count()}, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
