"""Every verb opens its model and data in one place: the same notes, and a run folder's own data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

from assay.cli.main import app
from assay.compression import network as candidates
from assay.compression.network import Latency
from assay.data.dataset import ImageDataset
from assay.errors import ModelError
from assay.models.sources import load_model, open_model
from assay.views.context import ViewContext

RANDOM = "note: mlp has random weights: nothing was trained and nothing loaded"
IN_ANOTHER_ORDER = "note: the data have the classes of {} in another order: matched by name"
UNREADABLE = "note: 1 picture could not be read: cat/broken.png: "
WITH_MODEL = {
    "check": ("{model}", "--budget", "quick", "--limit", "4", "--out", "{out}"),
    "attack": ("{model}", "--attack", "fgsm", "--no-sanity"),
    "trace": ("{model}", "--steps", "0"),
    "look": ("{model}", "--sample", "cat/1.png"),
    "app": ("{model}", "--no-browser"),
    "compress": ("{model}", "--target", "0.9x", "--calibration", "8", "--attack", "none", "--curve", "none",
                 "--out", "{out}"),
    "compare": ("{model}", "{model}", "--budget", "quick", "--limit", "4", "--out", "{out}"),
}  # fmt: skip
SHAPE_ONLY = {"anatomy": ("{model}",), "groups": ("{model}",)}  # need no data, and read them only where they are named
DATA_ONLY = {
    "augment": ("--policy", "flip()", "--samples", "1", "--draws", "1", "--out", "{out}.png"),
    "factor": ("--sample", "cat/1.png", "--report", "{out}.html"),
    "train": ("--model", "mlp", "--set", "epochs=1", "--out", "{out}"),
}


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve small pictures of two classes, and one that cannot be read."""
    folder = tmp_path_factory.mktemp("data") / "pets"
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / name / f"{i}.png")
    (folder / "cat" / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def trained(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on these pictures."""
    folder = tmp_path_factory.mktemp("runs") / "mine"
    command = ["train", str(pets), "--max-bad", "1", "--model", "mlp", "--set", "epochs=1", "--set",
               "augment.name=none", "--out", str(folder)]  # fmt: skip
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, (result.output, result.exception)
    return folder


@pytest.fixture
def run(
    assay: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[list[str], str]]:
    """Call a verb; its notes, and all that it printed. The app ends at once, and smaller layers count as faster."""

    def by_parameters(modules: list[nn.Module], inputs: torch.Tensor, **_: object) -> tuple[Latency, ...]:
        sizes = [float(sum(p.numel() for p in m.parameters())) for m in modules]
        return tuple(Latency(size, size, size, size) for size in sizes)

    def serve(context: ViewContext, **_: object) -> None:
        print(f"serving {len(context.dataset)} samples of {context.dataset.name}: {context.words}")

    pytest.importorskip("gradio")
    monkeypatch.setattr("assay.app.serve.serve", serve)
    monkeypatch.setattr(candidates, "measure_latencies", by_parameters)

    def call(verb: str, words: tuple[str, ...], *options: object, model: object = "mlp") -> tuple[list[str], str]:
        arguments = [word.format(model=model, out=tmp_path / "out") for word in words]
        ended = assay(verb, *arguments, *options)
        assert ended.code in {0, 1}, ended
        return [line for line in ended.err.splitlines() if line.startswith("note: ")], ended.out

    return call


@pytest.mark.parametrize("verb", [*WITH_MODEL, *SHAPE_ONLY])
def test_random_weights_and_unreadable_pictures_are_told_by_every_verb(
    verb: str, pets: Path, run: Callable[..., tuple[list[str], str]]
) -> None:
    notes, _ = run(verb, {**WITH_MODEL, **SHAPE_ONLY}[verb], "--data", pets, "--max-bad", 1)
    assert RANDOM in notes
    assert any(note.startswith(UNREADABLE) for note in notes)


@pytest.mark.parametrize("verb", DATA_ONLY)
def test_unreadable_pictures_are_told_where_there_is_no_model(
    verb: str, pets: Path, run: Callable[..., tuple[list[str], str]]
) -> None:
    data = (pets,) if verb == "train" else ("--data", pets)
    notes, _ = run(verb, DATA_ONLY[verb], *data, "--max-bad", 1)
    assert [note.startswith(UNREADABLE) for note in notes if "no test split" not in note] == [True]


@pytest.mark.parametrize("verb", WITH_MODEL)
def test_a_run_folder_brings_its_own_data(
    verb: str, trained: Path, run: Callable[..., tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # wherever the command is called from
    notes, _ = run(verb, WITH_MODEL[verb], model=trained)
    assert notes
    assert all(note.startswith(UNREADABLE) for note in notes)


def test_a_claim_about_a_random_model_says_so(tmp_path: Path, assay: Callable[..., Any]) -> None:
    command = ("claims", "factor-nonconvex", "--model", "mlp", "--data", "digits", "--out", tmp_path)
    assert RANDOM in assay(*command, "--processes", "1").err.splitlines()


def test_a_compressed_network_knows_the_data_of_the_network_it_was_made_from(
    trained: Path, run: Callable[..., tuple[list[str], str]], tmp_path: Path
) -> None:
    run("compress", WITH_MODEL["compress"], model=trained)
    notes, _ = run("attack", WITH_MODEL["attack"], model=tmp_path / "out")
    assert [note.startswith(UNREADABLE) for note in notes] == [True]


def test_a_training_is_resumed_on_the_data_of_its_folder(
    trained: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(trained, tmp_path / "again")
    monkeypatch.chdir(tmp_path)
    ended = assay("train", "--resume", "--out", "again")
    assert ended.code == 0, ended
    assert "Trained mlp on 12 images of pets" in ended.out


def test_data_that_are_named_come_before_those_of_the_run(
    trained: Path, pets: Path, run: Callable[..., tuple[list[str], str]], tmp_path: Path
) -> None:
    shutil.copytree(pets, tmp_path / "other", ignore=shutil.ignore_patterns("broken.png"))
    notes, _ = run("attack", WITH_MODEL["attack"], "--data", tmp_path / "other", model=trained)
    assert notes == []


def test_classes_under_other_names_are_refused_unless_the_user_says_that_they_are_the_same(
    trained: Path, pets: Path, run: Callable[..., tuple[list[str], str]], tmp_path: Path, assay: Callable[..., Any]
) -> None:
    shutil.copytree(pets, tmp_path / "other", ignore=shutil.ignore_patterns("broken.png"))
    (tmp_path / "other" / "dog").rename(tmp_path / "other" / "bird")
    ended = assay("attack", trained, "--data", tmp_path / "other")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"assay: {trained}: expected data of its classes, cat, dog, got bird besides 1 of them")
    (note,) = run(
        "attack", WITH_MODEL["attack"], "--data", tmp_path / "other", "--match-classes", "position", model=trained
    )[0]
    assert "the data have the classes of" in note
    assert "under other names: outputs and labels are matched by position, a guess" in note


def test_the_app_names_its_inputs_so_that_a_printed_command_finds_them_again(
    trained: Path, pets: Path, run: Callable[..., tuple[list[str], str]]
) -> None:
    _, printed = run("app", WITH_MODEL["app"], model=trained)
    assert f"serving 12 samples of pets: ('{trained}', '--data', '{pets}', '--max-bad', '1')" in printed


def test_a_run_without_a_record_of_its_data_is_asked_for_them(trained: Path, tmp_path: Path, assay: Callable[..., Any]):
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare)
    (bare / "inputs.json").unlink()
    config = json.loads((bare / "config.json").read_text())
    del config["data"]
    (bare / "config.json").write_text(json.dumps(config))
    ended = assay("attack", bare)
    assert ended.code == 2
    assert ended.err == "assay: --data: expected the images to test on, such as cifar10 or a folder, got nothing\n"


@pytest.fixture(scope="module")
def swapped(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures in an array whose classes are in the order dog, cat."""
    files = [(label, file) for label, name in enumerate(("dog", "cat")) for file in sorted((pets / name).glob("?.png"))]
    images = np.stack([np.asarray(Image.open(file)) for _, file in files])
    path = tmp_path_factory.mktemp("arrays") / "swapped.npz"
    np.savez(path, images=images, labels=np.array([label for label, _ in files]), classes=np.array(["dog", "cat"]))
    return path


@pytest.mark.parametrize("verb", [verb for verb in WITH_MODEL if verb != "compress"])  # see the next one
def test_every_verb_matches_classes_by_name(
    verb: str, trained: Path, swapped: Path, pets: Path, monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any],
    assay: Callable[..., Any], tmp_path: Path,
) -> None:  # fmt: skip
    handed: list[tuple[nn.Module, ImageDataset]] = []

    def stop(model: nn.Module, dataset: ImageDataset, *_: object, **__: object) -> None:
        handed.append((model, dataset))
        raise ModelError("stop", expected="no more", got="enough")

    monkeypatch.setattr("assay.check.run_check", stop)  # of check and compare
    words = [
        word.format(model=trained, out=tmp_path / "out").replace("cat/1.png", "all/1") for word in WITH_MODEL[verb]
    ]
    ended = assay(verb, *words, "--data", swapped)
    assert IN_ANOTHER_ORDER.format(trained) in ended.err.splitlines()
    assert ended.code in ({2} if handed else {0, 1}), ended
    for model, dataset in handed:
        plain = load_model(trained)
        with torch.no_grad():
            images = dataset.images[:3].float() / 255
            assert torch.equal(model(images), plain(images)[:, [1, 0]])


def test_a_compressed_network_that_was_matched_keeps_its_own_classes(
    trained: Path, swapped: Path, run: Callable[..., tuple[list[str], str]], tmp_path: Path
) -> None:
    notes, _ = run("compress", WITH_MODEL["compress"], "--data", swapped, model=trained)
    assert notes == [IN_ANOTHER_ORDER.format(trained)]
    loaded, images = open_model(tmp_path / "out"), torch.rand(20, 3, 8, 8)
    assert loaded.class_names == ("cat", "dog")
    with torch.no_grad():  # the same order of outputs; the weights are near the former ones
        before, after = load_model(trained)(images), loaded.model(images)
    assert float(((before - after) ** 2).sum()) < float(((before - after.flip(1)) ** 2).sum())


@pytest.mark.parametrize("verb", [*WITH_MODEL, *SHAPE_ONLY, "claims"])
@pytest.mark.parametrize("model", ["", "notes.txt", "folder", "half", "later", "mlp,width"])
def test_what_names_no_model_is_one_line(
    verb: str, model: str, trained: Path, tmp_path: Path, assay: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("none")
    Path("folder").mkdir()
    for name in ("half", "later"):
        shutil.copytree(trained, name)
    Path("half", "config.json").write_bytes(Path("half", "config.json").read_bytes()[:50])
    Path("later", "config.json").write_text(json.dumps({"schema_version": 2}))
    words = WITH_MODEL.get(verb) or SHAPE_ONLY.get(verb) or ("factor-nonconvex", "--model", "{model}", "--out", "{out}")
    ended = assay(verb, *(word.format(model=model, out=tmp_path / "out") for word in words), "--data", "digits")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1), ended
    assert ended.err.startswith("assay: ")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("{", "inputs.json: expected JSON, got "),
        ("[]", "inputs.json: expected a valid dictionary"),
        ('{"data": 3}', "inputs.json: data: expected a valid string, got 3"),
        ('{"data": "digits", "data_dir": 7}', "inputs.json: data_dir: expected "),
        ('{"data": "no/such/place"}', ": where they are elsewhere now, name --data"),
    ],
)
def test_a_record_of_data_that_is_damaged_or_names_what_is_gone(
    content: str, fault: str, trained: Path, tmp_path: Path, assay: Callable[..., Any]
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "inputs.json").write_text(content)
    ended = assay("attack", tmp_path / "run")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert fault in ended.err


