"""Fixtures shared by all tests.

seeded           every test starts from the same state of torch's global generator (automatic)
linear_context   a model whose distance to the decision boundary is known in closed form, with 20 grey images
network_context  a small random network with 40 random colour images of 8 × 8
png              makes a picture file of a given size in memory
app_address      where `assay app` runs in a process of its own, on a small random network (skips without Gradio)
shared           the folder with the public CIFAR-10 and ResNet-20 (skips, saying why, where it is absent)
"""

from __future__ import annotations

import importlib.util
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command does; see assay.cli.main
# The networks of the tests are so small that two threads wait for each other longer than they compute.
os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
from hypothesis import settings
from PIL import Image
from torch import Tensor, nn

from assay.data.dataset import ImageDataset
from assay.views.context import ViewContext

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


class Linear(nn.Module):
    def __init__(self, w: Tensor, b: float) -> None:
        super().__init__()
        self.w, self.b = nn.Parameter(w), nn.Parameter(torch.tensor(b))

    def forward(self, x: Tensor) -> Tensor:
        score = (x * self.w).flatten(1).sum(dim=1) + self.b
        return torch.stack([torch.zeros_like(score), score], dim=1)


def _dataset(images: Tensor, labels: Tensor, classes: tuple[str, ...]) -> ImageDataset:
    ids = torch.arange(len(images)) * 3 + 5  # an id is not a place
    return ImageDataset(images=images, labels=labels, classes=classes, name="made", split="test", ids=ids)


@pytest.fixture
def linear_context() -> ViewContext:
    draws = torch.Generator().manual_seed(3)
    w = torch.randn(3, 4, 4, generator=draws)
    images = torch.randint(110, 146, (20, 3, 4, 4), generator=draws, dtype=torch.uint8)
    model = Linear(w, float(-0.5 * w.sum()))
    labels = model(images / 255).argmax(dim=1)
    return ViewContext(model, _dataset(images, labels, ("no", "yes")), words=("m.py:net", "--data", "d.npz"))


@pytest.fixture
def network_context() -> ViewContext:
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)
    )
    images = torch.randint(0, 256, (40, 3, 8, 8), dtype=torch.uint8)
    labels = model.eval()(images / 255).argmax(dim=1)
    return ViewContext(
        model, _dataset(images, labels, ("cat", "dog", "<b>", "it's")), words=("net.py:build", "--data", "x")
    )


@pytest.fixture
def png() -> Callable[..., bytes]:
    def make(width: int, height: int, *, mode: str = "RGB", format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, format=format)
        return buffer.getvalue()

    return make
