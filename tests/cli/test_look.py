"""``assay look`` and what else the app's printed commands call: they show what the app shows."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from assay.app.panels import show_attack, show_factorization, show_recurrence
from assay.data.dataset import to_unit_range
from assay.data.sources import load_dataset
from assay.lowrank.summary import read_channels
from assay.models.sources import load_model
from assay.views.attack import AttackChoice, attack_picture, find_smallest_perturbation
from assay.views.context import ViewContext
from assay.views.explanation import explain_picture
from assay.views.factorization import factor_picture
from assay.views.picture import apply_operations, read_picture, sample_at
from assay.views.recurrence import RecurrenceChoice, measure_recurrence
from assay.wording import distance

FACTORY = """
import torch
from torch import nn

def build():
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4))
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ViewContext:
    """A small network and its data, in the folder that commands are called in."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FACTORY)
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez("made.npz", images=pixels, labels=np.arange(12) % 4)
    Image.fromarray(pixels.reshape(32, 24, 3)).save("a cat.png")
    dataset = load_dataset("made.npz")
    model = load_model("net.py:build", classes=4, image_shape=(3, 8, 8)).eval()
    return ViewContext(model, dataset, name="net.py:build", words=("net.py:build", "--data", "made.npz"))


def printed(html: str) -> list[str]:
    """The words of the command that a view prints, without ``assay``."""
    found = re.search(r"<code>(.*?)</code>", html, re.DOTALL)
    assert found is not None
    return shlex.split(unescape(found[1]))[1:]


def own_label(context: ViewContext, place: int) -> Any:
    """A sample under the label that the model gives it, so that there is something to break."""
    picture = sample_at(context.dataset, place)
    said = int(context.model(to_unit_range(picture.image[None])).argmax())
    return picture.with_label(said, name=context.classes[said])


def test_the_command_of_an_attack_gives_the_same_attack(context: ViewContext, assay: Callable[..., Any]) -> None:
    picture = apply_operations(own_label(context, 3), {"Rotate": 10.0, "Equalize": 0.0})
    found = attack_picture(context, picture, AttackChoice(epsilon=24 / 255, steps=6, seed=0))
    ended = assay(*printed(show_attack(context, found)), "--out", "pictures")
    assert ended.code == 0, ended.err
    told = ended.out.split()
    assert found.success or found.misclassified
    if found.success:
        assert f"L∞ distance {distance(found.distance, 'linf')}" in ended.out
        assert f"{found.losses[-1]:.4f}" in told
    names = ["after.png", "change.png", "gradient.png", "picture.png"]
    assert sorted(path.name for path in Path("pictures").iterdir()) == names
    with Image.open("pictures/picture.png") as file:
        assert np.array_equal(np.asarray(file), picture.image.permute(1, 2, 0).numpy())


def test_the_command_of_the_smallest_change_finds_it_again(context: ViewContext, assay: Callable[..., Any]) -> None:
    found = find_smallest_perturbation(context, own_label(context, 5), norm="l2")
    ended = assay(*printed(show_attack(context, found)))
    assert f"L2 distance {distance(found.distance, 'l2')}" in ended.out


def test_a_file_of_ones_own(context: ViewContext, assay: Callable[..., Any]) -> None:
    picture = read_picture(Path("a cat.png").read_bytes(), name="a cat.png", shape=(3, 8, 8))
    found = attack_picture(context, picture, AttackChoice(epsilon=0.2))
    ended = assay(*printed(show_attack(context, found)))
    assert ended.code == 0
    assert "a cat.png: " in ended.out
    assert "no label given" in ended.out


def test_the_command_of_a_factorisation(context: ViewContext, assay: Callable[..., Any]) -> None:
    picture = sample_at(context.dataset, 2)
    for channels, words in (
        (to_unit_range(picture.image).double(), ("--data", "made.npz", "--sample", "2")),
        (read_channels(Path("a cat.png"), longest=16), ("a cat.png", "--longest", "16")),
    ):
        found = factor_picture(channels, name="x", rank=3, scale=2.5, words=words)
        ended = assay(*printed(show_factorization(found)))
        assert ended.code == 0, ended.err
        assert f"rank   3   {found.picture.psnr:5.1f} dB" in ended.out
        assert f"c = 2.5    loss {found.scaled.loss:.8g}, sharpness {found.scaled.sharpness:.4g}" in ended.out


def test_the_command_of_a_recurrence(assay: Callable[..., Any]) -> None:
    found = measure_recurrence(RecurrenceChoice(radius=0.8, norm=2, hidden=6, length=20, cell="rnn"))
    ended = assay(*printed(show_recurrence(found)))
    assert ended.code == 0, ended.err
    state = found.trace.state(found.trace.head)
    assert f"{state.norms[0]:.1e}" in ended.out
    assert "2.000" in ended.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("look net.py:build --data made.npz", "--sample: expected either a sample or --image, got neither"),
        ("look net.py:build --data made.npz --sample 99", "--sample: expected a sample of made.npz"),
        ("look net.py:build --data made.npz --image none.png", "none.png: expected a picture file, got No such file"),
        ("look net.py:build --data made.npz --image net.py", "net.py: expected a picture file"),
        ("look net.py:build --data made.npz --sample 1 --label zebra", "--label: expected one of 0, 1, 2, 3"),
        ("look net.py:build --data made.npz --sample 1 --apply spin=3", "operation: expected one of Identity"),
        ("look net.py:build --data made.npz --sample 1 --apply rotate", "--apply: expected rotate=VALUE"),
        ("look net.py:build --data made.npz --sample 1 --attack standard", "attack: expected one of fgsm, pgd"),
        ("look net.py:build --data made.npz --sample 1 --attack pgd --smallest", "--smallest: expected either"),
        ("look --data made.npz --sample 1", "MODEL: expected a model for made.npz, got none"),
        ("factor --rank 2", "X: expected a file, or --data and --sample, got neither"),
        ("factor --data made.npz", "X: expected a file, or --data and --sample, got made.npz"),
        ("factor --data made.npz --sample 1 --scale 0", "scale: expected a finite number above 0, got 0.0"),
        ("trace rnn --task adding --radius 0.9", "--radius: expected --radius and --norm together, got only --radius"),
        ("trace lstm --task adding --radius 0.9 --norm 2", "cell: expected a plain recurrence of one layer"),
        ("app --data made.npz", "MODEL: expected a model for made.npz"),
        ("app net.py:build --data made.npz --port 70000", "--port: expected 1..65535, got 70000"),
    ],
)
def test_bad_input_is_one_line(context: ViewContext, assay: Callable[..., Any], words: str, message: str) -> None:
    ended = assay(*words.split())
    assert ended.code == 2, ended
    assert ended.err.strip().splitlines()[-1].startswith(f"assay: {message}"), ended.err
    assert "Traceback" not in ended.err


def test_without_gradio_the_app_says_how_to_get_it(
    context: ViewContext, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    ended = assay("app", "net.py:build", "--data", "made.npz")
    assert ended.code == 2
    assert ended.err == "assay: the app needs the package 'gradio': pip install 'assay[app]'\n"


def test_a_map_is_described_and_written(context: ViewContext, assay: Callable[..., Any]) -> None:
    command = ("look", *context.words, "--sample", "3", "--map")
    ended = assay(*command, "grad-cam", "--out", "pictures")
    explained = explain_picture(context, sample_at(context.dataset, 3), "grad-cam")
    assert ended.code == 0, ended.err
    assert explained.finding in ended.out
    assert "the feature map is that of 2" in ended.out
    assert np.asarray(Image.open("pictures/map.png")).shape == (8, 8)
    wrong = assay(*command, "grad")
    assert (wrong.code, wrong.out) == (2, "")
    assert "--map: expected one of: gradient, integrated-gradients, smoothgrad, grad-cam, got 'grad'" in wrong.err


def test_a_map_that_cannot_be_made_is_one_line(context: ViewContext, assay: Callable[..., Any]) -> None:
    Path("linear.py").write_text(
        "from torch import nn\ndef build(): return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))"
    )
    ended = assay(
        "look", "linear.py:build", "--data", "made.npz", "--sample", "3", "--map", "grad-cam", "--out", "pictures"
    )
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.strip().splitlines()[-1].endswith("got grad-cam: no convolutional feature map")
    assert not list(Path().glob("pictures/*"))