@pytest.mark.parametrize("verb", ["anatomy", "groups", "compress"])
def test_notes_stay_out_of_what_a_program_reads(
    verb: str, pets: Path, run: Callable[..., tuple[list[str], str]]
) -> None:
    words = {**WITH_MODEL, **SHAPE_ONLY}[verb]
    notes, printed = run(verb, words, "--data", pets, "--max-bad", 1, "--json")
    assert len(notes) >= 2
    assert json.loads(printed)["kind"]


def test_a_test_split_is_numbered_as_the_training_split(pets: Path, tmp_path: Path, assay: Callable[..., Any]) -> None:
    files = [(name, file) for name in ("cat", "dog") for file in sorted((pets / name).glob("?.png"))]
    images = np.stack([np.asarray(Image.open(file)) for _, file in files])
    for split, classes in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        labels = np.array([classes.index(name) for name, _ in files])
        np.savez(tmp_path / f"{split}.npz", images=images, labels=labels, classes=np.array(classes))
    ended = assay("train", tmp_path, "--model", "mlp", "--set", "epochs=30", "--set", "augment.name=none",
                  "--out", tmp_path / "run")  # fmt: skip
    assert "Test accuracy 100.00%" in ended.out


def test_numbers_as_names_are_told_as_a_guess_but_for_the_data_of_the_run(
    tmp_path: Path, assay: Callable[..., Any]
) -> None:
    draws = np.random.default_rng(0)
    for name in ("one", "two"):
        np.savez(tmp_path / f"{name}.npz", images=draws.integers(0, 256, (8, 8, 8), dtype=np.uint8),
                 labels=np.arange(8) % 4)  # fmt: skip
    command = ("train", tmp_path / "one.npz", "--model", "mlp", "--set", "epochs=1", "--set", "augment.name=none")
    assert assay(*command, "--out", tmp_path / "run").code == 0
    attack = ("attack", tmp_path / "run", "--attack", "fgsm", "--no-sanity")
    assert "guess" not in assay(*attack).err
    assert "guess" not in assay(*attack, "--data", tmp_path / "one.npz").err
    assert "are numbers: matched as they are, a guess" in assay(*attack, "--data", tmp_path / "two.npz").err


@pytest.mark.parametrize("verb", [*WITH_MODEL, *SHAPE_ONLY])
def test_every_verb_with_a_model_keeps_freed_memory_for_the_next_batch(
    verb: str, pets: Path, run: Callable[..., tuple[list[str], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr("assay.runtime.keep_freed_memory", lambda: calls.append(verb))
    run(verb, {**WITH_MODEL, **SHAPE_ONLY}[verb], "--data", pets, "--max-bad", 1)
    assert calls
