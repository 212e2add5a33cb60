"""What watching gradients costs a training step: our hooks, no hooks, and a histogram a parameter (TensorBoard).

    python benchmarks/trace.py --json trace.json [--quick] [--clock cpu]

A step of each is made in turn on one model; each is divided by the step without hooks beside it. Medians of these
ratios with their quartiles: of the steps between samples, of the sampled steps, and of whole cycles of ten steps,
sampled one included; and the call of ``recorder.step()`` alone, which is all that is there between samples.
``ratio`` is theirs over ours: above 1, ours is cheaper. ``--clock cpu`` counts the seconds of this process instead of
those on the wall, for a machine that others use too. Needs the extra ``tensorboard``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from assay.diagnostics.recorder import record_gradients
from assay.models.architectures import build
from assay.runtime import describe_environment

EVERY = 10
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}


class Loop:
    """One model, one optimizer, one batch, one way to watch it."""

    def __init__(self, name: str, side: int, batch: int) -> None:
        self.model = build(name, classes=10, image_shape=(3, side, side)).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9)
        draws = torch.Generator().manual_seed(0)
        images = torch.rand(batch, 3, side, side, generator=draws)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(0, 10, (batch,), generator=draws)

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.images), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss


def log_histograms(writer: SummaryWriter, model: nn.Module, step: int) -> None:
    for name, parameter in model.named_parameters():
        writer.add_histogram(f"weight/{name}", parameter, step)
        writer.add_histogram(f"gradient/{name}", parameter.grad, step)


@dataclass(frozen=True)
class Cycle:
    """Seconds of ten steps each: without hooks, with ours, and with histograms at the first of them.

    ``counting`` is what ``recorder.step()`` took of ours.
    """

    none: list[float]
    ours: list[float]
    counting: list[float]
    histograms: list[float]


def measure(name: str, *, side: int, batch: int, rounds: int, clock: Clock) -> list[Cycle]:
    """The first cycle, which also warms up, is left out."""
    loops = {key: Loop(name, side, batch) for key in ("none", "ours", "histograms")}
    cycles = []
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        with record_gradients(loops["ours"].model, every=EVERY) as recorder:

            def histograms(step: int) -> None:
                loops["histograms"].step()
                if step % EVERY == 0:
                    log_histograms(writer, loops["histograms"].model, step)

            for cycle in range(rounds + 1):
                found = Cycle([], [], [], [])
                for step in range(cycle * EVERY, (cycle + 1) * EVERY):
                    assert recorder.sampling == (step % EVERY == 0)
                    found.none.append(seconds(loops["none"].step, clock))
                    stepping = seconds(loops["ours"].step, clock)
                    found.counting.append(seconds(recorder.step, clock))
                    found.ours.append(stepping + found.counting[-1])
                    found.histograms.append(seconds(partial(histograms, step), clock))
                cycles.append(found)
        assert recorder.summarize().first_non_finite is None
    return cycles[1:]


def seconds(work: Callable[[], object], clock: Clock) -> float:
    started = clock()
    work()
    return clock() - started


def compare(cycles: list[Cycle]) -> dict[str, list[float]]:
    """Ratios to a step without hooks, by case.

    The last step of a cycle puts the hooks in for the next sample, so it counts with that sample.
    """
    middle = range(1, EVERY - 1)

    def mean(times: list[float]) -> float:
        return sum(times) / len(times)

    def sampled(times: list[float], none: list[float]) -> float:
        """The first step and what the last one took beyond the usual."""
        usual = median(times[k] for k in middle)
        return (times[0] + times[-1] - usual) / median(none)

    return {
        "recorder.step() alone": [1 + c.counting[k] / c.none[k] for c in cycles for k in middle],
        "between samples": [c.ours[k] / c.none[k] for c in cycles for k in middle],
        "sampled": [sampled(c.ours, c.none) for c in cycles],
        "average": [mean(c.ours) / mean(c.none) for c in cycles],
        "histograms, sampled": [sampled(c.histograms, c.none) for c in cycles],
        "histograms, average": [mean(c.histograms) / mean(c.none) for c in cycles],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    networks = (
        [("resnet20", 32, 64)] if arguments.quick else [("resnet20", 32, 128), ("resnet18", 32, 64), ("mlp", 32, 256)]
    )
    rows = []
    for name, side, batch in networks:
        cycles = measure(
            name, side=side, batch=batch, rounds=8 if arguments.quick else 12, clock=CLOCKS[arguments.clock]
        )
        plain, found = 1e3 * median(s for c in cycles for s in c.none), compare(cycles)
        print(f"{name}, batch {batch}: {plain:.1f} ms a step without hooks")
        for case, ratios in found.items():
            low, middle, high = quantiles(ratios, n=4)
            print(
                f"  {case:22} {100 * (middle - 1):+7.2f} %   "
                f"quartiles {100 * (low - 1):+.2f} to {100 * (high - 1):+.2f} %"
            )
        average = f"average, every {EVERY}th sampled"
        taken = {case: median(ratios) * plain for case, ratios in found.items()}
        for case, ours, peer, theirs in (
            ("step between samples", taken["between samples"], "no hooks", plain),
            ("sampled step", taken["sampled"], "no hooks", plain),
            (average, taken["average"], "no hooks", plain),
            ("sampled step", taken["sampled"], "TensorBoard histograms", taken["histograms, sampled"]),
            (average, taken["average"], "TensorBoard histograms", taken["histograms, average"]),
        ):  # fmt: skip
            rows.append(
                {"case": f"{name}, batch {batch}: {case}", "peer": peer, "unit": "ms", "ours": round(ours, 3),
                 "theirs": round(theirs, 3), "ratio": round(theirs / ours, 4)}
            )  # fmt: skip
    environment = describe_environment(torch.device("cpu")).model_dump(mode="json")
    arguments.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
