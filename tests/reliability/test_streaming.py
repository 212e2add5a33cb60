"""A set larger than the memory a process may take is read, measured and attacked all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

PICTURES, SIDE, ROOM = 300, 640, 224 << 20  # 352 MiB of pixels, 224 MiB of room
# glibc gives large blocks back at once: what counts is memory in use, not how a heap happens to be cut up.
ENVIRONMENT = {**os.environ, "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": str(1 << 22)}

PROGRAM = """
import resource, sys
from pathlib import Path

import torch
from torch import nn

from assay.attacks.campaign import run_campaign
from assay.data import storage
from assay.data.sources import load_dataset
from assay.evaluate import measure_clean_accuracy
from assay.training.classifier import measure_normalization

torch.set_num_threads(1)
folder, out, room, memory = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
storage.memory_bytes = lambda: memory
model = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(3 * 100, 2)).eval()
few = load_dataset(str(folder), limit=8)  # what is loaded once is loaded now
measure_clean_accuracy(model, few)
run_campaign(model, few, folder=out / "few", attack="fgsm", block=2, batch_size=2)

status = Path("/proc/self/status").read_text()
held = int(status.partition("VmData:")[2].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (held + room, held + room))
data = load_dataset(str(folder))
assert data.images.numel() > 1.5 * room
print(len(data), measure_clean_accuracy(model, data, batch_size=4).n)
measure_normalization(data.subset(torch.arange(32)))
print(run_campaign(model, data, folder=out / "all", attack="fgsm", block=2, batch_size=2).record.n)
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("dark", "light"):
        (folder / name).mkdir()
    for number in range(PICTURES):
        shade = (number * 7) % 120 + 120 * (number % 2)
        file = folder / ("light" if number % 2 else "dark") / f"{number:03}.png"
        Image.new("RGB", (SIDE, SIDE), (shade, shade, 255 - shade)).save(file)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a process's memory is Linux's")
@pytest.mark.parametrize("memory", [1 << 30, 64 << 30], ids=["kept in a file", "kept in memory"])
def test_a_set_larger_than_the_room(pictures: Path, tmp_path: Path, memory: int) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(pictures), str(tmp_path), str(ROOM), str(memory)],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env=ENVIRONMENT,
    )
    if memory == 1 << 30:
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.split() == [str(PICTURES)] * 3
    else:
        assert ran.returncode != 0, "the limit holds: without a file the same set does not fit"


TOGETHER = """
import resource, sys
from pathlib import Path

import torch
from torch import nn

from assay.data import storage
from assay.data.dataset import identify_samples
from assay.data.selection import stratified_split
from assay.data.sources import load_dataset
from assay.data.together import read_together
from assay.evaluate import predict_shared
from assay.runtime.processes import joined_processes
from assay.training.classifier import hold_out_last, measure_normalization

torch.set_num_threads(1)
folder, room, shares = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "shares"
model = nn.Sequential(nn.AvgPool2d(64), nn.Flatten(), nn.Linear(3 * 100, 2)).eval()
arrange = lambda *samples: hold_out_last(*samples, fraction=0.3)

with joined_processes() as processes:
    few = read_together(lambda shard: load_dataset(folder, limit=8, shard=shard), processes)
    predict_shared(model, few, processes)
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("VmData:")[2].split()[0]) << 10
    resource.setrlimit(resource.RLIMIT_DATA, (held + room, held + room))
    read = lambda shard: load_dataset(folder, shard=shard)
    data = read_together(read, processes, arrange=arrange) if shares else read(None)
    assert data.images.numel() > 2 * room
    for part in stratified_split(data, fraction=0.3, seed=0):
        assert len(predict_shared(model, part, processes).logits) == len(part)
        measure_normalization(part)
        identify_samples(part)
    processes.gather(None)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a process's memory is Linux's")
@pytest.mark.parametrize("how", ["shares", "alone"])
def test_processes_share_a_set_larger_than_the_room_of_each(pictures: Path, tmp_path: Path, how: str) -> None:
    (tmp_path / "program.py").write_text(TOGETHER)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(tmp_path / "program.py"), str(pictures), str(160 << 20), how]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300, env=ENVIRONMENT)
    if how == "shares":
        assert ran.returncode == 0, ran.stderr
    else:
        assert ran.returncode != 0, "the limit holds: each process alone has no room for all"
