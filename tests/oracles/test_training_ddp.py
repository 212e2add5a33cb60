"""The gradient that several processes sum is the one that torch's own DistributedDataParallel makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from assay.runtime.processes import joined_processes


def network():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


with joined_processes() as processes:
    images = torch.rand(12, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 3
    mine = torch.arange(processes.rank, 12, processes.world)
    theirs = network()
    parallel = DistributedDataParallel(theirs)  # lives until the backward pass is over
    F.cross_entropy(parallel(images[mine]), labels[mine]).backward()
    ours = network()
    for piece in mine.split(2):  # DDP would have to be told not to talk before the last of them
        (F.cross_entropy(ours(images[piece]), labels[piece], reduction="sum") / 12).backward()
    processes.sum_gradients(ours)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    print(f"equal on {processes.rank}", flush=True)
    del parallel  # before the group that it talks through
    torch.distributed.barrier()
"""


def test_the_sum_of_gradients_equals_that_of_torchs_own_data_parallel(tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launcher, str(script)], capture_output=True, text=True, env=environment, check=False)
    # Not the exit code: torch's own tear-down may abort on a busy machine, after both have compared.
    # Nor whole lines: the two write into one pipe.
    assert all(f"equal on {rank}" in done.stdout for rank in (0, 1)), done.stderr[-2000:]
