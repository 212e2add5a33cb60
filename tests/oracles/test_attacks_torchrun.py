"""Several processes attack as one does, sample by sample and in the record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from assay.cli.main import app

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 4))
"""


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.full)])
def test_several_processes_make_the_records_of_one(tmp_path: Path, processes: int) -> None:
    (tmp_path / "net.py").write_text(FACTORY)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.arange(40) % 4)
    words = ["attack", f"{tmp_path / 'net.py'}:build", "--data", str(tmp_path / "data.npz"), "--attack", "pgd"]
    words += ["--steps", "3", "--epsilon", "2/255", "--block", "10", "--no-sanity"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def kept(name: str) -> list[str]:
        return [*words, "--out", str(tmp_path / name), "--json", str(tmp_path / f"{name}.json")]

    alone = CliRunner().invoke(app, kept("one"))
    assert alone.exit_code == 0, alone.output
    several = [*launcher, "-m", "assay", *kept("several")]
    done = subprocess.run(several, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("robust accuracy") == 1  # only the first process talks
    records, tables = [], []
    for name in ("one", "several"):
        (record,) = json.loads((tmp_path / f"{name}.json").read_text())
        records.append({key: value for key, value in record.items() if key != "seconds"})
        tables.append(pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / name).glob("*.parquet"))]))
    assert records[0] == records[1]
    assert tables[0].equals(tables[1])
    assert len(tables[0]) == 40
