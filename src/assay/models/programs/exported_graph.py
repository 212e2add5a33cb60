"""From the archive of ``torch.export.save`` to a module, read without what torch's own reader would run.

That one unpickles, evaluates expressions and generates code from the file. Here the graph is read as the JSON that it
is, tensors as bytes or as pickles of plain tensors (``weights_only``), and nothing but operators of ATen is called.
"""

from __future__ import annotations

import io
import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from assay.errors import ModelError, one_line
from assay.models.programs.graph import BatchNorm2d, Graph, Step

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}  # by their numbers in the archive
_LAYOUTS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_CHECKS = ("_assert_", "sym_constrain_range", "_guards_fn")  # operators that only check
_SCALARS = {"as_int", "as_bool", "as_string", "as_ints", "as_bools", "as_strings"}


class Archive(NamedTuple):
    """The parts of an archive: its graph as JSON, tensors by name, and the texts stored beside them."""

    program: dict[str, Any]
    weights: dict[str, Tensor]
    constants: dict[str, Tensor]
    texts: dict[str, str]


class Exported(NamedTuple):
    """A program as a module, the sizes (None: any) and dtype of its image, and the names of its outputs."""

    graph: Graph
    name: str
    sizes: tuple[int | None, ...]
    dtype: torch.dtype | None
    outputs: tuple[str, ...]


def read_archive(file: ZipFile, *, where: str) -> Archive:
    """The parts of ``file``, in today's form or an earlier one. Raises :class:`ModelError`."""
    names = file.namelist()
    old = next((name for name in names if name.endswith("serialized_exported_program.json")), None)
    texts = {name.partition("extra/")[2]: _text(file, name) for name in names if "/extra/" in name}
    if old is not None:
        folder = old.removesuffix("serialized_exported_program.json")
        texts |= {name: _text(file, name) for name in names if name.startswith(f"{folder}extra_files/")}
        weights, constants = (
            _unpickle(file, f"{folder}serialized_{kind}.pt", where=where) if f"{folder}serialized_{kind}.pt" in names
            else {} for kind in ("state_dict", "constants")
        )  # fmt: skip
        return Archive(_json(file, old, where=where), _tensors(weights, where), _tensors(constants, where), texts)
    if any("/aotinductor/" in name for name in names):
        raise ModelError(where, expected="a program of torch.export.save", got="machine code (AOTInductor)")
    models = [name for name in names if "/models/" in name and name.endswith(".json")]
    if len(models) != 1:
        raise ModelError(where, expected="an archive of one exported program", got=f"{len(models)} in it")
    root, _, model = models[0].removesuffix(".json").partition("/models/")
    parts = []
    for kind in ("weights", "constants"):
        folder = f"{root}/data/{kind}/"
        if f"{folder}{model}.pt" in names:  # an earlier form: all tensors in one pickle
            parts.append(_tensors(_unpickle(file, f"{folder}{model}.pt", where=where), where))
            continue
        config = f"{folder}{model}_{kind}_config.json"
        listed = _json(file, config, where=where)["config"] if config in names else {}
        parts.append({name: _payload(file, folder, entry, where=where) for name, entry in listed.items()})
    return Archive(_json(file, models[0], where=where), parts[0], parts[1], texts)


def _text(file: ZipFile, name: str) -> str:
    return file.read(name).decode(errors="replace")


def _json(file: ZipFile, name: str, *, where: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read(name))
    except ValueError as error:
        raise ModelError(f"{where}: {name}", expected="JSON", got=error) from None
    return content


def _unpickle(file: ZipFile, name: str, *, where: str) -> Any:
    """What a pickle in the archive holds, of plain tensors alone: any other is refused, and not run."""
    content = file.read(name)
    if not content:
        return {}
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        expected = "a pickle of plain tensors (any other could run code)"
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), str(error))
        raise ModelError(f"{where}: {name}", expected=expected, got=one_line(reason)) from None


def _tensors(content: Any, where: str) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(where, expected="tensors by name", got=f"a {type(content).__name__} of other things")
    return dict(content)


def _payload(file: ZipFile, folder: str, entry: Mapping[str, Any], *, where: str) -> Tensor:
    name = folder + entry["path_name"]
    if entry.get("use_pickle"):
        value = _unpickle(file, name, where=where)
        if not isinstance(value, Tensor):
            raise ModelError(f"{where}: {name}", expected="a tensor", got=f"a {type(value).__name__}")
    else:
        meta = entry["tensor_meta"]
        sizes, strides = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
        content = bytearray(file.read(name))
        dtype = DTYPES[meta["dtype"]]
        flat = torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)
        value = (
            flat.as_strided(sizes, strides, int(meta["storage_offset"]["as_int"])) if content else flat.reshape(sizes)
        )
        value = value.clone()
    return nn.Parameter(value) if entry.get("is_param") and value.is_floating_point() else value


