"""Kill the verbs at random moments, resume them, and compare with a run nobody disturbed.

    python benchmarks/interruption.py --kills 100 --json interruption.json [--only train] [--quick]

Each run is a process forked from this one, which has torch loaded, so that a kill meets work and not an import. It is
killed with SIGKILL (every fourth time SIGTERM or SIGINT) at a moment drawn uniformly from the time a whole run takes,
resumed, perhaps killed again, and so on until it ends by itself. Then every file of its folder must equal that of the
undisturbed run: weights and Parquet to the byte, records but for seconds and dates. A row tells kills, runs, how many
of them ended in the same records, and what was left lying about.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TIMINGS = {"seconds", "images_per_second", "time_split", "started", "environment"}
NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(1800, 10)).eval()
"""


@dataclass(frozen=True)
class Job:
    """A verb's arguments without ``--out``; ``resume`` is what the second and later runs add."""

    name: str
    arguments: tuple[str, ...]
    resume: tuple[str, ...] = ("--resume",)
    out: str = "out"


def list_jobs(folder: Path) -> list[Job]:
    """Small ones of every verb that works for long; ``folder`` gets the files they need."""
    (folder / "net.py").write_text(NET)
    np.save(folder / "X.npy", np.random.default_rng(0).standard_normal((60_000, 64)))
    net = f"{folder}/net.py:net"
    page = ("--report", str(folder / "factor.html"))
    common = ("--data", "digits", "--seed", "1")
    return [
        Job("train", ("train", "digits", "--set", "epochs=2", "--checkpoint-seconds", "0.05", "--seed", "1")),
        Job("attack", ("attack", net, *common, "--split", "train", "--attack", "pgd", "--steps", "20", "--no-sanity")),
        Job("check", ("check", net, *common, "--budget", "quick", "--limit", "40", "--fail-on", "never")),
        Job("claims", ("claims", "residual-shape", "factor-nonconvex", "--processes", "1", "--seed", "1")),
        Job("factor", ("factor", f"{folder}/X.npy", "--rank", "8", *page), resume=(), out="F.npz"),
    ]


def start(arguments: tuple[str, ...], log: Path) -> int:
    """Fork, and become ``assay ARGUMENTS`` in the child; the process id."""
    child = os.fork()
    if child:
        return child
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = 70
    try:
        from assay.cli.main import main

        torch.set_num_threads(1)
        sys.argv = ["assay", *arguments]
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    except BaseException as error:  # a child must never return into the harness
        print("Traceback:", repr(error), flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def wait(child: int, *, seconds: float | None) -> int | None:
    """The exit code, negative for a signal; None when it is still running after ``seconds``."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def disturb(job: Job, out: Path, log: Path, *, draws: random.Random, whole: float, most: int) -> tuple[list[str], str]:
    """Run ``job`` into ``out`` with up to ``most`` kills; which signals met it, and what went wrong ("" if nothing)."""
    met: list[str] = []
    for attempt in range(most + 1):
        last = attempt == most
        child = start((*job.arguments, "--out", str(out), *(job.resume if attempt else ())), log)
        code = wait(child, seconds=None if last else draws.uniform(0.02, 1.0) * whole)
        if code is None:
            how = draws.choice((signal.SIGKILL,) * 6 + (signal.SIGTERM, signal.SIGINT))
            os.kill(child, how)
            code = wait(child, seconds=None)
            allowed = {-how} if how is signal.SIGKILL else {3, 0}
            if code != 0:
                met.append(how.name)
            if code not in allowed | {0}:
                return met, f"{how.name} gave exit code {code}"
            if code != 0:
                continue
        if code != 0:
            return met, f"exit code {code}"
        return met, ""
    return met, "did not end"


def contents(path: Path) -> Iterator[tuple[str, Any]]:
    """Name and comparable content of every file at ``path``, a folder or a file."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if not file.is_file() or file.suffix == ".html" or file.name in {"environment.json", "state.pt"}:
            continue
        name = file.name if file == path else str(file.relative_to(path))
        yield name, READERS.get(file.suffix, Path.read_bytes)(file)


def read_parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pydict()  # without the metadata, which holds seconds


def read_lines(path: Path) -> Any:
    return [timeless(json.loads(line)) for line in path.read_text().splitlines()]


def read_npz(path: Path) -> Any:
    with np.load(path) as file:
        return {name: file[name].tobytes() for name in file.files}


def timeless(value: Any) -> Any:
    """``value`` without what a clock says."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMINGS}
    return [timeless(item) for item in value] if isinstance(value, list) else value


READERS: dict[str, Callable[[Path], Any]] = {
    ".json": lambda path: timeless(json.loads(path.read_text())),
    ".jsonl": read_lines,
    ".parquet": read_parquet,
    ".npz": read_npz,
}


def differences(found: Path, expected: Path) -> list[str]:
    """Names of files that are missing, additional, or of another content."""
    ours, theirs = dict(contents(found)), dict(contents(expected))
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def measure(job: Job, folder: Path, *, kills: int, seed: int) -> dict[str, Any]:
    """Disturb ``job`` until ``kills`` signals have met it."""
    draws, log = random.Random(seed), folder / f"{job.name}.log"
    expected = folder / f"{job.name}-whole" / job.out
    expected.parent.mkdir()
    started = time.monotonic()
    code = wait(start((*job.arguments, "--out", str(expected)), log), seconds=None)
    whole = time.monotonic() - started
    if code != 0:
        raise SystemExit(f"{job.name}: the undisturbed run gave exit code {code}:\n{log.read_text()[-2000:]}")
    met: list[str] = []
    faults: list[str] = []
    runs = 0
    while len(met) < kills:
        out = folder / f"{job.name}-{runs}" / job.out
        out.parent.mkdir()
        signals, fault = disturb(job, out, log, draws=draws, whole=whole, most=draws.randint(1, 4))
        different = [] if fault else differences(out, expected)
        left = [path.name for path in out.parent.rglob("*.tmp")]
        met += signals
        runs += 1
        if fault or different or left:
            faults.append(f"run {runs}: {fault or ', '.join(different) or 'left ' + ', '.join(left)}")
    traces = log.read_text(errors="replace").count("Traceback")
    return {
        "case": job.name,
        "whole_seconds": round(whole, 2),
        "runs": runs,
        "signals": len(met),
        "kill_9": met.count("SIGKILL"),
        "equal": runs - len(faults),
        "tracebacks": traces,
        "faults": faults,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="in all, shared among the verbs")
    parser.add_argument("--only", action="append", help="these verbs alone")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="two kills a verb")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        jobs = [job for job in list_jobs(folder) if not arguments.only or job.name in arguments.only]
        kills = 2 if arguments.quick else -(-arguments.kills // len(jobs))
        rows = []
        for job in jobs:
            row = measure(job, folder, kills=kills, seed=arguments.seed)
            print(
                f"{row['case']:8} {row['signals']:4} signals ({row['kill_9']} SIGKILL) in {row['runs']} runs of "
                f"{row['whole_seconds']} s: {row['equal']} equal, {row['tracebacks']} tracebacks"
            )
            for fault in row["faults"]:
                print(f"  {fault}")
            rows.append(row)
    arguments.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    if any(row["faults"] or row["tracebacks"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
