"""Anything that classifies images is a model: modules, programs, functions, pipelines, names; all else is refused."""

from __future__ import annotations

import copy
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import assay
from assay.data import ImageDataset
from assay.errors import ModelError, OptionError
from assay.models.objects import Function, KnownModel, Program
from assay.records.preparation import Preparation

CLASSES = ("a", "b", "c")
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)
    return nn.Sequential(*layers).train()


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    images = torch.randint(0, 256, (24, 3, 16, 16), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return ImageDataset(images, torch.arange(24) % 3, CLASSES, "made")


def exported() -> torch.export.ExportedProgram:
    return torch.export.export(network().eval(), (IMAGES,), dynamic_shapes=({0: torch.export.Dim("n")},))


def onnx_bytes() -> bytes:
    file = io.BytesIO()
    axes = {"x": {0: "n"}}
    torch.onnx.export(network().eval(), (IMAGES,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    return file.getvalue()


def proto() -> object:
    return pytest.importorskip("onnx").load_from_string(onnx_bytes())


def session() -> object:
    return pytest.importorskip("onnxruntime").InferenceSession(onnx_bytes())


def closure() -> Callable[[Tensor], object]:
    inner = network()

    def classify(images: Tensor) -> object:
        return inner(images)

    return classify


def numpys() -> Callable[[Tensor], object]:
    weight = network().eval()

    def classify(images: Tensor) -> object:
        with torch.no_grad():
            return weight(images.detach()).numpy()

    return classify


OBJECTS: dict[str, Callable[[], object]] = {
    "module": network,
    "TorchScript": lambda: torch.jit.script(network().eval()),
    "exported": exported,
    "module of it": lambda: exported().module(),
    "ONNX": proto,
    "session": session,
    "function": closure,
    "method": lambda: network().forward,
    "partial": lambda: functools.partial(network()),
    "in numpy": numpys,
    "pipeline": lambda: SimpleNamespace(model=network(), image_processor=Preparation(mean=(0.0,), std=(1.0,))),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", OBJECTS)
def test_any_of_these_is_measured_as_the_network_that_it_holds(name: str, data: ImageDataset) -> None:
    wanted = assay.measure_clean_accuracy(network(), data)
    obj = OBJECTS[name]()
    assert assay.measure_clean_accuracy(obj, data).confusion == wanted.confusion  # type: ignore[arg-type]
    model = assay.as_model(obj)
    assert assay.measure_clean_accuracy(model, data).confusion == wanted.confusion
    result = assay.attack(obj, data.images[:4] / 255, data.labels[:4], attack="fgsm")  # type: ignore[arg-type]
    theirs = assay.attack(network(), data.images[:4] / 255, data.labels[:4], attack="fgsm")
    assert torch.equal(result.broken, theirs.broken) or name == "in numpy"
    assert assay.audit_modes(obj, data).repeat_gap == 0  # type: ignore[arg-type]


def test_a_module_to_which_nothing_is_to_be_added_stays_itself() -> None:
    model = network()
    assert assay.as_model(model) is model
    assert isinstance(assay.as_model(model, classes=CLASSES), KnownModel)


def test_what_a_function_calls_is_put_into_evaluation_mode_and_left_as_it_was() -> None:
    inner = network()
    model = assay.as_model(lambda images: inner(images) * 1)
    assert isinstance(model, Function)
    assert list(model.called) == [inner]
    with torch.no_grad():
        expected = copy.deepcopy(inner).eval()(IMAGES)
        model.eval()
        assert torch.equal(model(IMAGES), expected)
    with pytest.raises(TypeError, match="hand over a torch.nn.Module"):
        copy.deepcopy(model)
    assert isinstance(copy.deepcopy(assay.as_model(lambda images: images.mean((2, 3)))), Function)


def test_programs_keep_the_mode_they_were_exported_in() -> None:
    model = assay.as_model(exported())
    assert isinstance(model, Program)
    assert not model.train(False).training
    assert model.train().training


CONFIG = {"id2label": {0: "c", 1: "a", 2: "b"}}


def hugging_face(labels: dict[int, str]) -> nn.Module:
    """As a model of transformers: a configuration with names, and an object with ``logits``."""

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network(len(labels))
            self.config = SimpleNamespace(id2label=labels)

        def forward(self, pixel_values: Tensor) -> SimpleNamespace:
            return SimpleNamespace(logits=self.network(pixel_values))

    return Classifier()


def test_names_in_a_configuration_are_matched_to_those_of_the_data(data: ImageDataset) -> None:
    model = hugging_face({0: "c", 1: "x", 2: "A", 3: "b"})
    with torch.no_grad():
        logits = model.eval()(data.images / 255).logits
    right = int((logits[:, [2, 3, 0]].argmax(1) == data.labels).sum())
    assert assay.measure_clean_accuracy(model, data).correct == right
    assert assay.measure_clean_accuracy(assay.as_model(model), data).correct == right
    report = assay.trace(model, data, steps=0)
    assert report.subject.notes[0] == (
        "the data have 3 of the 4 classes of model, matched by name: predictions are among these alone"
    )


def test_placeholders_are_no_names_and_other_names_are_refused(data: ImageDataset) -> None:
    plain = assay.measure_clean_accuracy(network(), data).confusion
    labels = {i: f"LABEL_{i}" for i in range(3)}
    assert assay.measure_clean_accuracy(hugging_face(labels), data).confusion == plain
    strangers = hugging_face({0: "cat", 1: "dog", 2: "cow"})
    with pytest.raises(
        ModelError, match=r"data of its classes, cat, dog, cow, got a, b, c; .*as_model\(model, classes"
    ):
        assay.measure_clean_accuracy(strangers, data)
    assert assay.measure_clean_accuracy(assay.as_model(strangers, classes=CLASSES), data).confusion == plain


def test_names_come_from_a_list_or_a_file(data: ImageDataset, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(["b", "c", "a"]))
    with torch.no_grad():
        right = int((network().eval()(data.images / 255)[:, [2, 0, 1]].argmax(1) == data.labels).sum())
    for classes in (["b", "c", "a"], tmp_path / "names.json", str(tmp_path / "names.json")):
        model = assay.as_model(network(), classes=classes)  # type: ignore[arg-type]
        assert assay.measure_clean_accuracy(model, data).correct == right
    with pytest.raises(OptionError, match="nowhere.txt: expected a file with the names"):
        assay.as_model(network(), classes="nowhere.txt")


PREPARED = "resize=20,crop=16,mean=0.5,0.4,0.3,std=0.2,0.3,0.4,bgr"


def processor() -> object:
    return pytest.importorskip("transformers").ViTImageProcessor(size={"height": 16, "width": 16})


def preset() -> object:
    presets = pytest.importorskip("torchvision").transforms._presets
    return presets.ImageClassification(crop_size=16, resize_size=20, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("prepare", "mean", "std", "bgr"),
    [
        (PREPARED, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), True),
        (Preparation.parse(PREPARED), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), True),
        (processor, (0.5,) * 3, (0.5,) * 3, False),
        (preset, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), False),
        (lambda: {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.2,) * 3}, (0.5,) * 3, (0.2,) * 3, False),
    ],
    ids=["text", "record", "processor", "torchvision", "timm"],
)
def test_what_the_author_does_to_the_numbers_comes_before_the_model(
    prepare: object, mean: tuple[float, ...], std: tuple[float, ...], bgr: bool
) -> None:
    inner = network().eval()
    model = assay.as_model(inner, prepare=prepare() if callable(prepare) else prepare)
    x = (IMAGES - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(model(IMAGES), inner(x.flip(1) if bgr else x))
    assert isinstance(model.preparation, Preparation)
    assert model.preparation.size == (16, 16)


def test_a_preparation_that_says_nothing_is_refused() -> None:
    with pytest.raises(OptionError, match="prepare: expected a text, a Preparation, .* got 3"):
        assay.as_model(network(), prepare=3)


@pytest.mark.parametrize(
    ("obj", "got"),
    [
        (network().state_dict(), r"a state dict \(model.load_state_dict takes it\)"),
        (nn.Linear, "the class Linear, not an instance of it"),
        (None, "None"),
        ([network()], "a list"),
        (np.zeros(3), "ndarray float64"),
        (3, "3"),
    ],
)
def test_what_is_no_model_is_refused_with_the_way_out(obj: object, got: str, data: ImageDataset) -> None:
    with pytest.raises(ModelError, match=rf"^obj: expected a torch.nn.Module, .*, got {got}"):
        assay.as_model(obj)
    with pytest.raises(ModelError, match=rf"^model: expected a model, .*load_model\(NAME\) makes one\), got {got}"):
        assay.measure_clean_accuracy(obj, data)  # type: ignore[arg-type]


def test_weights_without_their_network_are_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match="a file of weights goes with an architecture"):
        assay.as_model("weights.safetensors")


def test_a_name_and_what_open_model_gives_are_models_too(data: ImageDataset) -> None:
    opened = assay.models.open_model("mlp", classes=("c", "a", "b"), image_shape=data.shape)
    model = assay.as_model(opened)
    assert model.class_names == ("c", "a", "b") or model.class_names is None
    assert assay.as_model("resnet8,width=0.25").notes == (
        "resnet8,width=0.25 has random weights: nothing was trained and nothing loaded",
    )


@pytest.mark.full
def test_random_networks_of_transformers_are_measured_and_trained_as_they_come(data: ImageDataset) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label={0: "b", 1: "c", 2: "a"},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    recipe = assay.Recipe.parse({"name": "s", "epochs": 1, "batch_size": 8, "augment": {"name": "none"}})
    assert assay.fit(model, data, recipe=recipe).epochs
    assert assay.run_check(model, data, budget="quick", limit=8).complete
