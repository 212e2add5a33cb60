from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from assay.errors import ModelError
from assay.models.architectures import build
from assay.models.weights import check_finite, implied_classes, load_weights, read_weights

Refused = Callable[[Callable[[], object]], str]


def tiny() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), linear=nn.Linear(8, 5)))


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: torch.rand_like(value.float()) for name, value in tiny().state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "epoch": 3, "best_prec1": 91.7},
        lambda s: {"model": s, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}},
        lambda s: {"model_state_dict": s},
        lambda s: {"net": s, "acc": 95.1},
        lambda s: {"ema": s, "step": torch.tensor(3)},
        lambda s: {"state": 1, "state_dict": {"model": s}},
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1), "acc": np.float64(91.2), "curve": np.ones(3)},
    ],
    ids=["bare", "state_dict", "model", "model_state_dict", "net", "ema", "nested", "inert extras"],
)
def test_wrappers_of_checkpoints_are_taken_off(tmp_path: Path, wrap: Callable[[object], object]) -> None:
    path, expected = tmp_path / "x.pt", state()
    torch.save(wrap(expected), path)
    found = read_weights(path)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_safetensors_are_known_by_content_too(tmp_path: Path, name: str) -> None:
    save_file(state(), tmp_path / name)
    assert read_weights(tmp_path / name).keys() == state().keys()