def build(archive: Archive, *, where: str) -> Exported:
    """The program as a module with layers under their own names. Raises :class:`ModelError`."""
    module = archive.program["graph_module"]
    described, signature = module["graph"], module["signature"]
    graph, held = Graph(), {**archive.weights, **archive.constants}
    image, stored = _arguments(signature["input_specs"], held, where=where)
    steps = []
    for node in described["nodes"]:
        if any(check in node["target"] for check in _CHECKS):
            continue
        layer = _layer(node, stored, held)
        inputs = list(_names(node["inputs"]))
        if layer is None:
            steps.append(Step(_function(node, where=where), tuple(inputs), tuple(_outputs(node))))
        else:
            path, built = layer
            steps.append(Step(graph.add_layer(path, built), tuple(inputs[:1]), tuple(_outputs(node))))
    results, used = [], {name for step in steps for name in step.inputs}
    for spec, output in zip(signature["output_specs"], described["outputs"], strict=True):
        if "user_output" in spec and "as_tensor" in output:
            results.append(output["as_tensor"]["name"])
    for name, path in stored.items():
        if name in used or name in results:
            graph.add_tensor(name, path, held[path])
    graph.finish(image, steps, results, pure=False)
    meta = described["tensor_values"][image]
    sizes = tuple(size.get("as_int") for size in meta["sizes"])
    names = _output_names(module, len(results))
    return Exported(graph.eval(), image, sizes, DTYPES.get(meta["dtype"]), names or tuple(results))


def _arguments(specs: list[dict[str, Any]], held: Mapping[str, Tensor], *, where: str) -> tuple[str, dict[str, str]]:
    """The argument that is the image, and those that are tensors of the archive, with their names in it."""
    stored, images = dict[str, str](), list[str]()
    for spec in specs:
        kind, content = next(iter(spec.items()))
        argument = content.get("arg", {})
        if kind == "user_input" and "as_tensor" in argument:
            images.append(argument["as_tensor"]["name"])
        elif kind in {"parameter", "buffer", "tensor_constant"}:
            stored[argument["name"]] = path = content[f"{kind}_name"]
            if path not in held:
                raise ModelError(where, expected=f"the tensor {path}", got="an archive without it")
        elif kind != "user_input" or "as_none" not in argument:
            raise ModelError(where, expected="a program of one input, the images", got=f"an input of the kind {kind}")
    if len(images) != 1:
        got = f"{len(images)}: {', '.join(images)}" if images else "none"
        raise ModelError(where, expected="a program of one input, the images", got=got)
    return images[0], stored


