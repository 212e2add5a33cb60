"""Each operator of ONNX gives in torch what it gives in onnxruntime: one small graph an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from assay.models.programs.onnx_graph import convert
from assay.models.programs.onnx_operators import OPERATORS, UnsupportedError

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(2, 4, 8, 8)).astype(np.float32)


def draw(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def graph_of(kind: str, attributes: dict[str, Any], others: list[Any], *, opset: int, outputs: int = 1) -> Any:
    """``kind`` on the image and other inputs that are constants (None: left out; "image": the image again)."""
    names = ["image"]
    initializers = []
    for number, value in enumerate(others):
        if value is None or isinstance(value, str):
            names.append(value or "")
            continue
        names.append(f"c{number}")
        initializers.append(numpy_helper.from_array(value, f"c{number}"))
    results = [f"y{number}" for number in range(outputs)]
    node = helper.make_node(kind, names, results, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 4, 8, 8])],
        [onnx.ValueInfoProto(name=name) for name in results],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run_original(model: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"image": IMAGE})


W, B = draw(6, 4, 3, 3), draw(6)
UNARY = (
    *(
        "Abs",
        "Neg",
        "Exp",
        "Erf",
        "Sigmoid",
        "Tanh",
        "Sin",
        "Cos",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Relu",
        "Softplus",
    ),
    *("Softsign", "Reciprocal", "HardSwish", "Identity", "GlobalAveragePool", "GlobalMaxPool", "Elu", "Celu"),
    "Selu",
    *("LeakyRelu", "ThresholdedRelu", "HardSigmoid", "Softmax", "LogSoftmax", "Flatten", "Transpose", "Shape", "Size"),
    *("ArgMax", "ArgMin", "LpNormalization", "Mish", "IsNaN"),
)
CASES: list[tuple[str, dict[str, Any], list[Any], int]] = [
    *((kind, {}, [], 18) for kind in UNARY),
    *((kind, {}, [draw(4, 1, 1)], 17) for kind in ("Add", "Sub", "Mul", "Div", "PRelu", "Max", "Min", "Mean", "Sum")),
    *((kind, {}, [draw(8)], 17) for kind in ("Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual")),
    *(
        (f"Reduce{kind}", {"axes": [1, -1], "keepdims": keep}, [], 11)
        for kind in ("Mean", "Sum", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod")
        for keep in (0, 1)
    ),
    ("ReduceMean", {}, [whole(2, 3)], 18),
    ("ReduceSum", {"noop_with_empty_axes": 1}, [], 18),
    ("Softmax", {"axis": 2}, [], 11),
    ("Softmax", {"axis": 1}, [], 13),
    ("LogSoftmax", {"axis": 1}, [], 11),
    ("Gelu", {"approximate": "tanh"}, [], 20),
    ("Gelu", {}, [], 20),
    ("Clip", {"min": 0.0, "max": 0.5}, [], 9),
    ("Clip", {}, [None, np.float32(0.2)], 13),
    ("Pow", {}, [np.float32(2)], 15),
    ("Mod", {"fmod": 1}, [np.float32(0.3)], 13),
    ("Cast", {"to": TensorProto.INT32}, [], 13),
    ("Reshape", {}, [whole(0, -1)], 13),
    ("Reshape", {}, [whole(-1, 4, 16, 4)], 20),
    ("Flatten", {"axis": -1}, [], 13),
    ("Squeeze", {}, [], 11),
    ("Unsqueeze", {"axes": [0, 3]}, [], 11),
    ("Unsqueeze", {}, [whole(-1, 0)], 13),
    ("Transpose", {"perm": [0, 2, 3, 1]}, [], 13),
    ("Concat", {"axis": -1}, ["image", "image"], 13),
    ("Slice", {"starts": [1, -3], "ends": [3, 1000], "axes": [1, 3]}, [], 9),
    ("Slice", {}, [whole(-1, 7), whole(-1000, 0), whole(2, 3), whole(-1, -2)], 13),
    ("Slice", {}, [whole(0, 1), whole(8, 7), whole(2, 3), whole(3, 2)], 13),
    ("Gather", {"axis": 1}, [np.array([[0, -1], [2, 2]], dtype=np.int64)], 13),
    ("Gather", {"axis": -1}, [np.array(-2, dtype=np.int64)], 13),
    ("GatherElements", {"axis": 3}, [np.zeros((2, 4, 8, 3), dtype=np.int64) - 1], 13),
    ("ScatterND", {}, [np.array([[0, 1], [1, -1]], dtype=np.int64), draw(2, 8, 8)], 13),
    ("Expand", {}, [whole(3, 1, 4, 1, 8)], 13),
    ("Tile", {}, [whole(1, 2, 1, 3)], 13),
    ("Shape", {"start": 1, "end": -1}, [], 15),
    ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 0.5}, [], 9),
    ("Pad", {}, [whole(0, 1, 1, 2, 0, 0, 3, 0), np.float32(0.25)], 13),
    ("Pad", {"mode": "reflect"}, [whole(0, 0, 1, 2, 0, 0, 3, 1)], 13),
    ("Pad", {"mode": "edge"}, [whole(0, 0, 1, 2, 0, 0, 3, 1)], 13),
    ("Pad", {}, [whole(1, 2), None, whole(-1)], 18),
    ("DepthToSpace", {"blocksize": 2}, [], 13),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [], 13),
    ("SpaceToDepth", {"blocksize": 2}, [], 13),
    ("CumSum", {}, [np.array(2, dtype=np.int64)], 14),
    ("Einsum", {"equation": "nchw,c->nhw"}, [draw(4)], 13),
    ("Trilu", {"upper": 0}, [np.array(1, dtype=np.int64)], 14),
    ("Conv", {}, [W, B], 11),
    ("Conv", {"pads": [1, 0, 2, 1], "strides": [2, 1]}, [W], 11),
    ("Conv", {"auto_pad": "SAME_UPPER", "strides": [3, 2]}, [W, B], 11),
    ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 1]}, [W, B], 11),
    ("Conv", {"auto_pad": "VALID"}, [W, B], 11),
    ("Conv", {"group": 2, "pads": [1, 1, 1, 1]}, [draw(6, 2, 3, 3), B], 11),
    ("ConvTranspose", {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, [draw(4, 3, 3, 3)], 11),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, [], 12),
    ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, [], 12),
    ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}, [], 12),
    ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER", "strides": [3, 3]}, [], 12),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [], 11),
    ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, [], 11),
    ("AveragePool", {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1], "strides": [2, 2]}, [], 11),
    ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, [], 11),
    ("BatchNormalization", {"epsilon": 0.01}, [draw(4), draw(4), draw(4), np.abs(draw(4))], 15),
    ("InstanceNormalization", {"epsilon": 0.01}, [draw(4), draw(4)], 6 + 8),
    ("LayerNormalization", {"axis": -2}, [draw(8, 8), draw(8, 8)], 17),
    ("LayerNormalization", {}, [draw(8)], 17),
    ("GroupNormalization", {"num_groups": 2}, [draw(4), draw(4)], 21),
    ("LRN", {"size": 3, "alpha": 0.1}, [], 13),
    ("MatMul", {}, [draw(8, 5)], 13),
    ("MatMul", {}, ["image"], 13),
    ("Resize", {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
     [None, np.array([1, 1, 2, 2], dtype=np.float32)], 13),
    ("Resize", {"mode": "linear"}, [None, None, whole(2, 4, 12, 5)], 13),
    ("Resize", {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
     [None, None, whole(2, 4, 12, 5)], 13),
    ("Resize", {"mode": "cubic", "cubic_coeff_a": -0.75}, [None, None, whole(2, 4, 12, 5)], 13),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "attributes", "others", "opset"), CASES, ids=[f"{number}-{case[0]}" for number, case in enumerate(CASES)]
)
def test_an_operator_gives_what_onnxruntime_gives(
    kind: str, attributes: dict[str, Any], others: list[Any], opset: int
) -> None:
    model = graph_of(kind, attributes, others, opset=opset)
    (expected,) = run_original(model)
    (result,) = convert(model, "image")(torch.tensor(IMAGE))
    assert result.numpy(force=True).dtype == expected.dtype
    np.testing.assert_allclose(result.numpy(force=True), expected, rtol=1e-5, atol=2e-5)


def test_several_outputs_are_told_apart() -> None:
    model = graph_of("Split", {"axis": 1}, [whole(1, 3)], opset=13, outputs=2)
    results = convert(model, "image")(torch.tensor(IMAGE))
    for result, expected in zip(results, run_original(model), strict=True):
        assert np.array_equal(result.numpy(), expected)
    values, places = convert(graph_of("TopK", {}, [whole(2)], opset=11, outputs=2), "image")(torch.tensor(IMAGE))
    assert torch.equal(values, torch.tensor(IMAGE).gather(-1, places))


@pytest.mark.parametrize(
    ("kind", "attributes", "others", "opset"),
    [
        ("Add", {}, [draw(8)], 6),
        ("BatchNormalization", {"training_mode": 1}, [draw(4)] * 3 + [np.abs(draw(4))], 15),
        ("NonZero", {}, [], 13),
        ("ArgMax", {"select_last_index": 1}, [], 13),
        ("CumSum", {"reverse": 1}, [np.array(1, dtype=np.int64)], 14),
    ],
)
def test_what_is_not_followed_is_unsupported(
    kind: str, attributes: dict[str, Any], others: list[Any], opset: int
) -> None:
    with pytest.raises(UnsupportedError):
        convert(graph_of(kind, attributes, others, opset=opset), "image")(torch.tensor(IMAGE))


def test_most_operators_of_the_table_are_tried_here() -> None:
    assert len(OPERATORS.keys() - {case[0] for case in CASES}) < 25
