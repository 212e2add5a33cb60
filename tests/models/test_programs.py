"""One network through all kinds of files: the same numbers, the same gradients, and one line where that cannot be."""

from __future__ import annotations

import io
import json
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from assay import ImageDataset, attack, measure_clean_accuracy, measure_robust_accuracy
from assay.errors import AssayError, DependencyError, ModelError
from assay.models import open_model
from assay.models.sources import SPELLINGS, LoadedModel

Refused = Callable[[Callable[[], object]], str]
SHAPE = (3, 8, 8)
IMAGES = torch.rand(24, *SHAPE, generator=torch.Generator().manual_seed(1))


class Network(nn.Module):
    """Convolutions with uneven geometry, normalisation, pooling, a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(6 * 16, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.first(images)))
        features = self.pool(features + self.second(features))
        return self.head(features.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(3)
    network = Network()
    network.norm.running_mean.uniform_(-0.5, 0.5)
    network.norm.running_var.uniform_(0.5, 2)
    network.requires_grad_(False)
    network.head.weight.mul_(3)
    network.head.bias.copy_(-network.eval()(IMAGES).mean(0))
    return network


@pytest.fixture(scope="module")
def dataset(network: Network) -> ImageDataset:
    images = (IMAGES * 255).round().to(torch.uint8)
    labels = network(images / 255).argmax(1)
    labels[::3] = (labels[::3] + 1) % 4
    return ImageDataset(images, labels, classes=("a", "b", "c", "d"))


def export_onnx(network: nn.Module, path: Path, *, batch: int = 2, dynamic: bool = True, **options: Any) -> Path:
    axes = {"image": {0: "n"}, "logits": {0: "n"}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (IMAGES[:batch],), path, dynamo=False, input_names=["image"], output_names=["logits"],
            dynamic_axes=axes, **options,
        )  # fmt: skip
    return path


def export_pt2(network: nn.Module, path: Path, *, batch: int = 2, dynamic: bool = True, **options: Any) -> Path:
    shapes = ({0: torch.export.Dim("n", min=1, max=4096)},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(network, (IMAGES[:batch],), dynamic_shapes=shapes), path, **options)
    return path


def export_torchscript(network: nn.Module, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network, IMAGES[:2]), path, **options)
    return path


def forward_only(path: Path) -> Path:
    """The same program with an operator that is not converted: its result is added, times nothing."""
    model = onnx.load(path)
    graph = model.graph
    graph.output[0].name = "scores"
    next(node for node in graph.node if "logits" in node.output).output[0] = "scores"
    graph.initializer.append(numpy_helper.from_array(np.float32(0), "nothing"))
    graph.node.extend(
        [
            helper.make_node("NonZero", ["scores"], ["places"]),
            helper.make_node("Cast", ["places"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["numbers"], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "nothing"], ["zero"]),
            helper.make_node("Add", ["scores", "zero"], ["logits"]),
        ]
    )
    graph.output[0].name = "logits"
    onnx.save(model, path)
    return path


def open_program(path: Path, **options: Any) -> LoadedModel:
    return open_model(path, image_shape=SHAPE, trust_code=True, examples=IMAGES[:8], **options)


FORMS: dict[str, Callable[[nn.Module, Path], Path]] = {
    "onnx": lambda network, folder: export_onnx(network, folder / "m.onnx"),
    "onnx of one batch": lambda network, folder: export_onnx(network, folder / "m.onnx", batch=3, dynamic=False),
    "onnx forward": lambda network, folder: forward_only(export_onnx(network, folder / "m.onnx")),
    "onnx forward of one batch": lambda network, folder: forward_only(
        export_onnx(network, folder / "m.onnx", batch=5, dynamic=False)
    ),
    "pt2": lambda network, folder: export_pt2(network, folder / "m.pt2"),
    "pt2 of one batch": lambda network, folder: export_pt2(network, folder / "m.pt2", batch=3, dynamic=False),
    "torchscript": lambda network, folder: export_torchscript(network, folder / "m.pt"),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_network_gives_the_same_records(
    form: str, network: Network, dataset: ImageDataset, tmp_path: Path
) -> None:
    loaded = open_program(FORMS[form](network, tmp_path), classes=dataset.classes)
    model = loaded.model
    assert loaded.classes == 4 and not model.training
    for n in (1, 2, 7, 24):
        assert torch.allclose(model(IMAGES[:n]), network(IMAGES[:n]), atol=1e-5)
    clean, plain = measure_clean_accuracy(model, dataset), measure_clean_accuracy(network, dataset)
    assert (clean.correct, clean.per_class, clean.confusion) == (plain.correct, plain.per_class, plain.confusion)
    assert clean.loss == pytest.approx(plain.loss, rel=1e-5)
    attack = {"attack": "pgd", "epsilon": 2 / 255, "seed": 0}
    if "forward" in form:
        assert any("runs forward only, in onnxruntime" in note for note in loaded.notes)
        with pytest.raises(ModelError, match="a program that runs forward only"):
            measure_robust_accuracy(model, dataset, **attack)
        return
    ours, eager = (measure_robust_accuracy(m, dataset, **attack) for m in (model, network))
    assert torch.equal(ours.result.broken, eager.result.broken)
    assert ours.record.accuracy == eager.record.accuracy < 1


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_layers_are_those_of_torch_with_their_gradients(form: str, network: Network, tmp_path: Path) -> None:
    model = open_program(FORMS[form](network, tmp_path)).model
    kinds = {type(module).__mro__[0] for module in model.modules()}
    assert {nn.Conv2d, nn.Linear, nn.ReLU} <= kinds
    assert sum(p.numel() for p in model.parameters()) in {
        sum(p.numel() for p in network.parameters()),  # exporters fold the normalisation into the convolution
        sum(p.numel() for p in network.parameters()) - 12,
    }
    images, same = IMAGES[:4].clone().requires_grad_(), IMAGES[:4].clone().requires_grad_()
    model(images).square().sum().backward()
    network(same).square().sum().backward()
    assert torch.allclose(images.grad, same.grad, atol=1e-5)


def test_a_conversion_is_verified_on_images_of_the_data(network: Network, tmp_path: Path, monkeypatch: Any) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    (note,) = open_program(path).notes
    assert "was converted to torch" in note and note.endswith(
        "of its logits' range from onnxruntime on 8 images of the data"
    )
    from assay.models.programs import onnx_operators

    monkeypatch.setitem(onnx_operators.OPERATORS, "Flatten", lambda node, x: x.flatten(1) * 1.001)
    loaded = open_program(path)
    assert "what was converted to torch differs by" in loaded.notes[0]
    assert torch.allclose(loaded.model(IMAGES), network(IMAGES), atol=1e-5)


class OneOnly(nn.Module):
    """A program that treats a batch as one image, as exports with a batch of one can."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images) - images.mean()  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_a_program_whose_images_depend_on_their_batch_keeps_its_batch(
    form: str, network: Network, tmp_path: Path
) -> None:
    eager = OneOnly(network).eval()
    export = {"onnx": export_onnx, "pt2": export_pt2}[form]
    path = export(eager, tmp_path / f"m.{form}", batch=1, dynamic=False)
    model = open_model(path, image_shape=SHAPE, examples=IMAGES[:1]).model
    assert torch.allclose(model(IMAGES), torch.cat([eager(image[None]) for image in IMAGES]), atol=1e-5)