def test_files_of_the_old_format_load(tmp_path: Path) -> None:
    torch.save(state(), tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    assert read_weights(tmp_path / "x.pth").keys() == state().keys()


class Payload:
    """What a hostile checkpoint holds: loading it would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("inside", [lambda p: p, lambda p: {"state_dict": state(), "extra": p}], ids=["bare", "inside"])
@pytest.mark.parametrize("writer", ["torch", "legacy", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(
    tmp_path: Path, inside: Callable[[object], object], writer: str, protocol: int, refused: Refused
) -> None:
    proof, path = tmp_path / "ran", tmp_path / "evil.pt"
    content = inside(Payload(proof))
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    else:
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=writer == "torch")
    message = refused(lambda: read_weights(path))
    assert not proof.exists()
    assert message.startswith(f"{path}: expected ")
    assert "run" in message


def test_the_payload_of_the_test_above_is_real(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_refused_pickle_says_what_it_wanted(tmp_path: Path, refused: Refused) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    assert refused(lambda: read_weights(tmp_path / "whole.pt")) == (
        f"{tmp_path / 'whole.pt'}: expected tensors that load without running code (save model.state_dict(), not the "
        "model), got a pickle that needs torch.nn.modules.linear.Linear, which is refused"
    )


CHECKPOINT = "expected a PyTorch checkpoint or a .safetensors file"
HEADER = "expected a safetensors file, got "  # and what safetensors says of it


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("x.pt", b"", f"{CHECKPOINT}, got an empty file"),
        ("x.pt", b"hello world", f"{CHECKPOINT}, got a file of another kind"),
        (
            "x.pt",
            b"PK\x03\x04 no archive",
            f"{CHECKPOINT}, got a damaged or foreign archive (",
        ),
        ("x.safetensors", b"hello world, hello", HEADER),
        ("x.safetensors", b"", HEADER),
    ],
)
def test_foreign_files_are_named(tmp_path: Path, name: str, content: bytes, fault: str, refused: Refused) -> None:
    (tmp_path / name).write_bytes(content)
    assert refused(lambda: read_weights(tmp_path / name)).startswith(f"{tmp_path / name}: {fault}")


@given(st.binary(max_size=200), st.sampled_from(["x.pt", "x.safetensors"]))
def test_no_file_of_noise_escapes_as_anything_but_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str
) -> None:
    path = tmp_path_factory.mktemp("noise") / name
    path.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert "\n" not in message


@given(st.integers(0, 5000), st.booleans())
def test_no_damaged_file_escapes_as_anything_but_a_model_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: bool
) -> None:
    buffer = io.BytesIO()
    torch.save(state(), buffer)
    content = bytearray(buffer.getvalue())
    cut %= len(content)
    if flip:
        content[cut] ^= 0xFF
    path = tmp_path_factory.mktemp("damaged") / "x.pt"
    path.write_bytes(bytes(content) if flip else bytes(content[:cut]))
    try:
        assert all(isinstance(tensor, torch.Tensor) for tensor in read_weights(path).values())
    except ModelError as error:
        assert str(error).startswith(str(path))


def test_a_torchscript_program_is_refused(tmp_path: Path, refused: Refused) -> None:
    # What torch.jit.save writes is an archive with its code beside the tensors; torch.load tells it by that.
    import zipfile

    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version", "byteorder", "code/x.py"):
            archive.writestr(f"x/{name}", b"3" if name == "version" else b"")
    assert refused(lambda: read_weights(tmp_path / "x.pt")) == (
        f"{tmp_path / 'x.pt'}: expected a state dict, got a TorchScript program, which would run code from the file"
    )


def test_a_missing_file_names_its_neighbour(tmp_path: Path, refused: Refused) -> None:
    torch.save(state(), tmp_path / "resnet20-best.th")
    message = refused(lambda: read_weights(tmp_path / "resnet20-bset.th"))
    assert message.endswith("expected a file of weights, got no such file (did you mean resnet20-best.th?)")


NO_STATE = ": expected a state dict, names to tensors, got"


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ({"epoch": 3, "lr": 0.1}, f"{NO_STATE} a dict with the keys 'epoch', 'lr'"),
        ({}, f"{NO_STATE} an empty dict"),
        ([1, 2], f"{NO_STATE} a list"),
        (torch.ones(3), f"{NO_STATE} a Tensor"),
        ({"state_dict": {"a": 1}}, f"['state_dict']{NO_STATE} a dict with the keys 'a'"),
    ],
)
def test_a_checkpoint_without_weights_says_what_it_holds(
    tmp_path: Path, content: object, fault: str, refused: Refused
) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert refused(lambda: read_weights(tmp_path / "x.pt")) == f"{tmp_path / 'x.pt'}{fault}"


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model.{name}",
        lambda name: f"module.model.{name}",
        lambda name: f"model.module.{name}",
        lambda name: name.replace("norm.", "norm._orig_mod."),
    ],
)
def test_prefixes_of_wrappers_are_taken_off(rename: Callable[[str], str]) -> None:
    model, expected = tiny(), state(1)
    load_weights(model, {rename(name): value for name, value in expected.items()}, where="x")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name].to(value.dtype))


def test_a_prefix_that_is_the_models_own_stays() -> None:
    model = nn.ModuleDict({"model": tiny()})
    expected = {f"model.{name}": value for name, value in state(2).items()}
    load_weights(model, expected, where="x")
    assert torch.equal(model.state_dict()["model.linear.weight"], expected["model.linear.weight"])
    load_weights(model, {f"module.{name}": value + 1 for name, value in expected.items()}, where="x")
    assert torch.equal(model.state_dict()["model.linear.weight"], expected["model.linear.weight"] + 1)


def test_an_averaged_models_counter_is_no_weight() -> None:
    model, expected = tiny(), state(1)
    prefixed = {f"module.{name}": value for name, value in expected.items()}
    load_weights(model, {"n_averaged": torch.tensor(3), **prefixed}, where="x")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name].to(value.dtype))


def test_torchvisions_names_are_understood() -> None:
    model = build("resnet18", classes=10, image_shape=(3, 32, 32), options={"width": 0.1})
    renamed = {
        name.replace("linear.", "fc.").replace("shortcut", "downsample"): torch.rand_like(value.float())
        for name, value in model.state_dict().items()
        if not name.startswith("normalize")
    }
    load_weights(model, renamed, where="x")
    assert torch.equal(model.state_dict()["linear.bias"], renamed["fc.bias"])
    assert torch.equal(model.state_dict()["layer2.0.shortcut.0.weight"], renamed["layer2.0.downsample.0.weight"])


def test_counters_of_old_checkpoints_may_be_missing() -> None:
    model = tiny()
    expected = {name: value for name, value in state(1).items() if not name.endswith("num_batches_tracked")}
    load_weights(model, expected, where="x")
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert loaded["norm.num_batches_tracked"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {**s, "linear.weight": torch.ones(100, 8)},
            "x: linear.weight: expected (5, 8), got (100, 8)",
        ),
        (
            lambda s: {**s, "linear.weight": torch.ones(9, 8), "linear.bias": torch.ones(9)},
            "x: linear.weight: expected (5, 8), got (9, 8) (and 1 more of 9 tensors)",
        ),
        (
            lambda s: {k: v for k, v in s.items() if not k.startswith("linear")},
            "x: expected the 9 tensors of the model, got 2 missing (linear.weight, linear.bias)",
        ),
        (
            lambda s: {**s, "head.weight": torch.ones(1)},
            "x: expected the 9 tensors of the model, got 1 unexpected (head.weight)",
        ),
        (
            lambda s: {**{k.replace("linear", "head"): v for k, v in s.items()}},
            "x: expected the 9 tensors of the model, got 2 missing (linear.weight, linear.bias) "
            "and 2 unexpected (head.weight, head.bias)",
        ),
        (
            lambda s: {"a": torch.ones(1), "b": torch.ones(1), "c": torch.ones(1), "d": torch.ones(1)},
            "x: expected the 9 tensors of the model, got 8 missing (conv.weight, conv.bias, norm.weight, …) "
            "and 4 unexpected (a, b, c, …)",
        ),
        (
            lambda s: {**s, "conv.weight": torch.full((2, 1, 3, 3), float("nan"))},
            "x: conv.weight: expected finite numbers, got 18 NaN and 0 infinite of 18",
        ),
        (
            lambda s: {**s, "norm.running_var": torch.tensor([1.0, float("inf")])},
            "x: norm.running_var: expected finite numbers, got 0 NaN and 1 infinite of 2",
        ),
    ],
    ids=["shape", "shapes", "missing", "unexpected", "renamed", "foreign", "nan", "infinite"],
)
def test_misfits_are_named_and_leave_the_model_as_it_was(
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], message: str, refused: Refused
) -> None:
    model = tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert refused(lambda: load_weights(model, change(state()), where="x")) == message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_two_tensors_that_a_prefix_would_make_one_are_not_confused(refused: Refused) -> None:
    more = {**state(), "module.linear.bias": torch.zeros(5)}
    assert refused(lambda: load_weights(tiny(), more, where="x")) == (
        "x: expected the 9 tensors of the model, got 1 unexpected (module.linear.bias)"
    )
    both = {**{f"module.{name}": value for name, value in state().items()}, "linear.bias": torch.zeros(5)}
    assert refused(lambda: load_weights(tiny(), both, where="x")) == (
        "x: expected the 9 tensors of the model, got 7 missing (conv.weight, conv.bias, norm.weight, …) and 9 "
        "unexpected (module.conv.weight, module.conv.bias, module.norm.weight, …)"
    )


def test_implied_classes_need_every_misfit_explained() -> None:
    model = tiny()
    hundred = {**state(), "linear.weight": torch.ones(100, 8), "linear.bias": torch.ones(100)}
    assert implied_classes(model, hundred, classes=5) == (100, "linear.weight: expected (5, 8), got (100, 8)")
    prefixed = implied_classes(model, {f"module.{k}": v for k, v in hundred.items()}, classes=5)
    assert prefixed is not None
    assert prefixed.classes == 100
    assert implied_classes(model, state(), classes=5) is None
    assert implied_classes(model, hundred, classes=7) is None
    assert implied_classes(model, {**hundred, "linear.weight": torch.ones(99, 8)}, classes=5) is None
    assert implied_classes(model, {**hundred, "conv.bias": torch.ones(3)}, classes=5) is None


def test_check_finite_allows_masks_but_no_other_infinity(refused: Refused) -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.tensor([0.0, float("-inf")]))
    check_finite(model, where="x")
    model.register_buffer("scale", torch.tensor([float("inf")]))
    assert (
        refused(lambda: check_finite(model, where="x"))
        == "x: scale: expected finite numbers, got 0 NaN and 1 infinite of 1"
    )
    del model.scale
    model.bias.data[0] = float("-inf")
    assert refused(lambda: check_finite(model, where="x")).startswith("x: bias: expected finite numbers")


def test_masks_in_buffers_load_with_their_infinities() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.zeros(2))
    mask = torch.tensor([0.0, float("-inf")])
    load_weights(model, {"weight": torch.ones(2, 2), "bias": torch.ones(2), "mask": mask}, where="x")
    assert torch.equal(model.mask, mask)


def test_an_oversized_safetensors_header_is_refused(tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{" + b" " * 50)
    path = tmp_path / "x.safetensors"
    assert refused(lambda: read_weights(path)).startswith(f"{path}: {HEADER}")


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda w: (w * 100).to(torch.int8), "torch.int8"),
        (lambda w: w > 0, "torch.bool"),
        (lambda w: w.to(torch.complex64), "torch.complex64"),
        (lambda w: w.to_sparse(), "a tensor in the layout torch.sparse_coo"),
        (lambda w: w.to("meta"), "no values"),
    ],
    ids=["int8", "bool", "complex", "sparse", "meta"],
)
def test_what_is_no_real_dense_tensor_is_no_weight(
    change: Callable[[torch.Tensor], torch.Tensor], got: str, tmp_path: Path, refused: Refused
) -> None:
    weights = state()
    weights["linear.weight"] = change(weights["linear.weight"])
    torch.save(weights, tmp_path / "x.pt")
    assert refused(lambda: load_weights(tiny(), read_weights(tmp_path / "x.pt"), where="x.pt")) == (
        f"x.pt: linear.weight: expected a dense tensor of torch.float32, got {got}"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_converted(dtype: torch.dtype) -> None:
    model, weights = tiny(), {name: value.to(dtype) for name, value in state().items()}
    load_weights(model, weights, where="x.pt")
    assert torch.equal(model.linear.weight, weights["linear.weight"].float())


def test_a_tied_tensor_may_be_there_under_one_of_its_names() -> None:
    def tied() -> nn.Module:
        model = nn.Sequential(OrderedDict(first=nn.Linear(3, 3), second=nn.Linear(3, 3)))
        model.second.weight = model.first.weight
        return model

    saved, model = tied(), tied()
    weights = {name: value for name, value in saved.state_dict().items() if name != "second.weight"}
    load_weights(model, weights, where="x.pt")
    assert torch.equal(model.second.weight, saved.first.weight)
