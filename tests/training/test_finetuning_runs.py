"""Fine-tuning as a user runs it: from every source, killed and resumed, opened again without its source."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import transformers
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file

from assay.cli.inputs import open_inputs
from assay.cli.options import Inputs
from assay.compression import save_compressed
from assay.data.sources import load_dataset
from assay.errors import InterruptedRunError
from assay.models.sources import find_preparation, open_model
from assay.training.classifier import train_classifier
from assay.training.recipes import load_recipe

Run = Callable[..., tuple[int, str, str]]
SIZES = {"img_size": 16, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2}
NAMES = ("dark", "light")
QUICK = ("--set", "epochs=2", "--set", "batch_size=8", "--set", "micro_batch=4", "--set", "augment.name=none")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes, light ones and dark ones."""
    root, draws = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 4)):
        for number, name in enumerate(NAMES):
            (root / split / name).mkdir(parents=True)
            for place in range(count):
                size = (20 + place, 30, 3)
                pixels = draws.integers(100 * number, 100 * number + 100, size, dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{place}.png")
    return root


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "m"
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.ViTConfig(**sizes, image_size=16, patch_size=8, id2label=dict(enumerate("abc")))
        transformers.ViTForImageClassification(config).save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[0.3, 0.4, 0.5])
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def timm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("timm") / "m"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **SIZES)
    model.pretrained_cfg.update({"input_size": (3, 16, 16), "mean": (0.3, 0.4, 0.5), "num_classes": 3})
    timm.models.save_for_hf(model, folder, model_args=SIZES, safe_serialization=True)
    return folder


@pytest.mark.parametrize("source", ["transformers", "timm", "torchvision"])
def test_a_run_opens_again_without_its_source_and_prepares_as_it_did(
    source: str, run: Run, pictures: Path, vit: Path, timm_folder: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree({"timm": timm_folder}.get(source, vit), tmp_path / "source"))
    specs = {"transformers": f"transformers:{own}", "timm": f"timm:local-dir:{own}"}
    spec = specs.get(source, "torchvision:squeezenet1_1")
    extra: tuple[str, ...] = ()
    if source == "torchvision":
        trained = open_model(spec, classes=5, seed=1).model
        save_file({name: value.contiguous() for name, value in trained.state_dict().items()}, own / "w.safetensors")
        extra = ("--weights", str(own / "w.safetensors"), "--image-size", "32")
    out = tmp_path / "run"
    code, printed, errors = run("train", pictures, "--model", spec, "--out", out, *QUICK, *extra)
    assert code == 0
    assert all(line.startswith("note: pictures are prepared by") for line in errors.splitlines())
    assert "new last layer" in " ".join(printed.split())
    config = json.loads((out / "config.json").read_text())
    assert config["recipe"]["name"] == "finetune"
    shutil.rmtree(own)
    if source != "torchvision":
        torch.testing.assert_close(torch.tensor(config["model"]["mean"]), torch.tensor([0.3, 0.4, 0.5]))
    opened = open_inputs(Inputs(model=str(out), device="cpu"), Console())  # as `assay check RUN` does
    assert (opened.dataset.classes, opened.dataset.shape) == (NAMES, (3, 32, 32) if extra else (3, 16, 16))
    with torch.no_grad():
        guesses = opened.model(opened.dataset.images / 255).argmax(1)
    accuracy = json.loads((out / "test.json").read_text())["accuracy"]
    assert accuracy == float((guesses == opened.dataset.labels).double().mean())


def test_resumed_it_ends_in_the_same_weights_though_its_source_is_gone(
    pictures: Path, vit: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(vit, tmp_path / "source"))
    spec = f"transformers:{source}"
    recipe = load_recipe(
        "finetune", overrides=[f"model={spec}", "batch_size=8", "micro_batch=4", "epochs=3", "augment.name=none"]
    )
    data = load_dataset(str(pictures), split="train", prepare=find_preparation(spec))
    complete = train_classifier(data, recipe=recipe, seed=4).model.state_dict()

    def stop_at(step: int) -> Callable[[object], None]:
        def stop(metrics: object) -> None:
            if metrics.step == step:  # type: ignore[attr-defined]
                signal.raise_signal(signal.SIGINT)

        return stop

    for step in (2, 5):
        with pytest.raises(InterruptedRunError):
            train_classifier(data, recipe=recipe, seed=4, out=tmp_path / "run", resume=step > 2, on_step=stop_at(step))
        shutil.rmtree(source, ignore_errors=True)
    resumed = train_classifier(data, recipe=recipe, seed=4, out=tmp_path / "run", resume=True).model.state_dict()
    assert complete.keys() == resumed.keys()
    for name, value in complete.items():
        assert torch.equal(value, resumed[name]), name


def test_the_same_classes_keep_the_layer_of_a_run_folder(run: Run, pictures: Path, vit: Path, tmp_path: Path) -> None:
    for out, model in (("one", f"transformers:{vit}"), ("two", tmp_path / "one")):
        code, printed, errors = run(
            "train", pictures, "--model", model, "--out", tmp_path / out, *QUICK, "--no-test",
            "--set", "optimizer.lr=1e-9", "--set", "optimizer.weight_decay=0",
        )  # fmt: skip
        assert code == 0, errors
        assert ("new last layer" in " ".join(printed.split())) == (out == "one")
    one, two = (load_file(tmp_path / out / "model.safetensors") for out in ("one", "two"))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-6)


def test_a_compressed_folder_needs_no_source_either(vit: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(vit, tmp_path / "source"))
    spec, out = f"transformers:{source}", tmp_path / "out"
    opened = open_model(spec)
    save_compressed(out, opened.model, (), spec=spec, classes=("a", "b", "c"), image_shape=opened.image_shape)
    images = torch.rand(2, 3, 16, 16)
    shutil.rmtree(source)
    torch.testing.assert_close(open_model(out).model(images), opened.model(images))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--recipe", "finetune"), "--model: expected a model that was trained before"),
        (("--recipe", "finetune", "--model", "resnet8"), "resnet8 with random weights"),
        (("--model", "transformers:./nowhere"), "a folder written by save_pretrained"),
        (("--model", "timm:nothing"), "one of timm's"),
        (("--model", "resnet8", "--weights", "nowhere.pt", "--image-size", "9"), "no such file"),
        (("--prepare", "bgr,resize=8,crop=8"), "pictures in RGB"),
    ],
)
def test_what_cannot_be_a_start_is_refused_in_one_line(
    arguments: tuple[str, ...], expected: str, run: Run, pictures: Path, tmp_path: Path
) -> None:
    code, printed, errors = run("train", pictures, "--out", tmp_path / "run", *arguments)
    assert (code, printed) == (2, "")
    assert expected in errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
