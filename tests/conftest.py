"""Fixtures shared by all tests.

seeded         every test starts from the same state of torch's global generator (automatic)
app_address    where `assay app` runs in a process of its own, on a small random network (skips without Gradio)
shared         the folder with the public CIFAR-10 and ResNet-20 (skips, saying why, where it is absent)
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command does; see assay.cli.main
import numpy as np
import torch
from hypothesis import settings

# How long an example takes says nothing on a machine that others share; a test that hangs has pytest's timeout.
settings.register_profile("assay", deadline=None)
settings.load_profile("assay")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with ``data/cifar10`` and ``models``: $ASSAY_SHARED, else ``../shared`` beside the checkout."""
    folder = Path(os.environ.get("ASSAY_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data" / "cifar10").is_dir():
        pytest.skip(f"the public CIFAR-10 and ResNet-20 are not in {folder} (set ASSAY_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A layer made without a seed is the same layer in every run."""
    torch.manual_seed(0)


NETWORK = """
import torch
from torch import nn

def build():
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 6, 5, stride=4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(294, 4))
"""


@pytest.fixture(scope="session")
def app_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("Gradio is not installed (pip install 'assay[app]')")
    folder = tmp_path_factory.mktemp("app")
    (folder / "net.py").write_text(NETWORK)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    model: dict[str, Any] = {}
    exec(NETWORK, model)
    with torch.no_grad():
        labels = model["build"]().eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255).argmax(dim=1)
    labels[-4:] = torch.arange(4)  # every class is there; the others are answered rightly, so that they can be broken
    np.savez(folder / "made.npz", images=pixels, labels=labels.numpy())
    (folder / "temporary").mkdir()
    command = [sys.executable, "-m", "assay", "app", "net.py:build", "--data", "made.npz", "--no-browser"]
    environment = {**os.environ, "TMPDIR": str(folder / "temporary"), "OMP_NUM_THREADS": "1"}
    with (
        (folder / "log").open("w+") as log,
        subprocess.Popen(  # Gradio leaves sockets and loops open behind it: not in the process of the tests
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said.startswith("http://127.0.0.1:"):
            process.kill()
            pytest.fail(f"the app did not start: {said} {(folder / 'log').read_text()}")
        yield said.split()[0].rstrip("/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
    assert list((folder / "temporary").glob("assay-app-*")) == []  # uploads are gone
    assert "assay/app/" not in (folder / "log").read_text()  # no view failed; Gradio logs what it refuses itself
