"""Fifty visitors of the app at once: does anybody get an error, and how long does the slowest wait?

Every visitor looks at pictures, attacks them, factorises and sets a recurrence through Gradio's own client, and thinks
between two requests (exponentially distributed, --pause on average). Pictures and model are those of app.py. At the
end the server must hold no more memory, threads or files than after the first minute, but for noise.

    python benchmarks/app_load.py --json load.json [--users 50] [--seconds 300] [--pause 10] [--quick]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gradio_client import Client

from app import UNDONE, make_data
from assay.runtime import describe_environment


@dataclass
class Log:
    """Seconds of every answer by view, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, view: str, seconds: float, error: str) -> None:
        with self.lock:
            self.seconds[view].append(seconds)
            if error:
                self.errors.append(f"{view}: {error}")


Ask = Callable[[Client, random.Random], str]
VIEWS: dict[str, Ask] = {
    "look": lambda client, draws: client.predict(draws.randrange(40), None, "(as it is)", *UNDONE, api_name="/look"),
    "attack": lambda client, draws: client.predict(
        "pgd", "L∞", draws.choice((0.5, 2.0, 8.0)), 10, draws.randrange(40), None, "(as it is)", *UNDONE,
        api_name="/attack",
    ),
    "factor": lambda client, draws: client.predict(
        draws.randrange(40), None, draws.randint(1, 20), 1.0, api_name="/factor"
    ),
    "recurrence": lambda client, draws: client.predict(
        draws.uniform(0.8, 1.1), draws.uniform(1.1, 1.5), 32, 60, "rnn", api_name="/recurrence"
    ),
}  # fmt: skip


def visit(address: str, seed: int, *, until: float, pause: float, log: Log) -> None:
    """One visitor: mostly looks and attacks."""
    draws = random.Random(seed)
    time.sleep(draws.uniform(0, pause))
    try:
        client = Client(address, verbose=False)
    except Exception as error:
        log.add("open", 0.0, repr(error)[:200])
        return
    while time.monotonic() < until:
        (view,) = draws.choices(list(VIEWS), weights=(4, 4, 1, 1))
        started, error = time.monotonic(), ""
        try:
            answer = VIEWS[view](client, draws)
            if "headline error" in answer:
                error = answer[:200]
        except Exception as caught:
            error = repr(caught)[:200]
        log.add(view, time.monotonic() - started, error)
        time.sleep(draws.expovariate(1 / pause))


def holds(pid: int) -> dict[str, float]:
    """Resident memory of its own in MB, threads and open files of the server, by Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    megabytes = int(status.partition("RssAnon:")[2].split()[0]) / 1024
    threads = int(status.partition("Threads:")[2].split()[0])
    return {"megabytes": round(megabytes, 1), "threads": threads, "files": len(list(Path(f"/proc/{pid}/fd").iterdir()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--users", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--pause", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="20 seconds")
    options = parser.parse_args()
    length = 20.0 if options.quick else options.seconds
    log, samples = Log(), []
    with tempfile.TemporaryDirectory() as folder:
        data = make_data(Path(folder))
        command = [sys.executable, "-m", "assay", "app", "resnet20", "--data", data, "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                address = server.stdout.readline().split()[0]
                end = time.monotonic() + length
                visitors = [
                    threading.Thread(
                        target=visit, args=(address, seed), kwargs={"until": end, "pause": options.pause, "log": log}
                    )
                    for seed in range(options.users)
                ]
                for visitor in visitors:
                    visitor.start()
                while time.monotonic() < end:
                    time.sleep(min(length / 5, max(0.1, end - time.monotonic())))
                    samples.append(holds(server.pid))
                    print(samples[-1], flush=True)
                for visitor in visitors:
                    visitor.join()
            finally:
                server.terminate()
    rows = []
    for view, seconds in sorted(log.seconds.items()):
        median, late, worst = (float(value) for value in np.quantile(seconds, (0.5, 0.95, 1.0)))
        rows.append(
            {"case": view, "unit": "s", "n": len(seconds), "median": round(median, 3), "p95": round(late, 3),
             "worst": round(worst, 3)}
        )  # fmt: skip
        print(
            f"{view:12} {len(seconds):5} answers: median {median:.2f} s, 95 % within {late:.2f} s, worst {worst:.2f} s"
        )
    print(f"{options.users} visitors, {length:.0f} s, {len(log.errors)} errors")
    for error in log.errors[:5]:
        print(f"  {error}")
    if options.json:
        environment = describe_environment(torch.device("cpu")).model_dump(mode="json")
        content = {"environment": environment, "rows": rows, "errors": log.errors, "server": samples}
        options.json.write_text(json.dumps(content, indent=1) + "\n")
    if log.errors:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
