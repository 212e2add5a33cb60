"""From the graph of an ONNX file to a module of torch, with gradients and with layers where the graph has them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from assay.models.programs.graph import BatchNorm2d, Graph, Step
from assay.models.programs.onnx_operators import OPERATORS, Node, UnsupportedError, window_pads

if TYPE_CHECKING:
    from onnx import ModelProto

OLDEST = 7  # the first operator set in which tensors broadcast as in NumPy
_LAYERS = {"Relu": nn.ReLU, "Sigmoid": nn.Sigmoid, "Tanh": nn.Tanh, "HardSwish": nn.Hardswish, "Mish": nn.Mish}


def convert(model: ModelProto, image: str) -> Graph:
    """The graph as a module whose input is the one called ``image``. Raises :class:`UnsupportedError`."""
    opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 1)
    if opset < OLDEST:
        raise UnsupportedError(f"operator set {opset}")
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    constants = {each.name: _tensor(each) for each in model.graph.initializer}
    if model.graph.sparse_initializer:
        raise UnsupportedError("sparse weights")
    graph, steps, used = Graph(), list[Step](), set[str]()
    weights: dict[tuple[str, bool], nn.Parameter] = {}

    def weight(name: str, *, transposed: bool = False) -> nn.Parameter:
        """A constant as the weight of a layer; layers that share it share the parameter."""
        key = name, transposed
        if key not in weights:
            value = constants[name].T.contiguous() if transposed else constants[name]
            weights[key] = nn.Parameter(value.clone())
        return weights[key]

    for each in model.graph.node:
        node = _read(each, opset)
        if node.kind not in OPERATORS:
            raise UnsupportedError(f"the operator {each.domain + ':' if each.domain else ''}{each.op_type}")
        run = OPERATORS[node.kind]
        if all(name in constants or not name for name in node.inputs):  # its result is known now
            results = run(node, *(constants.get(name) for name in node.inputs))
            results = results if isinstance(results, tuple) else (results,)
            constants.update(zip(node.outputs, results, strict=False))
            continue
        if node.kind == "BatchNormalization" and node.get("training_mode", 0):
            raise UnsupportedError("BatchNormalization in training mode")  # an image would depend on its batch
        layer = _layer(node, constants, weight)
        if layer is None:
            used |= {*node.inputs} & constants.keys()
            steps.append(Step(partial(run, node), node.inputs, node.outputs))
            continue
        first, outputs = node.inputs[0], node.outputs[:1]
        path = graph.add_layer(node.name or f"{node.kind}_{len(steps)}", layer)
        if node.kind == "Conv" and _pads_itself(node):
            padded = f"{node.outputs[0]}, padded"
            kernel = constants[node.inputs[1]].shape[2:]
            steps.append(Step(partial(_pad_for, node, kernel), (first,), (padded,)))
            first = padded
        steps.append(Step(path, (first,), outputs))
    results = tuple(each.name for each in model.graph.output)
    for number, name in enumerate(sorted(used | {name for name in results if name in constants})):
        graph.add_tensor(name, f"constant_{number}", constants[name])
    graph.finish(image, steps, results, pure=True)
    return graph.eval()


def _tensor(value: Any) -> Tensor:
    from onnx import numpy_helper

    try:
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    except TypeError as error:
        raise UnsupportedError(f"a tensor of the type number {value.data_type}") from error


def _read(node: Any, opset: int) -> Node:
    from onnx import AttributeProto, helper

    if node.domain not in {"", "ai.onnx"}:
        raise UnsupportedError(f"the operator {node.domain}:{node.op_type}")
    attributes = {}
    for each in node.attribute:
        if each.type in {AttributeProto.GRAPH, AttributeProto.GRAPHS}:
            raise UnsupportedError(f"the operator {node.op_type}, which has graphs in it")
        value = helper.get_attribute_value(each)
        attributes[each.name] = _tensor(value) if each.type == AttributeProto.TENSOR else value
    return Node(node.op_type, opset, node.name, tuple(node.input), tuple(node.output), attributes)


def _layer(node: Node, constants: Mapping[str, Tensor], weight: Any) -> nn.Module | None:
    """A layer that does the same, where torch has one and its weights are constants; else None."""
    given, inputs = [constants.get(name) for name in node.inputs], [name for name in node.inputs if name]
    if given[0] is not None or any(name not in constants for name in inputs[1:]):
        return None
    layer: Any = None
    if node.kind in _LAYERS:
        layer = _LAYERS[node.kind]()
    elif node.kind == "Conv" and given[1] is not None and given[1].ndim == 4:
        (out, part, *sizes), groups = given[1].shape, node.get("group", 1)
        kernel: Any = tuple(sizes)
        pads = [0, 0] if _pads_itself(node) else (node.get("pads") or [0, 0])[:2]
        layer = nn.Conv2d(
            part * groups, out, kernel, stride=tuple(node.get("strides") or (1, 1)), padding=tuple(pads),
            dilation=tuple(node.get("dilations") or (1, 1)), groups=groups, bias=len(inputs) > 2, device="meta",
        )  # fmt: skip
        layer.weight = weight(inputs[1])
        layer.bias = weight(inputs[2]) if len(inputs) > 2 else None
    elif node.kind == "MatMul" and given[1] is not None and given[1].ndim == 2:
        layer = nn.Linear(given[1].shape[0], given[1].shape[1], bias=False, device="meta")
        layer.weight = weight(inputs[1], transposed=True)
    elif node.kind == "Gemm" and _is_linear(node, given):
        turned = not node.get("transB", 0)
        layer = nn.Linear(1, 1, bias=len(inputs) > 2, device="meta")
        layer.weight = weight(inputs[1], transposed=turned)
        layer.out_features, layer.in_features = layer.weight.shape
        layer.bias = weight(inputs[2]) if len(inputs) > 2 else None
    elif node.kind == "BatchNormalization" and not node.get("training_mode", 0) and given[1] is not None:
        layer = BatchNorm2d(len(given[1]), eps=node.get("epsilon", 1e-5), momentum=1 - node.get("momentum", 0.9))
        layer.weight, layer.bias = weight(inputs[1]), weight(inputs[2])
        layer.running_mean, layer.running_var = (constants[name].clone() for name in inputs[3:5])
    elif node.kind == "MaxPool" and _is_plain_pool(node):
        layer = nn.MaxPool2d(
            tuple(node.get("kernel_shape")), tuple(node.get("strides") or (1, 1)),
            tuple((node.get("pads") or (0, 0))[:2]),
            tuple(node.get("dilations") or (1, 1)), ceil_mode=bool(node.get("ceil_mode", 0)),
        )  # fmt: skip
    return layer  # type: ignore[no-any-return]


def _pads_itself(node: Node) -> bool:
    """Whether an image has to be padded before a layer of torch, which pads both sides alike."""
    pads = list(node.get("pads") or [])
    half = len(pads) // 2
    return node.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID", b""} or pads[:half] != pads[half:]


def _pad_for(node: Node, kernel: tuple[int, ...], image: Tensor) -> Tensor:
    ends = window_pads(node, image, kernel)
    return nn.functional.pad(image, [size for pair in reversed(ends) for size in pair])


def _is_linear(node: Node, given: list[Tensor | None]) -> bool:
    if node.get("alpha", 1.0) != 1 or node.get("beta", 1.0) != 1 or node.get("transA", 0) or given[1] is None:
        return False
    rows = given[1].shape[0 if node.get("transB", 0) else 1]
    return len(given) < 3 or (given[2] is not None and given[2].shape == (rows,))


def _is_plain_pool(node: Node) -> bool:
    kernel, pads = node.get("kernel_shape"), node.get("pads") or [0] * 4
    small = all(pad <= k // 2 for pad, k in zip(pads[:2], kernel, strict=False))
    return len(kernel) == 2 and len(node.outputs) == 1 and small and not _pads_itself(node)
