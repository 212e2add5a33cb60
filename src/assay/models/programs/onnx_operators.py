"""The operators of ONNX in torch, those that image classifiers are made of: tensors and attributes in, tensors out.

Each function takes the :class:`Node` and its inputs; an input that is left out is None. What is not listed, or is asked
for in a way that is not followed here, raises :class:`UnsupportedError`: the program then stays in its own runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class UnsupportedError(Exception):
    """An operator, or a way to use it, that has no counterpart here."""


@dataclass(frozen=True)
class Node:
    """One operator of a graph: its ``kind``, attributes, the operator set, the names of inputs and outputs."""

    kind: str
    opset: int
    name: str = ""
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


Operator = Callable[..., Any]
DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}  # by their numbers in ONNX


def _whole(value: Tensor | Sequence[int] | None) -> list[int]:
    return [] if value is None else [int(v) for v in (value.tolist() if isinstance(value, Tensor) else value)]


def _given(node: Node, name: str, value: Tensor | None) -> list[int] | None:
    """Whole numbers that are an attribute in older operator sets and an input in newer ones."""
    return _whole(value) if value is not None else (list(node.get(name)) if node.get(name) is not None else None)


# Elementwise


def _same(node: Node, x: Tensor, *_: object) -> Tensor:
    return x


def _divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def _modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.pow(a, b).to(a.dtype)


def _clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    least = low if low is not None else node.get("min")
    most = high if high is not None else node.get("max")
    x = x if least is None else torch.clamp(x, min=least)
    return x if most is None else torch.clamp(x, max=most)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=_text(node.get("approximate", "none")))


def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, node.get("alpha", 0.01))


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def _selu(node: Node, x: Tensor) -> Tensor:
    alpha, gamma = node.get("alpha", 1.67326319217681884765625), node.get("gamma", 1.05070102214813232421875)
    return torch.where(x > 0, x, torch.expm1(x.clamp(max=0)).mul(alpha)).mul(gamma)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return x.mul(node.get("alpha", 0.2)).add(node.get("beta", 0.5)).clamp(0, 1)


def _cast(node: Node, x: Tensor, like: Tensor | None = None) -> Tensor:
    dtype = like.dtype if like is not None else DTYPES.get(node.get("to"))
    if dtype is None:
        raise UnsupportedError(f"Cast to the type number {node.get('to')}")
    return x.to(dtype)


def _fold(combine: Callable[[Tensor, Tensor], Tensor], *, mean: bool = False) -> Operator:
    def run(node: Node, first: Tensor, *others: Tensor) -> Tensor:
        result = first
        for other in others:
            result = combine(result, other)
        return result / (1 + len(others)) if mean else result

    return run


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


# Shapes


def _reshape(node: Node, x: Tensor, shape: Tensor | None = None) -> Tensor:
    sizes = _given(node, "shape", shape) or []
    if not node.get("allowzero", 0):
        sizes = [x.shape[place] if size == 0 else size for place, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    axis += x.ndim if axis < 0 else 0
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _given(node, "axes", axes)
    return x.squeeze() if chosen is None else x.squeeze(tuple(chosen))


def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    chosen = _given(node, "axes", axes) or []
    for axis in sorted(axis % (x.ndim + len(chosen)) for axis in chosen):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(tuple(node.get("perm") or reversed(range(x.ndim))))


def _concat(node: Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, node.get("axis", 1))


def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis, chosen = node.get("axis", 0), _given(node, "split", sizes)
    if chosen is None:
        chosen = [-(-x.shape[axis] // len(node.outputs))] * len(node.outputs)
        chosen[-1] = x.shape[axis] - sum(chosen[:-1])
    return torch.split(x, chosen, axis)


def _slice(node: Node, x: Tensor, *places: Tensor | None) -> Tensor:
    given = [*places, None, None, None, None]
    starts, ends = _given(node, "starts", given[0]) or [], _given(node, "ends", given[1]) or []
    axes = _given(node, "axes", given[2])
    axes = list(range(len(starts))) if axes is None else axes
    steps = _whole(given[3]) or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        chosen = range(x.shape[axis])[slice(start, max(end, -x.shape[axis] - 1) if step < 0 else end, step)]
        if step < 0 and end <= -x.shape[axis] - 1:
            chosen = range(x.shape[axis])[slice(start, None, step)]
        if step > 0:
            x = x.narrow(axis, chosen.start, 0) if not chosen else _strided(x, axis, chosen)
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64, device=x.device))
    return x


def _strided(x: Tensor, axis: int, places: range) -> Tensor:
    index: list[slice] = [slice(None)] * x.ndim
    index[axis] = slice(places[0], places[-1] + 1, places.step)
    return x[tuple(index)]


def _gather(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.get("axis", 0) % x.ndim
    places = torch.where(places < 0, places + x.shape[axis], places)
    chosen = x.index_select(axis, places.reshape(-1).to(torch.int64))
    return chosen.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


def _gather_elements(node: Node, x: Tensor, places: Tensor) -> Tensor:
    axis = node.get("axis", 0)
    return x.gather(axis, torch.where(places < 0, places + x.shape[axis], places).to(torch.int64))


def _scatter(node: Node, x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    if _text(node.get("reduction", "none")) != "none":
        raise UnsupportedError("ScatterND with a reduction")
    return x.index_put(places.to(torch.int64).unbind(-1), values)


def _expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = _whole(shape)
    sizes = [1] * (x.ndim - len(sizes)) + sizes
    own = [1] * (len(sizes) - x.ndim) + list(x.shape)
    return x.expand([size if other == 1 else other for size, other in zip(sizes, own, strict=True)])


def _tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(_whole(repeats))


def _shape(node: Node, x: Tensor) -> Tensor:
    return torch.tensor(tuple(x.shape)[node.get("start", 0) : node.get("end")], dtype=torch.int64, device=x.device)


def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value")
    value = torch.zeros(1) if value is None else value
    return torch.full(_whole(shape), value.reshape(-1)[0].item(), dtype=value.dtype, device=shape.device)


def _range(node: Node, start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype, device=start.device)


def _pad(node: Node, x: Tensor, *given: Tensor | None) -> Tensor:
    pads, value, axes = (*given, None, None, None)[:3]
    sizes = _given(node, "pads", pads) or []
    chosen = range(x.ndim) if axes is None else [axis % x.ndim for axis in _whole(axes)]
    ends = {axis: (sizes[place], sizes[place + len(sizes) // 2]) for place, axis in enumerate(chosen)}
    mode = _text(node.get("mode", "constant"))
    fill = float(value) if value is not None else node.get("value", 0.0)
    return _padded(x, [ends.get(axis, (0, 0)) for axis in range(x.ndim)], mode=mode, fill=fill)


def _padded(x: Tensor, ends: Sequence[tuple[int, int]], *, mode: str = "constant", fill: float = 0.0) -> Tensor:
    """Padded before and after each axis."""
    ends = list(ends)
    if mode == "constant":
        return F.pad(x, [size for pair in reversed(ends) for size in pair], value=fill)
    if any(pair != (0, 0) for pair in ends[:-2]) or x.ndim not in {3, 4} or mode not in {"reflect", "edge", "wrap"}:
        raise UnsupportedError(f"Pad in the mode {mode} of these axes")
    flat = [size for pair in reversed(ends[-2:] if x.ndim == 4 else ends[-1:]) for size in pair]
    return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    if _text(node.get("mode", "DCR")) == "CRD":
        return F.pixel_shuffle(x, b)
    return x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    b = node.get("blocksize")
    return x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


# Reductions


def _reduce(run: Callable[..., Tensor]) -> Operator:
    def reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        chosen = _given(node, "axes", axes)
        if not chosen and node.get("noop_with_empty_axes", 0):
            return x
        return run(x, tuple(chosen or range(x.ndim)), bool(node.get("keepdims", 1)))

    return reduce


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(run: Callable[..., Tensor]) -> Operator:
    def find(node: Node, x: Tensor) -> Tensor:
        if node.get("select_last_index", 0):
            raise UnsupportedError(f"{node.kind} of the last place")
        return run(x, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return find


def _topk(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    count = node.get("k") if k is None else int(k)
    values, places = x.topk(count, dim=node.get("axis", -1), largest=bool(node.get("largest", 1)))
    return values, places


def _cumsum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    if node.get("exclusive", 0) or node.get("reverse", 0):
        raise UnsupportedError("CumSum that is exclusive or reversed")
    return x.cumsum(int(axis))


def _softmax(run: Callable[..., Tensor]) -> Operator:
    def normalize(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return run(x, dim=node.get("axis", -1))
        axis = node.get("axis", 1) % max(1, x.ndim)
        return run(x.reshape(math.prod(x.shape[:axis]), -1), dim=1).reshape(x.shape)

    return normalize


# Layers


def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    left, right = a.T if node.get("transA", 0) else a, b.T if node.get("transB", 0) else b
    product = torch.matmul(left, right).mul(node.get("alpha", 1.0))
    return product if c is None else product + c.mul(node.get("beta", 1.0))


def window_pads(node: Node, x: Tensor, kernel: Sequence[int]) -> list[tuple[int, int]]:
    """The padding before and after each axis of an image, of a convolution or pooling."""
    axes = len(kernel)
    strides, dilations = node.get("strides") or [1] * axes, node.get("dilations") or [1] * axes
    auto = _text(node.get("auto_pad", "NOTSET"))
    if auto in {"NOTSET", ""}:
        pads = node.get("pads") or [0] * 2 * axes
        return [(pads[axis], pads[axis + axes]) for axis in range(axes)]
    if auto == "VALID":
        return [(0, 0)] * axes
    ends = []
    for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        less, more = total // 2, total - total // 2
        ends.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return ends


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    ends = window_pads(node, x, weight.shape[2:])
    padding: list[int] | int = [before for before, _ in ends]
    if any(before != after for before, after in ends):
        x, padding = _padded(x, [(0, 0), (0, 0), *ends]), 0
    run: Any = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}.get(x.ndim)
    if run is None:
        raise UnsupportedError(f"Conv of {x.ndim} axes")
    strides, dilations = node.get("strides") or 1, node.get("dilations") or 1
    result: Tensor = run(x, weight, bias, strides, padding, dilations, node.get("group", 1))
    return result


def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    ends = window_pads(node, x, weight.shape[2:])
    if any(before != after for before, after in ends) or node.get("output_shape") or node.get("auto_pad"):
        raise UnsupportedError("ConvTranspose with this padding")
    run: Any = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.ndim]
    result: Tensor = run(
        x, weight, bias, node.get("strides") or 1, [before for before, _ in ends], node.get("output_padding") or 0,
        node.get("group", 1), node.get("dilations") or 1,
    )  # fmt: skip
    return result


def max_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    ends = window_pads(node, x, kernel)
    run: Any = {3: F.max_pool1d, 4: F.max_pool2d, 5: F.max_pool3d}[x.ndim]
    padding: list[int] | int = [before for before, _ in ends]
    if any(before != after or before > k // 2 for (before, after), k in zip(ends, kernel, strict=True)):
        x, padding = _padded(x, [(0, 0), (0, 0), *ends], fill=float("-inf")), 0
    result: Tensor = run(
        x, kernel, node.get("strides") or [1] * len(kernel), padding, node.get("dilations") or 1,
        ceil_mode=bool(node.get("ceil_mode", 0)),
    )  # fmt: skip
    return result


def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape")
    ends = window_pads(node, x, kernel)
    if node.get("dilations") and set(node.get("dilations")) != {1}:
        raise UnsupportedError("AveragePool with dilation")
    run: Any = {3: F.avg_pool1d, 4: F.avg_pool2d, 5: F.avg_pool3d}[x.ndim]
    options = {"stride": node.get("strides") or [1] * len(kernel), "ceil_mode": bool(node.get("ceil_mode", 0))}
    counted = bool(node.get("count_include_pad", 0))
    if all(before == after and before <= k // 2 for (before, after), k in zip(ends, kernel, strict=True)):
        padding = [before for before, _ in ends]
        result: Tensor = run(x, kernel, padding=padding, count_include_pad=counted, **options)
        return result
    inside = _padded(torch.ones_like(x[:1, :1]), [(0, 0), (0, 0), *ends])
    mean: Tensor = run(_padded(x, [(0, 0), (0, 0), *ends]), kernel, **options)
    return mean if counted else mean / run(inside, kernel, **options)


def _global_pool(run: Callable[..., Tensor]) -> Operator:
    return lambda node, x: run(x, dim=tuple(range(2, x.ndim)), keepdim=True)


def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    if node.get("training_mode", 0):  # of weights alone, which some networks standardise so
        return F.batch_norm(x, None, None, scale, bias, True, 0.0, node.get("epsilon", 1e-5))
    return F.batch_norm(x, mean, var, scale, bias, False, 0.0, node.get("epsilon", 1e-5))


def _instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return F.instance_norm(x, None, None, scale, bias, eps=node.get("epsilon", 1e-5))


def _layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    axis = node.get("axis", -1) % x.ndim
    return F.layer_norm(x, x.shape[axis:], scale.expand(x.shape[axis:]), bias, node.get("epsilon", 1e-5))


def _group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.get("num_groups")
    if len(scale) != x.shape[1]:
        scale, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def _rms_norm(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + node.get("epsilon", 1e-5)) * scale


def _local_response_norm(node: Node, x: Tensor) -> Tensor:
    alpha, beta = node.get("alpha", 1e-4), node.get("beta", 0.75)
    return F.local_response_norm(x, node.get("size"), alpha, beta, node.get("bias", 1.0))


def _lp_norm(node: Node, x: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(x, node.get("p", 2), dim=node.get("axis", -1), keepdim=True)
    return x / size


def _resize(node: Node, x: Tensor, *given: Tensor | None) -> Tensor:
    if node.kind == "Upsample" or node.opset < 11:
        scales, sizes, place = (*given, None)[0], None, "asymmetric"
    else:
        _, scales, sizes = (*given, None, None, None)[:3]
        place = _text(node.get("coordinate_transformation_mode", "half_pixel"))
    mode = {"nearest": "nearest", "linear": "bilinear", "cubic": "bicubic"}.get(_text(node.get("mode", "nearest")))
    if mode is None or x.ndim != 4 or node.get("antialias", 0) or node.get("axes"):
        raise UnsupportedError(f"Resize of {x.ndim} axes in this mode")
    if sizes is not None and sizes.numel():
        target = _whole(sizes)[2:]
    elif scales is not None and scales.numel():
        target = [math.floor(n * s) for n, s in zip(x.shape[2:], scales.tolist()[2:], strict=True)]
    else:
        target = [math.floor(n * s) for n, s in zip(x.shape[2:], (node.get("scales") or [])[2:], strict=True)]
    if mode == "nearest":
        return F.interpolate(x, target, mode="nearest" if place == "asymmetric" else "nearest-exact")
    if place == "asymmetric":
        raise UnsupportedError("Resize with asymmetric coordinates")
    return F.interpolate(x, target, mode=mode, align_corners=place == "align_corners")


def _attention(node: Node, q: Tensor, k: Tensor, v: Tensor, *others: Tensor | None) -> Tensor:
    if q.ndim != 4 or any(other is not None for other in others[1:]) or node.get("softcap", 0.0):
        raise UnsupportedError("Attention in this form")
    mask = others[0] if others else None
    return F.scaled_dot_product_attention(
        q, k, v, mask, is_causal=bool(node.get("is_causal", 0)), scale=node.get("scale"), enable_gqa=len(q) != len(k)
    )


def _trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


def _constant(node: Node) -> Tensor:
    for name, dtype in (("value_float", torch.float32), ("value_floats", torch.float32), ("value_int", torch.int64),
                        ("value_ints", torch.int64)):  # fmt: skip
        if node.get(name) is not None:
            return torch.tensor(node.get(name), dtype=dtype)
    value = node.get("value")
    if value is None:
        raise UnsupportedError("Constant that is no tensor")
    return value  # type: ignore[no-any-return]


def _plain(run: Any) -> Operator:
    """A function of torch that takes the inputs alone."""
    return lambda node, *inputs: run(*inputs)


OPERATORS: dict[str, Operator] = {
    **{
        kind: _plain(run)
        for kind, run in {
            "Abs": torch.abs, "Neg": torch.neg, "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log,
            "Erf": torch.erf, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Sin": torch.sin, "Cos": torch.cos,
            "Tan": torch.tan, "Atan": torch.atan, "Floor": torch.floor, "Ceil": torch.ceil, "Round": torch.round,
            "Sign": torch.sign, "Reciprocal": torch.reciprocal, "Not": torch.logical_not, "IsNaN": torch.isnan,
            "IsInf": torch.isinf, "Relu": torch.relu, "Softplus": F.softplus, "Softsign": F.softsign,
            "Mish": F.mish, "HardSwish": F.hardswish, "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul,
            "MatMul": torch.matmul, "Where": torch.where, "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt,
            "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le, "And": torch.logical_and, "Or": torch.logical_or,
            "Xor": torch.logical_xor,
        }.items()
    },
    **{
        f"Reduce{name}": _reduce(run)
        for name, run in {
            "Mean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
            "Sum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
            "Max": lambda x, axes, keep: x.amax(axes, keepdim=keep),
            "Min": lambda x, axes, keep: x.amin(axes, keepdim=keep),
            "L1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
            "L2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
            "SumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
            "LogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
            "Prod": _product,
        }.items()
    },
    "Identity": _same, "Dropout": _same, "Div": _divide, "Mod": _modulo, "Pow": _power, "Clip": _clip, "Gelu": _gelu,
    "LeakyRelu": _leaky_relu, "PRelu": _prelu, "Selu": _selu, "HardSigmoid": _hard_sigmoid, "Cast": _cast,
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Celu": lambda node, x: F.celu(x, node.get("alpha", 1.0)),
    "Swish": lambda node, x: x * torch.sigmoid(node.get("alpha", 1.0) * x),
    "ThresholdedRelu": lambda node, x: torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x)),
    "CastLike": _cast, "Sum": _fold(torch.add), "Max": _fold(torch.maximum), "Min": _fold(torch.minimum),
    "Mean": _fold(torch.add, mean=True), "Reshape": _reshape, "Flatten": _flatten, "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze, "Transpose": _transpose, "Concat": _concat, "Split": _split, "Slice": _slice,
    "Gather": _gather, "GatherElements": _gather_elements, "ScatterND": _scatter, "Expand": _expand,
    "Tile": _tile, "Shape": _shape,
    "Size": lambda node, x: torch.tensor(x.numel(), device=x.device), "ConstantOfShape": _constant_of_shape,
    "Range": _range, "Pad": _pad, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth,
    "ArgMax": _arg(torch.argmax), "ArgMin": _arg(torch.argmin), "TopK": _topk, "CumSum": _cumsum,
    "Einsum": lambda node, *parts: torch.einsum(_text(node.get("equation")), *parts),
    "Softmax": _softmax(torch.softmax), "LogSoftmax": _softmax(torch.log_softmax), "Gemm": _gemm, "Conv": conv,
    "ConvTranspose": _conv_transpose, "MaxPool": max_pool, "AveragePool": _average_pool,
    "GlobalAveragePool": _global_pool(torch.mean), "GlobalMaxPool": _global_pool(torch.amax),
    "BatchNormalization": batch_norm, "InstanceNormalization": _instance_norm, "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm, "RMSNormalization": _rms_norm, "LRN": _local_response_norm,
    "LpNormalization": _lp_norm, "Resize": _resize, "Upsample": _resize, "Attention": _attention, "Trilu": _trilu,
    "Constant": _constant,
}  # fmt: skip
