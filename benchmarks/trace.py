"""What watching gradients costs a training step: our hooks, no hooks, and a histogram a parameter (TensorBoard).

    python benchmarks/trace.py --json trace.json [--quick]

Steps of all three loggers are interleaved on one model; medians and interquartile ranges. ``ratio`` is theirs over
ours, in milliseconds a step: above 1, ours is cheaper. Needs the extra ``tensorboard``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from assay.diagnostics.recorder import trace
from assay.models.architectures import build
from assay.runtime import describe_environment

EVERY = 10


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


def measure(name: str, *, side: int, batch: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of a step: without hooks, ours on a sample and off it, and with histograms."""
    loops = {key: Loop(name, side, batch) for key in ("none", "ours", "histograms")}
    times: dict[str, list[float]] = {"none": [], "sampled": [], "off": [], "histograms": []}
    with tempfile.TemporaryDirectory() as folder, SummaryWriter(folder) as writer:
        with trace(loops["ours"].model, every=EVERY) as t:
            for step in range(-3, rounds * EVERY):
                started = time.perf_counter()
                loops["none"].step()
                none = time.perf_counter() - started
                sampled = bool(t._handles)
                started = time.perf_counter()
                loops["ours"].step()
                t.step()
                ours = time.perf_counter() - started
                if step < 0:
                    continue
                times["none"].append(1e3 * none)
                times["sampled" if sampled else "off"].append(1e3 * ours)
                if sampled:
                    started = time.perf_counter()
                    loops["histograms"].step()
                    log_histograms(writer, loops["histograms"].model, step)
                    times["histograms"].append(1e3 * (time.perf_counter() - started))
        assert t.record().first_non_finite is None
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    cases = (
        [("resnet20", 32, 128)] if arguments.quick else [("resnet20", 32, 128), ("resnet18", 32, 64), ("mlp", 32, 256)]
    )
    rows = []
    for name, side, batch in cases:
        times = measure(name, side=side, batch=batch, rounds=6 if arguments.quick else 12)
        middle = {key: median(values) for key, values in times.items()}
        spread = {key: quantiles(values, n=4) for key, values in times.items()}
        average = (middle["sampled"] + (EVERY - 1) * middle["off"]) / EVERY
        for case, peer, ours, theirs in (
            ("sampled step", "no hooks", middle["sampled"], middle["none"]),
            ("step between samples", "no hooks", middle["off"], middle["none"]),
            (f"average, every {EVERY}th sampled", "no hooks", average, middle["none"]),
            ("sampled step", "TensorBoard histograms", middle["sampled"], middle["histograms"]),
        ):
            rows.append(
                {"case": f"{name}, batch {batch}: {case}", "peer": peer, "unit": "ms", "ours": round(ours, 3),
                 "theirs": round(theirs, 3), "ratio": round(theirs / ours, 4)}
            )  # fmt: skip
            print(f"{rows[-1]['case']:55} {peer:24} {ours:9.2f} {theirs:9.2f} ms   {100 * (ours / theirs - 1):+7.2f} %")
        print({key: [round(q, 1) for q in quartiles] for key, quartiles in spread.items()})
    environment = describe_environment(torch.device("cpu")).model_dump(mode="json")
    arguments.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