def _output_names(module: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The keys of a program that returns a dict or an object with fields."""
    try:
        spec = json.loads(module["module_call_graph"][0]["signature"]["out_spec"])[1]
        keys = json.loads(spec["context"])
        keys = keys[1] if len(keys) == 2 and isinstance(keys[1], list) else keys
    except (LookupError, ValueError, TypeError):
        return ()
    return tuple(map(str, keys)) if isinstance(keys, list) and len(keys) == count else ()


# Arguments. Each is ``{"as_…": value}``; the names in them are filled in when the program runs.


def _names(inputs: list[dict[str, Any]]) -> Iterator[str]:
    """The values that arguments refer to, in their order; each place of one, as :func:`_fill` takes them."""
    for each in inputs:
        kind, value = next(iter(each["arg"].items()))
        for part in value if isinstance(value, list) else [value]:
            inner = next(iter(part.values())) if kind == "as_optional_tensors" else part
            name = inner.get("name", inner.get("as_name")) if isinstance(inner, dict) else None
            if isinstance(name, str) and kind.removesuffix("s") in _REFERENCES:
                yield name


_REFERENCES = {"as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool", "as_optional_tensor"}


def _fill(argument: Mapping[str, Any], values: Iterator[Any], device: torch.device) -> Any:
    kind, value = next(iter(argument.items()))
    if kind.removesuffix("s") in _REFERENCES:
        parts = [_refer(kind, part, values) for part in (value if isinstance(value, list) else [value])]
        return parts if isinstance(value, list) else parts[0]
    if kind in _SCALARS:
        return value
    if kind in {"as_float", "as_floats"}:
        return [float(each) for each in value] if isinstance(value, list) else float(value)
    tables: dict[str, dict[int, Any]] = {
        "as_scalar_type": DTYPES,
        "as_memory_format": _LAYOUTS,
        "as_layout": {7: torch.strided},
    }
    if kind in tables:
        return tables[kind][value]
    return device if kind == "as_device" else None


def _refer(kind: str, part: dict[str, Any], values: Iterator[Any]) -> Any:
    if kind == "as_optional_tensors" and "as_none" in part:
        return None
    constant = next((part[key] for key in ("as_int", "as_float", "as_bool") if key in part), None)
    return next(values) if constant is None else constant


def _outputs(node: Mapping[str, Any]) -> Iterator[str]:
    for output in node["outputs"]:
        kind, value = next(iter(output.items()))
        for part in value if isinstance(value, list) else [value]:
            inner = next(iter(part.values())) if kind == "as_optional_tensors" else part
            yield str(inner.get("name", inner.get("as_name", ""))) if isinstance(inner, dict) else ""


def _function(node: Mapping[str, Any], *, where: str) -> Callable[..., Any]:
    target = node["target"]
    run = _find(target, where=where)
    for each in node["inputs"]:
        kind = next(iter(each["arg"]))
        simple = kind.removesuffix("s") in _REFERENCES or kind in _SCALARS
        if not simple and kind not in {
            *("as_float", "as_floats", "as_scalar_type", "as_memory_format", "as_layout", "as_device", "as_none"),
        }:
            raise ModelError(where, expected="operators on tensors and numbers", got=f"{target} with {kind}")
    positional = not target.startswith("torch.ops.")
    return partial(_call, run, node["inputs"], positional)


def _call(run: Callable[..., Any], inputs: list[dict[str, Any]], positional: bool, *values: Any) -> Any:
    device = next((value.device for value in values if isinstance(value, Tensor)), torch.device("cpu"))
    rest = iter(values)
    arguments = [(each["name"], _fill(each["arg"], rest, device)) for each in inputs]
    result = run(*(value for _, value in arguments)) if positional else run(**dict(arguments))
    return tuple(result) if isinstance(result, (list, tuple)) else result


def _find(target: str, *, where: str) -> Any:
    """The function of that name: an operator of ATen that opens no file, or arithmetic on sizes."""
    library, _, name = target.rpartition(".")
    refused = ModelError(where, expected="operators of ATen (torch.ops.aten)", got=target)
    if library in {"_operator", "operator"} and not name.startswith("_"):
        return getattr(operator, name, None) or _raise(refused)
    if library == "math":
        return getattr(math, name, None) or _raise(refused)
    if library == "torch" and name.startswith("sym_"):
        return getattr(torch, name, None) or _raise(refused)
    parts = target.split(".")
    if parts[:3] != ["torch", "ops", "aten"] or len(parts) != 5:
        raise refused
    run = getattr(getattr(torch.ops.aten, parts[3], None), parts[4], None)
    if run is None or any("file" in argument.name for argument in run._schema.arguments):
        raise refused
    return run


def _raise(error: Exception) -> Any:
    raise error


# Layers


def _layer(
    node: Mapping[str, Any], stored: Mapping[str, str], held: Mapping[str, Tensor]
) -> tuple[str, nn.Module] | None:
    """A layer of torch that does the same, with its weights, and its path; None where there is none."""
    given = {each["name"]: next(iter(each["arg"].items())) for each in node["inputs"]}
    tensors = {name: value["name"] for name, (kind, value) in given.items() if kind == "as_tensor"}
    plain = {name: value for name, (_, value) in given.items() if name not in tensors}
    operation = node["target"].removeprefix("torch.ops.aten.").partition(".")[0]
    if operation == "relu":
        return f"relu_{tensors['self']}", nn.ReLU()
    weights = {name: stored.get(value, "") for name, value in tensors.items() if name != "input"}
    path = weights.get("weight", "").rpartition(".")[0]
    own = bool(path) and all(owner == f"{path}.{name}" for name, owner in weights.items())
    symbolic = any(kind.startswith("as_sym") for kind, _ in given.values())
    if operation not in _LAYERS or not own or symbolic:
        return None
    layer = _LAYERS[operation](held[f"{path}.weight"], weights, plain)
    if layer is None:
        return None
    for name in weights:
        value = held[f"{path}.{name}"]
        setattr(layer, name, value if name.startswith("running") else nn.Parameter(value))
    if operation == "batch_norm":
        layer.num_batches_tracked = held.get(f"{path}.num_batches_tracked", torch.tensor(0))
    return path, layer


def _linear(weight: Tensor, weights: Mapping[str, str], plain: Mapping[str, Any]) -> Any:
    return nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in weights, device="meta")


def _conv2d(weight: Tensor, weights: Mapping[str, str], plain: Mapping[str, Any]) -> Any:
    if isinstance(plain.get("padding", 0), str):
        return None
    groups = plain.get("groups", 1)
    defaults = {"stride": 1, "padding": 0, "dilation": 1}
    options = {name: _pair(plain.get(name, default)) for name, default in defaults.items()}
    kernel: Any = tuple(weight.shape[2:])
    return nn.Conv2d(
        weight.shape[1] * groups, weight.shape[0], kernel, groups=groups, bias="bias" in weights,
        device="meta", **options,
    )  # fmt: skip


def _batch_norm(weight: Tensor, weights: Mapping[str, str], plain: Mapping[str, Any]) -> Any:
    if plain.get("training") is not False or len(weights) != 4:
        return None
    eps, momentum = float(plain.get("eps", 1e-5)), float(plain.get("momentum", 0.1))
    return BatchNorm2d(len(weight), eps=eps, momentum=momentum, device="meta")


_LAYERS = {"conv2d": _conv2d, "linear": _linear, "batch_norm": _batch_norm}


def _pair(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    return tuple(values * 2 if len(values) == 1 else values)
