from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import Factors, same_solution

WORKER = """
import sys
import numpy as np, torch, torch.distributed as dist
from assay.lowrank.matrix import SharedRows
from assay.lowrank.factorization import factorize
from assay.lowrank.sources import as_matrix
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
rows = np.array_split(np.load(sys.argv[1]), [130])[rank]
for method in ("gram", "krylov"):
    found = factorize(SharedRows(as_matrix(rows)), 4, method=method, assurance="strict")
    c = found.certificate
    np.savez(f"{sys.argv[2]}/{method}-{rank}.npz", A=found.A, B=found.B, c=[c.optimum_low, c.optimum_high, c.certified])
dist.destroy_process_group()
"""


def test_two_processes_sum_gram_blocks_and_find_the_same_factors(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((300, 40))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [*command, str(tmp_path / "worker.py"), str(tmp_path / "x.npy"), str(tmp_path)],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    alone = factorize(x, 4, method="exact")
    best = float((np.linalg.svd(x, compute_uv=False)[4:] ** 2).sum())
    for method in ("gram", "krylov"):
        first, second = (np.load(tmp_path / f"{method}-{rank}.npz") for rank in (0, 1))
        assert np.array_equal(first["B"], second["B"])
        assert first["A"].shape == (130, 4) and second["A"].shape == (170, 4)
        joined = Factors(torch.from_numpy(np.concatenate([first["A"], second["A"]])), torch.from_numpy(first["B"]))
        assert same_solution(alone, joined, tolerance=1e-4)
        low, high, certified = first["c"]
        assert low <= best <= high and certified
