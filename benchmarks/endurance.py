"""Thousands of checks in one process: does memory, do file handles, do threads grow?

    python benchmarks/endurance.py --checks 2000 --json endurance.json [--quick]

Checks a small network on a few pictures again and again, writes check.json each time and the page every twentieth, and
samples resident memory, open files and threads. Growth is the slope of resident memory over the second half of the run.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from assay.check.run import run_check
from assay.check.stages import BUDGETS
from assay.data.dataset import ImageDataset
from assay.files import write_atomically
from assay.models.architectures import build
from assay.report.check_page import render_page

PAGE_EVERY = 20  # drawing takes ten times as long as such a check
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def measure() -> dict[str, float]:
    """What this process holds now."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES / 2**20
    counts = {name: sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("fd", "task")}
    return {
        "megabytes": resident,
        "files": counts["fd"],
        "threads": counts["task"],
        "python_threads": threading.active_count(),
        "objects": len(gc.get_objects()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="40 checks")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    checks = 40 if arguments.quick else arguments.checks
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 1, 8, 8), generator=draws, dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(8) % 4, classes=("a", "b", "c", "d"), name="few", split="test")
    every = max(1, checks // 20)
    samples = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        for number in range(1, checks + 1):
            model = build("mlp", classes=4, image_shape=(1, 8, 8))
            checkup = run_check(model, data, budget=BUDGETS["quick"], seed=number, folder=Path(name))
            write_atomically(Path(name) / "check.json", checkup.model_dump_json())
            if number % PAGE_EVERY == 0:
                write_atomically(Path(name) / "report.html", render_page(checkup))
            if number % every == 0:
                gc.collect()
                samples.append({"check": number, **measure()})
                print(samples[-1], flush=True)
    half = samples[len(samples) // 2 :]
    slope = float(np.polyfit([s["check"] for s in half], [s["megabytes"] for s in half], 1)[0])
    seconds = time.perf_counter() - started
    print(f"{checks} checks in {seconds:.0f} s; {1024 * slope:+.2f} KiB of resident memory a check in the second half")
    if arguments.json:
        row = {"checks": checks, "seconds": seconds, "kib_a_check": 1024 * slope, "samples": samples}
        arguments.json.write_text(json.dumps({"rows": [row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
