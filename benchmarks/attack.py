"""How fast and how strong are the attacks? Against torchattacks, Foolbox and the Adversarial Robustness Toolbox.

Same images, same network, same threat (L∞, 8/255), one process, every peer in its documented way with batches of 250.
Ours drops samples once they are broken, as every adversarial image of a broken sample does equally well, and searches
in bfloat16 where the processor multiplies it (``--precision float32`` for none of that); every success is verified in
float32. torchattacks' AutoAttack takes 10 steps where the publication takes 100, so there are two rows for it: as
shipped, and its parts with the published budgets.

    python benchmarks/attack.py --json result.json [--quick] [--robust MODEL --robust-weights FILE]

The standard network is the public ResNet-20; the robust one is yours: `assay train cifar10 --recipe robust --out RUN`
makes one, and `--robust RUN` names it. Without it its rows are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.attacks import (
    PGD,
    AdaptiveAttack,
    AttackOptions,
    StandardAttack,
    measure_epsilon_curve,
    measure_robust_accuracy,
)
from assay.data.dataset import ImageDataset
from assay.data.sources import load_dataset
from assay.evaluate import predict
from assay.models.sources import load_model
from assay.runtime import describe_environment, keep_freed_memory

EPSILON, STEP, BATCH = 8 / 255, 2 / 255, 250
Run = Callable[[], Tensor]  # bool (N,): right after the attack
Rows = list[dict[str, object]]


@dataclass
class Timing:
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)  # of this process: fair on a machine that is shared
    peak_mib: float = 0.0
    forward_equivalents: float | None = None  # an image, where the run tells
    robust: Tensor | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def accuracy(self) -> float:
        assert self.robust is not None
        return float(self.robust.float().mean())


def timed(run: Run, timing: Timing) -> None:
    """One run; the peak is what the resident set grew by, where the kernel tells."""
    before = _reset_peak()
    started, used = time.perf_counter(), time.process_time()
    timing.robust = run()
    timing.seconds.append(time.perf_counter() - started)
    timing.cpu_seconds.append(time.process_time() - used)
    timing.peak_mib = max(timing.peak_mib, _memory("VmHWM") - before)


def interleave(
    runs: dict[str, Run], *, repeats: int, keep: Callable[[dict[str, Timing]], None] = lambda _: None
) -> dict[str, Timing]:
    """Every run in turn; ``keep`` gets the timings of those that have ended, as some take hours."""
    timings = {name: Timing() for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            timed(run, timings[name])
            seconds, cpu = timings[name].seconds[-1], timings[name].cpu_seconds[-1]
            print(f"  {name:<24} {seconds:8.2f} s {cpu:8.2f} cpu s {100 * timings[name].accuracy:6.2f} %", flush=True)
            keep({name: timing for name, timing in timings.items() if timing.seconds})
    return timings


def pgd_peers(model: nn.Module, x: Tensor, y: Tensor, *, steps: int) -> dict[str, Run]:
    """Each peer's PGD with a random start."""
    import torchattacks

    peers: dict[str, Run] = {}
    theirs = torchattacks.PGD(model, eps=EPSILON, alpha=STEP, steps=steps, random_start=True)
    peers["torchattacks"] = lambda: verified(model, x, y, theirs)
    try:
        import foolbox

        wrapped = foolbox.PyTorchModel(model, bounds=(0, 1))
        linf = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=True)
        peers["foolbox"] = lambda: verified(model, x, y, lambda a, b: linf(wrapped, a, b, epsilons=EPSILON)[1])
    except ImportError as error:
        print(f"  foolbox left out: {error}")
    try:
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

        classifier = PyTorchClassifier(
            model, nn.CrossEntropyLoss(), tuple(x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
        )
        art = ProjectedGradientDescentPyTorch(
            classifier, eps=EPSILON, eps_step=STEP, max_iter=steps, num_random_init=1, batch_size=BATCH, verbose=False
        )
        peers["art"] = lambda: verified(
            model, x, y, lambda a, b: torch.from_numpy(art.generate(a.numpy(), nn.functional.one_hot(b, 10).numpy()))
        )
    except ImportError as error:
        print(f"  adversarial-robustness-toolbox left out: {error}")
    return peers


def auto_attack(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Run]:
    """torchattacks' AutoAttack as it comes, 10 steps a run, and its parts with the 100 steps of the publication."""
    import torchattacks

    shipped = torchattacks.AutoAttack(model, norm="Linf", eps=EPSILON, n_classes=10, seed=0)
    parts = [
        torchattacks.APGD(model, eps=EPSILON, steps=100, seed=0),
        torchattacks.APGDT(model, eps=EPSILON, steps=100, n_classes=10, seed=0),
        torchattacks.FAB(model, eps=EPSILON, steps=100, multi_targeted=True, n_classes=10, seed=0),
        torchattacks.Square(model, eps=EPSILON, n_queries=5000, seed=0),
    ]
    published = torchattacks.MultiAttack(parts)
    return {
        "AutoAttack as shipped": lambda: verified(model, x, y, shipped),
        "AutoAttack as published": lambda: verified(model, x, y, published),
    }


def verified(model: nn.Module, x: Tensor, y: Tensor, perturb: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Right after the attack, for every sample."""
    parts = []
    for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        adversarial = perturb(images, labels)
        with torch.no_grad():
            parts.append(model(adversarial).argmax(dim=1) == labels)
    return torch.cat(parts)


def row(case: str, peer: str, ours: Timing, theirs: Timing, *, factor: float = 1.0) -> dict[str, object]:
    assert ours.robust is not None
    assert theirs.robust is not None
    return {
        "case": case,
        "peer": peer,
        "unit": "s",
        "ours": ours.median,
        "theirs": factor * theirs.median,
        "ratio": factor * theirs.median / ours.median,
        "cpu_seconds_ours": statistics.median(ours.cpu_seconds),
        "cpu_seconds_theirs": factor * statistics.median(theirs.cpu_seconds),
        "cpu_ratio": factor * statistics.median(theirs.cpu_seconds) / statistics.median(ours.cpu_seconds),
        "spread_ours": [min(ours.seconds), max(ours.seconds)],
        "spread_theirs": [min(theirs.seconds), max(theirs.seconds)],
        "robust_accuracy_ours": ours.accuracy,
        "robust_accuracy_theirs": theirs.accuracy,
        "broken_by_them_alone": int((ours.robust & ~theirs.robust).sum()),
        "broken_by_us_alone": int((theirs.robust & ~ours.robust).sum()),
        "peak_mib_ours": ours.peak_mib,
        "peak_mib_theirs": theirs.peak_mib,
        "forward_equivalents_ours": ours.forward_equivalents,
    }


class Ours:
    """Our attacks on one network and data set; each run leaves what it cost an image in ``spent``."""

    def __init__(self, model: nn.Module, dataset: ImageDataset, *, precision: str) -> None:
        self.model, self.dataset, self.precision = model, dataset, precision
        self.spent: dict[str, float] = {}
        self.clean = predict(model, dataset)  # the peers do not look at the clean images either

    def run(self, name: str, options: AttackOptions) -> Run:
        def run() -> Tensor:
            measured = measure_robust_accuracy(
                self.model,
                self.dataset,
                attack=options,
                epsilon=EPSILON,
                batch_size=BATCH,
                precision=self.precision,
                clean=self.clean,
            )
            self.spent[name] = measured.record.forward_equivalents
            return measured.result.robust

        return run

    def tell(self, timings: dict[str, Timing]) -> dict[str, Timing]:
        for name, spent in self.spent.items():
            if name in timings:
                timings[name].forward_equivalents = spent
        return timings


def standard_network(model: nn.Module, dataset: ImageDataset, *, repeats: int, precision: str) -> Rows:
    x, y = dataset.images.float() / 255, dataset.labels
    ours = Ours(model, dataset, precision=precision)

    def curve() -> Tensor:
        found = measure_epsilon_curve(model, dataset, attack="min-norm", batch_size=BATCH)
        return torch.arange(len(dataset)) < found.points[5].correct  # its count at 8/255

    case = f"PGD-20, ResNet-20, {len(dataset)} images"
    print(case)
    twenty = ours.run("assay", PGD(steps=20, step_size=STEP))
    timings = ours.tell(interleave({"assay": twenty, **pgd_peers(model, x, y, steps=20)}, repeats=repeats))
    rows = [row(case, peer, timings["assay"], timings[peer]) for peer in timings if peer != "assay"]
    case = f"whole epsilon curve against two PGD-40 runs, ResNet-20, {len(dataset)} images"
    print(case)
    forty = pgd_peers(model, x, y, steps=40)["torchattacks"]
    timings = interleave({"assay": curve, "torchattacks": forty}, repeats=1)
    rows.append(row(case, "2 x torchattacks PGD-40", timings["assay"], timings["torchattacks"], factor=2.0))
    case = f"standard, ResNet-20, {len(dataset)} images"
    print(case)
    shipped = auto_attack(model, x, y)["AutoAttack as shipped"]
    timings = ours.tell(
        interleave({"standard": ours.run("standard", StandardAttack()), "AutoAttack": shipped}, repeats=1)
    )
    return [*rows, row(case, "torchattacks AutoAttack as shipped", timings["standard"], timings["AutoAttack"])]


def robust_network(
    model: nn.Module, dataset: ImageDataset, *, precision: str, budgets: list[str], save: Callable[[Rows], None]
) -> Rows:
    x, y = dataset.images.float() / 255, dataset.labels
    ours = Ours(model, dataset, precision=precision)
    chosen: dict[str, AttackOptions] = {"adaptive": AdaptiveAttack()}
    pairs: list[tuple[str, str]] = []
    if "shipped" in budgets:
        chosen["standard of 10 steps"] = StandardAttack(steps=10)
        pairs += [("standard of 10 steps", "AutoAttack as shipped"), ("adaptive", "AutoAttack as shipped")]
    if "published" in budgets:
        chosen["standard"] = StandardAttack()
        pairs += [("standard", "AutoAttack as published"), ("adaptive", "AutoAttack as published")]
        pairs += [("adaptive", "standard")]
    if budgets == ["shipped", "published"]:
        pairs.insert(2, ("standard", "AutoAttack as shipped"))
    wanted = {peer for _, peer in pairs}
    peers = {name: run for name, run in auto_attack(model, x, y).items() if name in wanted}
    case = f"robust network, {len(dataset)} images"
    print(case)
    runs = {name: ours.run(name, options) for name, options in chosen.items()}

    def compare(timings: dict[str, Timing]) -> Rows:
        ours.tell(timings)
        return [
            row(f"{name}, {case}", peer, timings[name], timings[peer])
            for name, peer in pairs
            if {name, peer} <= timings.keys()
        ]

    return compare(interleave({**runs, **peers}, repeats=1, keep=lambda timings: save(compare(timings))))


def _memory(key: str) -> float:
    """MiB of this process from /proc; 0 where there is none."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    lines = status.read_text().splitlines()
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(key + ":")), 0.0)


