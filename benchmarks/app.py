"""How long does a visitor of the app wait for an attack? Over HTTP, through Gradio's own client, page and all.

A ResNet-20 and pictures of 32 × 32 pixels, or another ``--model`` and its ``--data``; PGD with 10 steps on one picture.
``holds`` is a change too small to break it, so that all steps are made; ``breaks`` one that ends the attack early. The
peer is the same attack by a direct call, without queue, HTTP, pictures and chart: what is left is the page's price.

    python benchmarks/app.py --json result.json [--quick] [--weights resnet20.th --data cifar10]
    python benchmarks/app.py --json result.json --model torchvision:resnet50 --data photos/

On a machine that others share, look at the processor time of the server for each answer: what is waited there for
others does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import numpy as np
import torch

from assay.data.dataset import to_unit_range
from assay.data.sources import load_dataset
from assay.models.sources import load_model
from assay.runtime import describe_environment
from assay.views import AttackChoice, ViewContext, attack_picture, sample_at

UNDONE = (0, 0, 0, 0, 0, 1, 1, 1, 1, 8, 256, False)  # the twelve operations, changing nothing
WAIT, WAIT_LARGE = 300, 3000  # milliseconds that an answer may take, and one on a picture of 224 × 224 pixels


def make_data(folder: Path) -> str:
    """Random pictures under the labels that a ResNet-20 of random weights gives them."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8)
    images = to_unit_range(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous())
    with torch.no_grad():
        labels = load_model("resnet20", classes=10, image_shape=(3, 32, 32))(images).argmax(dim=1).numpy()
    labels[-10:] = np.arange(10)
    np.savez(folder / "made.npz", images=pixels, labels=labels)
    return str(folder / "made.npz")


def milliseconds(run: Callable[[int], object], *, rounds: int) -> list[float]:
    run(0)
    times = []
    for place in range(rounds):
        started = time.perf_counter()
        run(place % 40)
        times.append(1e3 * (time.perf_counter() - started))
    return times


def processor_seconds(pid: int) -> float:
    """Of all threads of a process, by Linux; NaN elsewhere."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.is_file():
        return float("nan")
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    from gradio_client import Client

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--model", default="resnet20")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--data")
    arguments = parser.parse_args()
    rounds = 15 if arguments.quick else 60
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data or make_data(Path(folder))
        weights = [] if arguments.weights is None else ["--weights", str(arguments.weights)]
        command = [sys.executable, "-m", "assay", "app", arguments.model, *weights, "--data", data, "--no-browser"]
        dataset = load_dataset(data)
        model = {"weights": arguments.weights, "classes": len(dataset.classes), "image_shape": dataset.shape}
        network = load_model(arguments.model, **model)
        context = ViewContext(network, dataset)
        height, width = dataset.shape[1:]
        wait = WAIT if max(height, width) < 224 else WAIT_LARGE
        places = min(40, len(dataset))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                client = Client(server.stdout.readline().split()[0], verbose=False)
                for case, levels in (("holds", 0.01), ("breaks", 8.0)):

                    def page(place: int, levels: float = levels) -> str:
                        asked = ("pgd", "L∞", levels, 10, place % places, None, "(as it is)", *UNDONE)
                        answer: str = client.predict(*asked, api_name="/attack")
                        assert "Loss after each step" in answer or "Misclassified before" in answer
                        return answer

                    def exclusive_model(place: int, levels: float = levels) -> object:
                        return attack_picture(
                            context, sample_at(dataset, place % places), AttackChoice(epsilon=levels / 255)
                        )

                    page(0)
                    before = processor_seconds(server.pid)
                    ours = milliseconds(page, rounds=rounds)
                    spent = 1e3 * (processor_seconds(server.pid) - before) / (rounds + 1)
                    theirs = milliseconds(exclusive_model, rounds=rounds)
                    low, _, high = quantiles(ours, n=4)
                    print(
                        f"{case:8} page {median(ours):7.1f} ms (quartiles {low:.0f} to {high:.0f}), engine alone "
                        f"{median(theirs):6.1f} ms, {'within' if median(ours) < wait else 'NOT within'} {wait} ms; "
                        f"processor time of the server {spent:.0f} ms an answer"
                    )
                    rows.append(
                        {
                            "case": f"pgd-10 on one {height}x{width} picture, {case}",
                            "peer": "the engine without the page",
                            "unit": "ms",
                            "ours": round(median(ours), 1),
                            "theirs": round(median(theirs), 1),
                            "ratio": round(median(theirs) / median(ours), 4),
                            "server_processor_ms": round(spent, 1),
                            "quartiles": [round(low, 1), round(high, 1)],
                        }
                    )
            finally:
                server.terminate()
    environment = describe_environment(torch.device("cpu")).model_dump(mode="json")
    arguments.json.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
