from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from assay.models.architectures import ARCHITECTURES, build
from assay.models.sources import SPELLINGS, Spelling, load_model, open_model
from assay.models.sources.blueprint import ModelRequest, parse_options

Refused = Callable[[Callable[[], object]], str]
CLASSES = ["ant", "bee", "cat", "dog", "eel"]


def write_run(folder: Path, *, name: str = "resnet20", **changes: object) -> torch.nn.Module:
    """A run folder as training writes it; returns the model inside."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "name": name,
        "classes": CLASSES,
        "image_shape": [1, 16, 16],
        "mean": [0.25],
        "std": [0.5],
        "options": {"width": 0.25, "shortcut": "B"},
        **changes,
    }
    config = {"schema_version": 1, "model": described, "data": {"name": "x"}, "recipe": {}, "seed": 0}
    (folder / "config.json").write_text(json.dumps(config))
    model = build(
        "resnet20",
        classes=5,
        image_shape=(1, 16, 16),
        normalization=([0.25], [0.5]),
        options={"width": 0.25, "shortcut": "B"},
        seed=9,
    ).eval()
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    return model


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_run_folder_speaks_for_itself(tmp_path: Path, images: torch.Tensor) -> None:
    saved = write_run(tmp_path / "run")
    loaded = open_model(str(tmp_path / "run"))
    assert (loaded.classes, loaded.image_shape, loaded.class_names) == (5, (1, 16, 16), tuple(CLASSES))
    assert (loaded.notes, loaded.model.training) == ((), False)
    with torch.no_grad():
        assert torch.equal(loaded.model(images), saved(images))


def test_the_normalisation_of_a_run_is_loaded_with_its_weights(tmp_path: Path) -> None:
    write_run(tmp_path / "run", mean=None, std=None)
    assert load_model(str(tmp_path / "run")).normalize.mean.tolist() == [0.25]


def test_other_weights_may_go_into_a_runs_architecture(tmp_path: Path, images: torch.Tensor) -> None:
    write_run(tmp_path / "run")
    other = load_model(str(tmp_path / "run"))
    other.linear.bias.data += 1
    torch.save({"state_dict": other.state_dict()}, tmp_path / "other.pt")
    loaded = load_model(str(tmp_path / "run"), weights=tmp_path / "other.pt")
    with torch.no_grad():
        assert torch.equal(loaded(images), other(images))


def test_a_run_of_a_librarys_network_loads(tmp_path: Path) -> None:
    saved = load_model("torchvision:squeezenet1_1", classes=5, image_shape=(3, 64, 64), seed=3)
    write_run(
        tmp_path / "run",
        name="torchvision:squeezenet1_1",
        image_shape=[3, 64, 64],
        mean=None,
        std=None,
        options={"weights": "DEFAULT"},  # would be fetched; a run folder brings its own
    )
    save_file(saved.state_dict(), tmp_path / "run" / "model.safetensors")
    pictures = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(load_model(str(tmp_path / "run"))(pictures), saved(pictures))


def test_a_run_folder_comes_before_the_architecture_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "resnet20")
    monkeypatch.chdir(tmp_path)
    loaded = open_model("resnet20")
    assert loaded.classes == 5
    assert loaded.notes == ("resnet20 is a run folder here, and taken before the architecture of that name",)


NO_CODE = (
    "{run}/config.json: model.name: expected an architecture of ours, torchvision:NAME or timm:NAME (a run folder "
    "names no code to run), got 'NAME_IN_IT'; name the code yourself, with --weights {run}/model.safetensors"
)
MODELS = (
    f"expected a run folder, one of {', '.join(ARCHITECTURES)}, torchvision:NAME, timm:NAME, "
    "transformers:FOLDER or ID, FILE.onnx, FILE.pt2, a TorchScript file, FILE.py:FACTORY or PACKAGE.MODULE:FACTORY"
)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda run: (run / "config.json").write_text("{"),
            "{run}/config.json: expected JSON, got Expecting property name enclosed in double quotes: line 1 column 2 "
            "(char 1)",
        ),
        (
            lambda run: (run / "config.json").write_bytes(b"\xff"),
            "{run}/config.json: expected JSON, got 'utf-8' codec can't decode byte 0xff in position 0: invalid start "
            "byte",
        ),
        (
            lambda run: (run / "config.json").write_text("{}"),
            "{run}/config.json: schema_version: expected a value, got nothing",
        ),
        (
            lambda run: (run / "config.json").write_text('{"schema_version": 2}'),
            "{run}/config.json: schema_version: expected 1, got 2",
        ),
        (
            lambda run: write_run(run, image_shape=[3]),
            "{run}/config.json: model.image_shape.1: expected a value, got nothing",
        ),
        (
            lambda run: write_run(run, classes=["one"]),
            "{run}/config.json: model.classes: expected Tuple should have at least 2 items after validation, not 1, "
            "got ['one']",
        ),
        (
            lambda run: write_run(run, std=None),
            "{run}/config.json: model: expected mean and std together, or neither, got {'name': 'resnet20', 'classes': "
            "['ant', 'bee', 'cat', 'dog', 'eel'], 'image_shape': [1, 16, 16], 'mean': [0.25], 'std': None, 'options': "
            "{'width': 0.25, 'shortcut': 'B'}}",
        ),
        (lambda run: write_run(run, name="nets.py:evil"), NO_CODE.replace("NAME_IN_IT", "nets.py:evil")),
        (lambda run: write_run(run, name="os:system"), NO_CODE.replace("NAME_IN_IT", "os:system")),
        (lambda run: write_run(run, options={"depth": 3}), "resnet20: depth: expected no option of this name, got 3"),
        (
            lambda run: write_run(run, options={}),
            "{run}/model.safetensors: conv1.weight: expected (16, 1, 3, 3), got (4, 1, 3, 3) (and 95 more of 118 "
            "tensors)",
        ),
        (
            lambda run: (run / "model.safetensors").unlink(),
            "{run}/model.safetensors: expected a file of weights, got no such file",
        ),
        (
            lambda run: (run / "model.safetensors").write_bytes(b"x"),
            "{run}/model.safetensors: expected a safetensors file, got Error while deserializing header: header too "
            "small",
        ),
        (
            lambda run: write_run(run, classes=CLASSES[:4]),
            "{run}/model.safetensors: expected weights for 4 classes, got weights for 5 (linear.weight: expected "
            "(4, 16), got (5, 16))",
        ),
    ],
)
def test_spoilt_run_folders(tmp_path: Path, spoil: Callable[[Path], object], expected: str, refused: Refused) -> None:
    run = tmp_path / "run"
    write_run(run)
    spoil(run)
    assert refused(lambda: load_model(str(run))) == expected.replace("{run}", str(run))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 10}, "expected 10 classes, as the data has, got a model of 5"),
        ({"image_shape": (3, 16, 16)}, "expected 3 channels, as the data has, got a model for 1"),
    ],
)
def test_a_run_that_does_not_fit_the_data(
    tmp_path: Path, arguments: dict[str, object], message: str, refused: Refused
) -> None:
    write_run(tmp_path / "run")
    found = refused(lambda: load_model(str(tmp_path / "run"), **arguments))  # type: ignore[arg-type]
    assert found == f"{tmp_path / 'run'}: {message}"


def test_an_architecture_without_weights_says_so() -> None:
    loaded = open_model("resnet20,width=0.25", classes=3, image_shape=(1, 8, 8))
    assert loaded.notes == ("resnet20,width=0.25 has random weights: nothing was trained and nothing loaded",)
    assert not loaded.model.training


@pytest.mark.parametrize(
    "spec",
    [
        "mlp",
        "allcnn",
        "speednet",
        "lstm",
        "resnet18",
        "torchvision:squeezenet1_1",
        "timm:test_convnext",
        "timm:test_vit",
    ],
)
def test_every_named_network_without_weights_is_said_to_be_random(spec: str, tmp_path: Path) -> None:
    loaded = open_model(spec, classes=3, image_shape=(3, 32, 32))
    assert loaded.notes == (f"{spec} has random weights: nothing was trained and nothing loaded",)
    torch.save(loaded.model.state_dict(), tmp_path / "weights.pt")
    filled = open_model(spec, classes=3, image_shape=(3, 32, 32), weights=tmp_path / "weights.pt", seed=1)
    assert filled.notes == ()


@pytest.mark.parametrize("row", SPELLINGS, ids=lambda row: row.function)
def test_every_row_of_the_table_names_a_function_of_the_agreed_form(row: Spelling) -> None:
    module, _, function = row.function.partition(":")
    planner = getattr(importlib.import_module(f"assay.models.sources.{module}"), function)
    inspect.signature(planner).bind("spec", ModelRequest())


def test_a_run_folder_fetches_no_published_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "run", name="torchvision:squeezenet1_1,weights=DEFAULT", image_shape=[3, 64, 64], options={})
    saved = load_model("torchvision:squeezenet1_1", classes=5, image_shape=(3, 64, 64), seed=3)
    save_file(saved.state_dict(), tmp_path / "run" / "model.safetensors")
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_, **__: pytest.fail("fetched"))
    assert open_model(tmp_path / "run").classes == 5


def test_options_of_an_architecture_are_spelled_after_its_name() -> None:
    model = load_model("resnet20,shortcut=B,width=0.5,skips=false")
    assert model.conv1.out_channels == 8
    assert "layer2.0.shortcut" not in dict(model.named_modules())


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("resnet20", ("resnet20", {})),
        ("a,b=1,c=0.5,d=true,e=False,f=text", ("a", {"b": 1, "c": 0.5, "d": True, "e": False, "f": "text"})),
        ("a,b=x=y", ("a", {"b": "x=y"})),
    ],
)
def test_parse_options(spec: str, expected: tuple[str, dict[str, object]]) -> None:
    assert parse_options(spec) == expected


def test_weights_tell_the_number_of_classes_where_nobody_else_does(tmp_path: Path, refused: Refused) -> None:
    hundred = build("resnet20", classes=100, image_shape=(3, 32, 32), seed=4)
    torch.save({"state_dict": {f"module.{k}": v for k, v in hundred.state_dict().items()}}, tmp_path / "c100.th")
    loaded = open_model("resnet20", weights=tmp_path / "c100.th")
    assert loaded.classes == 100
    assert torch.equal(loaded.model.linear.weight, hundred.linear.weight)
    message = refused(lambda: open_model("resnet20", weights=tmp_path / "c100.th", classes=10))
    assert message == (
        f"{tmp_path / 'c100.th'}: expected weights for 10 classes, got weights for 100 "
        "(linear.weight: expected (10, 64), got (100, 64))"
    )


def test_paths_and_texts_both_name_files(tmp_path: Path) -> None:
    saved = write_run(tmp_path / "run")
    assert torch.equal(load_model(tmp_path / "run").linear.weight, saved.linear.weight)
    weights = str(tmp_path / "run" / "model.safetensors")
    assert torch.equal(load_model(tmp_path / "run", weights=weights).linear.weight, saved.linear.weight)


def test_a_run_folder_can_be_given_as_the_weights(tmp_path: Path) -> None:
    saved = write_run(tmp_path / "run")
    spec = "resnet20,width=0.25,shortcut=B"
    model = load_model(spec, weights=tmp_path / "run", classes=5, image_shape=(1, 16, 16))
    assert torch.equal(model.linear.weight, saved.linear.weight)


def test_the_names_lie_beside_the_weights_of_a_run(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    for weights in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        loaded = open_model("resnet20,width=0.25,shortcut=B", weights=weights, image_shape=(1, 16, 16))
        assert loaded.class_names == tuple(CLASSES)


@pytest.mark.parametrize("classes", [("eel", "cat"), tuple("edcba")])
def test_a_run_is_matched_or_refused(tmp_path: Path, classes: tuple[str, ...], refused: Refused) -> None:
    saved = write_run(tmp_path / "run")
    images = torch.rand(3, 1, 16, 16)
    if classes[0] == "e":
        message = refused(lambda: open_model(tmp_path / "run", classes=classes))
        assert message.startswith(
            f"{tmp_path / 'run'}: expected data of its classes, ant, bee, cat, dog, eel, got e, d"
        )
        loaded = open_model(tmp_path / "run", classes=classes, match_classes="position")
        assert torch.equal(loaded.model(images), saved(images))
    else:
        loaded = open_model(tmp_path / "run", classes=classes)
        assert torch.equal(loaded.model(images), saved(images)[:, [CLASSES.index(name) for name in classes]])


def test_a_normalisation_that_is_asked_for_takes_the_place_of_the_one_saved_with_the_weights(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    assert load_model(tmp_path / "run", normalization="none").normalize.mean.tolist() == [0.0]
    assert load_model(tmp_path / "run").normalize.mean.tolist() == [0.25]


def test_a_model_that_does_not_fit_in_memory_is_refused(refused: Refused) -> None:
    message = refused(lambda: load_model("mlp", image_shape=(3, 10**6, 10**6)))
    assert message.startswith("model: expected a model that can be built, got ")
    assert "can't allocate memory" in message


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet21", f"model: {MODELS}, got 'resnet21' (did you mean resnet20?)"),
        ("", f"model: {MODELS}, got ''"),
        (
            "weights.th",
            "weights.th: expected a model; a file of weights goes with an architecture (resnet20 --weights "
            "FILE), got no such file",
        ),
        (".", ".: expected a run folder, with a config.json in it, got a folder without one"),
        ("resnet20,width", "resnet20,width: expected options as NAME,option=value,option=value, got 'width'"),
        ("resnet20,=1", "resnet20,=1: expected options as NAME,option=value,option=value, got '=1'"),
        ("resnet20,width=x", "resnet20: width: expected a valid number, unable to parse string as a number, got 'x'"),
        (
            "resnet20,skips=perhaps",
            "resnet20: skips: expected a valid boolean, unable to interpret input, got 'perhaps'",
        ),
    ],
)
def test_names_that_mean_nothing(
    spec: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(lambda: load_model(spec)) == message