class InPlace(nn.Module):
    """Values are written over in place, as masks of windows are made."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("gain", torch.ones(8, 8))

    def forward(self, images: Tensor) -> Tensor:
        mask = images.new_zeros(8, 8)
        mask[2:6, 1:7] = 1
        mask[0] = 0.5
        images = images * (mask * self.gain)
        images[:, 0].mul_(2)
        return self.network(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_what_is_written_in_place(form: str, network: Network, tmp_path: Path) -> None:
    eager = InPlace(network).eval()
    model = open_program(FORMS[form](eager, tmp_path)).model
    images = IMAGES.clone()
    for n in (24, 2):
        assert torch.allclose(model(images[:n]), eager(images[:n]), atol=1e-5)
    assert torch.equal(images, IMAGES)


def test_other_weights_go_into_a_program(network: Network, tmp_path: Path) -> None:
    path = export_pt2(network, tmp_path / "m.pt2")
    torch.manual_seed(9)
    other = Network().eval()
    torch.save(other.state_dict(), tmp_path / "other.pt")
    loaded = open_program(path, weights=tmp_path / "other.pt")
    assert torch.allclose(loaded.model(IMAGES), other(IMAGES), atol=1e-6)


def test_class_names_are_read_from_the_file(network: Network, tmp_path: Path) -> None:
    names = ("cat", "dog", "owl", "fox")
    path = export_onnx(network, tmp_path / "m.onnx")
    model = onnx.load(path)
    for key, text in (("author", "x"), ("names", str(dict(enumerate(names))))):
        model.metadata_props.add(key=key, value=text)
    onnx.save(model, path)
    assert open_program(path).class_names == names
    beside = {"classes.txt": "\n".join(names)}
    pt2 = export_pt2(network, tmp_path / "m.pt2", extra_files=beside)
    assert open_program(pt2).class_names == names
    beside = {"config.json": json.dumps({"id2label": dict(enumerate(names))})}
    script = export_torchscript(network, tmp_path / "m.pt", _extra_files=beside)
    loaded = open_program(script, classes=("owl", "cat"))
    assert torch.allclose(loaded.model(IMAGES), network(IMAGES)[:, [2, 0]], atol=1e-5)


class Whole(nn.Module):
    """A network on bytes in the layout (N, H, W, C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.permute(0, 3, 1, 2).float() / 255)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_bytes_in_another_layout(form: str, network: Network, tmp_path: Path) -> None:
    images = (IMAGES * 255).round().to(torch.uint8)
    example = (images[:2].permute(0, 2, 3, 1),)
    path = tmp_path / f"m.{form}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "onnx":
            torch.onnx.export(
                Whole(network).eval(), example, path, dynamo=False, dynamic_axes={"x": {0: "n"}}, input_names=["x"]
            )
        else:
            torch.export.save(torch.export.export(Whole(network).eval(), example), path)
    model = open_program(path).model
    pixels = images / 255
    assert torch.allclose(model(pixels), network(pixels), atol=1e-5)
    assert torch.equal(model(pixels + 0.4 / 255), model(pixels))  # what lies between is rounded
    leaf, same = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
    model(leaf).sum().backward()
    network(same).sum().backward()
    assert torch.allclose(leaf.grad, same.grad, atol=1e-5)