def _reset_peak() -> float:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="a tenth of the images")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--robust", help="a robust model: a run folder, or anything `assay attack` takes")
    parser.add_argument("--robust-weights", type=Path)
    parser.add_argument("--robust-images", type=int, default=1000)
    parser.add_argument("--only", choices=["standard", "robust"])
    parser.add_argument("--repeats", type=int, default=3, help="of the PGD runs")
    parser.add_argument("--budget", choices=["shipped", "published", "both"], default="both", help="of AutoAttack")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of our searches")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    keep_freed_memory()  # as the command does; it speeds the peers up as well
    divisor = 10 if given.quick else 1
    rows: Rows = []
    environment = describe_environment(torch.device("cpu")).model_dump()

    def save(found: Rows) -> None:
        given.json.write_text(json.dumps({"environment": environment, "rows": found}, indent=1))

    data = str(given.shared / "data" / "cifar10")
    if given.only != "robust":
        weights = given.shared / "models" / "resnet20-12fca82f.th"
        standard = load_model("resnet20", weights=weights).eval()
        dataset = load_dataset(data, limit=given.images // divisor)
        rows += standard_network(
            standard, dataset, repeats=1 if given.quick else given.repeats, precision=given.precision
        )
    if given.robust is None:
        print("no --robust network: make one with `assay train cifar10 --recipe robust --out RUN`")
    elif given.only != "standard":
        robust = load_model(given.robust, weights=given.robust_weights).eval()
        budgets = ["shipped", "published"] if given.budget == "both" else [given.budget]
        images = load_dataset(data, limit=max(10, given.robust_images // divisor**2))
        rows += robust_network(
            robust, images, precision=given.precision, budgets=budgets, save=lambda found: save([*rows, *found])
        )
    save(rows)
    for found in rows:
        times = f"{found['ours']:8.2f} {found['theirs']:8.2f} s  x{found['ratio']:.1f} (cpu x{found['cpu_ratio']:.1f})"
        print(f"{found['case']:<66} {found['peer']:<35} {times}")


if __name__ == "__main__":
    main()