class Scaled(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - 127.5) / 127.5 * 0.5 + 0.5)  # type: ignore[no-any-return]


def test_a_scale_in_the_graph_is_met_with_pixels_of_255(network: Network, tmp_path: Path) -> None:
    loaded = open_program(export_onnx(Scaled(network).eval(), tmp_path / "m.onnx"))
    assert torch.allclose(loaded.model(IMAGES), network(IMAGES), atol=1e-4)
    assert any("takes pixels in [0, 255]" in note for note in loaded.notes)


class Several(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.network(images)
        return {"best": logits.argmax(1), "loss": logits.mean(), "logits": logits}


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_of_several_outputs_the_logits_are_taken_and_named(form: str, network: Network, tmp_path: Path) -> None:
    if form == "onnx":
        path = export_onnx(Several(network).eval(), tmp_path / "m.onnx")
    else:
        path = export_pt2(Several(network).eval(), tmp_path / "m.pt2")
    loaded = open_program(path)
    assert torch.allclose(loaded.model(IMAGES), network(IMAGES), atol=1e-5)
    assert "has the outputs" in loaded.notes[0] and "is taken as the logits" in loaded.notes[0]


def test_weights_in_a_file_beside_it(network: Network, tmp_path: Path, refused: Refused) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert torch.allclose(open_program(path).model(IMAGES), network(IMAGES), atol=1e-5)
    (tmp_path / "m.data").unlink()
    assert "m.data" in refused(lambda: open_program(path))


def test_a_quantised_program_runs_forward(network: Network, tmp_path: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(IMAGES.split(4))

        def get_next(self) -> dict[str, Any] | None:
            part = next(self.rows, None)
            return None if part is None else {"image": part.numpy()}

    source = export_onnx(network, tmp_path / "m.onnx")
    for number, form in enumerate((QuantFormat.QDQ, QuantFormat.QOperator, None)):
        path = tmp_path / f"q{number}.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if form is None:
                quantize_dynamic(source, path)
            else:
                quantize_static(source, path, Reader(), quant_format=form)
        loaded = open_program(path)
        assert "runs forward only, in onnxruntime" in loaded.notes[0]
        logits, original = loaded.model(IMAGES), network(IMAGES)
        assert 0 < float((logits - original).abs().max()) < 0.5 * float(original.max() - original.min())


def test_an_attack_that_needs_gradients_is_refused_even_where_no_sample_is_right(
    network: Network, tmp_path: Path
) -> None:
    program = open_program(forward_only(export_onnx(network, tmp_path / "m.onnx"))).model
    wrong = (program(IMAGES).argmax(dim=1) + 1) % 4
    with pytest.raises(ModelError, match="expected a model with gradients, got a program that runs forward only"):
        attack(program, IMAGES, wrong, attack="pgd")
    assert not attack(program, IMAGES, wrong, attack="noise").broken.any()
    assert not attack(program, IMAGES, wrong, attack="pgd", source=network).broken.any()


def test_threads_of_the_runtime_wait_asleep(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    given: list[str] = []
    original = onnxruntime.InferenceSession

    def open_with(path: Path, options: Any, **more: Any) -> Any:
        given.append(options.get_session_config_entry("session.intra_op.allow_spinning"))
        return original(path, options, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", open_with)
    open_program(export_onnx(network, tmp_path / "m.onnx"))
    assert given and set(given) == {"0"}  # else a torch network timed in turn is several times as slow


def test_half_precision(network: Network, tmp_path: Path) -> None:
    import copy

    half = copy.deepcopy(network).half()
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(half, (IMAGES[:2].half(),), path, dynamo=False)
    loaded = open_program(path)
    assert torch.allclose(loaded.model(IMAGES).float(), network(IMAGES), atol=0.02)


# TorchScript


def test_torchscript_is_refused_unless_it_is_trusted(network: Network, tmp_path: Path, refused: Refused) -> None:
    path = export_torchscript(network, tmp_path / "weights.pth")
    message = refused(lambda: open_model(path, image_shape=SHAPE))
    assert "--trust-code" in message and "TorchScript program, which may call any operator of torch" in message
    torch.save(network.state_dict(), tmp_path / "checkpoint.pt")
    assert "a file of weights" in refused(lambda: open_model(tmp_path / "checkpoint.pt"))
    row = next(each for each in SPELLINGS if each.applies(str(path)))
    assert "read and write files" in row.runs_code and not row.names_code


def test_torchscript_frozen_in_training_mode_and_without_forward(
    network: Network, tmp_path: Path, refused: Refused
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(network)
        torch.jit.save(torch.jit.freeze(scripted), tmp_path / "frozen.ts")
        scripted.train()
        torch.jit.save(scripted, tmp_path / "training.ts")

        class Other(nn.Module):
            @torch.jit.export
            def predict(self, images: Tensor) -> Tensor:
                return images.mean((2, 3))

        torch.jit.save(torch.jit.script(Other()), tmp_path / "other.ts")
    for name in ("frozen.ts", "training.ts"):
        assert torch.allclose(open_program(tmp_path / name).model(IMAGES), network(IMAGES), atol=1e-5)
    assert "expected a program with a method forward, got one with predict" in refused(
        lambda: open_program(tmp_path / "other.ts")
    )


# Bad files


class Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def rewritten(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def test_a_pickle_inside_a_container_is_never_run(network: Network, tmp_path: Path, refused: Refused) -> None:
    touched = tmp_path / "touched"
    evil = io.BytesIO()
    torch.save({"first.weight": Touch(touched)}, evil)
    plain = pickle.dumps(Touch(touched))
    for name in ("m.onnx", "m.pt2", "m.ts"):
        for content in (evil.getvalue(), plain):
            (tmp_path / name).write_bytes(content)
            refused(lambda name=name: open_program(tmp_path / name))
    pt2 = export_pt2(network, tmp_path / "good.pt2")
    samples = rewritten(
        pt2, tmp_path / "a.pt2", lambda name, content: evil.getvalue() if "sample_inputs" in name else content
    )
    assert torch.allclose(open_program(samples).model(IMAGES), network(IMAGES), atol=1e-6)  # nobody reads that part

    def pickled(name: str, content: bytes) -> bytes:
        if name.endswith("weights_config.json"):
            return content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
        return evil.getvalue() if name.endswith("weight_0") else content

    message = refused(lambda: open_program(rewritten(pt2, tmp_path / "b.pt2", pickled)))
    assert "expected a pickle of plain tensors" in message
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as old:
        old.writestr("serialized_exported_program.json", "{}")
        old.writestr("serialized_state_dict.pt", evil.getvalue())
    assert "expected a pickle of plain tensors" in refused(lambda: open_program(tmp_path / "old.pt2"))
    script = rewritten(
        export_torchscript(network, tmp_path / "good.ts"),
        tmp_path / "c.ts",
        lambda name, content: plain if name.endswith("data.pkl") else content,
    )
    refused(lambda: open_program(script))
    assert not touched.exists()


def test_expressions_and_operators_in_an_archive_are_no_code(
    network: Network, tmp_path: Path, refused: Refused
) -> None:
    touched = tmp_path / "touched"
    pt2 = export_pt2(network, tmp_path / "good.pt2")
    code = f"__import__('pathlib').Path('{touched}').touch()"

    def guarded(name: str, content: bytes) -> bytes:
        if "/models/" not in name:
            return content
        program = json.loads(content)
        program["guards_code"] = [code]
        for value in program["graph_module"]["graph"]["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        return json.dumps(program).encode()

    assert torch.allclose(
        open_program(rewritten(pt2, tmp_path / "a.pt2", guarded)).model(IMAGES), network(IMAGES), atol=1e-6
    )
    assert not touched.exists()
    for target in ("torch.ops.aten.from_file.default", "torch.ops.mine.relu.default", "os.system", "torch.load"):
        wrong = rewritten(
            pt2,
            tmp_path / "b.pt2",
            lambda _, content, target=target: content.replace(b"torch.ops.aten.relu.default", target.encode()),
        )
        assert f"expected operators of ATen (torch.ops.aten), got {target}" in refused(
            lambda wrong=wrong: open_program(wrong)
        )


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2", "m.ts"])
def test_a_broken_file_is_one_line(name: str, network: Network, tmp_path: Path, refused: Refused) -> None:
    path = tmp_path / name
    assert "no such file" in refused(lambda: open_program(path))
    form = {"m.onnx": "onnx", "m.pt2": "pt2", "m.ts": "torchscript"}[name]
    good = FORMS[form](network, tmp_path)
    content = good.read_bytes()
    for broken in (b"", b"hello", content[: len(content) // 2], content[100:], bytes(len(content))):
        path.write_bytes(broken)
        assert str(path) in refused(lambda: open_program(path))


@pytest.mark.parametrize("form", ["onnx", "pt2", "torchscript"])
def test_another_size_of_images_is_refused(form: str, network: Network, tmp_path: Path, refused: Refused) -> None:
    path = FORMS[form](network, tmp_path)
    message = refused(lambda: open_model(path, image_shape=(3, 16, 16), trust_code=True))
    assert "(3, 16, 16)" in message or "(N, 3, 16, 16)" in message
    if form != "torchscript":
        assert "--image-size 8" in message
        assert open_model(path).image_shape == SHAPE
    assert "1" in refused(lambda: open_model(path, image_shape=(1, 8, 8), trust_code=True))
    assert "a model of 4" in refused(lambda: open_model(path, classes=5, image_shape=SHAPE, trust_code=True))


def write_onnx(
    path: Path, sizes: list[Any], *, kind: int = TensorProto.FLOAT, opset: int = 13, inputs: int = 1
) -> Path:
    given = [helper.make_tensor_value_info(f"x{i}", kind, sizes) for i in range(inputs)]
    node = helper.make_node("Identity", ["x0"], ["y"])
    graph = helper.make_graph([node], "g", given, [onnx.ValueInfoProto(name="y")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sizes": [3, 8, 8]}, "with a batch axis (N, C, H, W), got (3, 8, 8) without"),
        ({"sizes": ["n", 12]}, "an input of images (N, C, H, W), got (?, 12)"),
        ({"sizes": ["n", 3, 8, 8], "kind": TensorProto.STRING}, "an input of images, got one of another type"),
        ({"sizes": ["n", 3, 8, 8], "inputs": 2}, "a program of one input, the images, got 2: x0, x1"),
        ({"sizes": ["n", 3, 8, 8], "opset": 999}, "an ONNX file that onnxruntime can run, got"),
    ],
)
def test_programs_of_another_kind_are_refused(
    options: dict[str, Any], expected: str, tmp_path: Path, refused: Refused
) -> None:
    path = write_onnx(tmp_path / "m.onnx", **options)
    assert expected in refused(lambda: open_program(path))


def test_a_missing_extra_is_named(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(DependencyError, match=r"pip install 'assay\[onnx\]'"):
                open_program(path)


def test_what_fails_at_the_first_call_is_an_error_of_the_model(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", ["n", 3, 8, 8])
    with pytest.raises(AssayError):
        measure_clean_accuracy(open_program(path).model, ImageDataset(
            torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), classes=("a", "b", "c")
        ))  # fmt: skip
