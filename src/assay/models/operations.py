"""What one tensor operation is, and how many floating-point operations it takes.

The convention. A multiply and an add count one each, so a multiply–add counts two.

=====================================  ==================================================================
convolution (any groups, dilation)     2 · outputs · (c_in / groups) · kernel size; transposed: 2 · inputs ·
                                       (c_out / groups) · kernel size
linear layer, matrix product           2 · rows · inner size · columns
attention (fused)                      2 · scores · (size of a key + size of a value), and 5 a score for softmax
recurrent layer (fused)                2 · steps · batch · weights of both matrices
batch norm with running statistics     2 an element: scale and shift
norms that take their own statistics   5 an element, and 2 for scale and shift where there are any
pooling                                1 an element of each window
softmax                                5 an element
elementwise (ReLU, exp, a sum, …)      1 an element of the result
reduction (mean, sum, …)               1 an element of the input
views, copies, padding, joining        0
=====================================  ==================================================================

The bias of a convolution or of a linear layer is where its sum begins, and costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor
from torch._ops import OpOverload

Kind = Literal[
    "weight", "product", "norm", "activation", "sum", "arithmetic", "reduce", "pad", "join", "split", "resample", "move"
]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONVOLUTIONS = _names("convolution _convolution cudnn_convolution mkldnn_convolution")
MATRIX_PRODUCTS = _names("mm addmm bmm baddbmm mv addmv dot vdot")
RECURRENT = _names("mkldnn_rnn_layer _cudnn_rnn miopen_rnn")
LAYERS = CONVOLUTIONS | MATRIX_PRODUCTS | RECURRENT | {"_trilinear"}
ATTENTION = _names("""
    _scaled_dot_product_attention_math _scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu
    _scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention
    _scaled_dot_product_fused_attention_overrideable
""")
BATCH_NORMS = _names("""
    native_batch_norm cudnn_batch_norm miopen_batch_norm _native_batch_norm_legit
    _native_batch_norm_legit_no_training _batch_norm_no_update _batch_norm_with_update
""")
OWN_STATISTICS = _names("native_layer_norm native_group_norm _fused_rms_norm")
SOFTMAXES = _names("_softmax _log_softmax")
ACTIVATIONS = _names("""
    relu threshold hardtanh leaky_relu _prelu_kernel rrelu_with_noise elu celu gelu silu mish softplus sigmoid
    log_sigmoid_forward tanh hardswish hardsigmoid hardshrink softshrink glu clamp clamp_min
""")
WINDOWS = _names("avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices")
REDUCTIONS = _names("""
    mean sum amax amin max min var std var_mean std_mean prod norm linalg_vector_norm logsumexp cumsum argmax
    argmin _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d
""")
SUMS = _names("add sub rsub")
FREE = _names("clone copy _to_copy fill zero detach alias lift_fresh")
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        **dict.fromkeys(ATTENTION, "product"),
        **dict.fromkeys(BATCH_NORMS | OWN_STATISTICS, "norm"),
        **dict.fromkeys(ACTIVATIONS, "activation"),
        **dict.fromkeys(WINDOWS | REDUCTIONS | SOFTMAXES, "reduce"),
        **dict.fromkeys(FREE, "move"),
        "constant_pad_nd": "pad",
        **dict.fromkeys(("split", "unsafe_split", "split_with_sizes", "unsafe_split_with_sizes", "unbind"), "split"),
        "stack": "join",
        "rsqrt": "norm",  # what a norm that is written out by hand cannot do without
    }
)


def base_name(operation: OpOverload) -> str:
    """``aten.add_.Tensor`` to ``add``: without library, overload and the mark of working in place."""
    name = str(operation.overloadpacket.__name__)
    return name if name.startswith("__") else name.rstrip("_")


def classify(operation: OpOverload, *, data: int, constants: int) -> Kind:
    """What an operation does, given how many of its tensors depend on the images and how many do not.

    A product with something that does not depend on the images is a ``weight`` layer; an addition of two things that do
    is a ``sum``; joining what does with what does not (zeros) is a ``pad``.
    """
    name = base_name(operation)
    if name in LAYERS:
        return "weight" if constants and data == 1 else "product"
    if name in SUMS and data == 2:
        return "sum"
    if name == "cat":
        return "pad" if constants and data == 1 else "join"
    if name.startswith(("upsample", "grid_sampler")):
        return "resample"
    return KINDS.get(name, "arithmetic" if torch.Tag.pointwise in operation.tags else "move")


def count_flops(operation: OpOverload, arguments: Sequence[Any], out: Tensor) -> int:
    """Floating-point operations of one call, by the convention above; 0 for an operation that it does not list."""
    name = base_name(operation)
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if not tensors or name in FREE:
        return 0
    if name in LAYERS or name in ATTENTION:
        softmax = 5 * _scores(*tensors[:2]) if name in ATTENTION else 0
        return 2 * count_multiply_adds(operation, arguments, out) + softmax
    return _count_elementwise(operation, arguments, tensors, out)


def count_multiply_adds(operation: OpOverload, arguments: Sequence[Any], out: Tensor) -> int:
    """Multiply–adds of one call of a convolution, linear layer, matrix product, attention or recurrence; else 0.

    This is what papers state as multiply-adds, MACs or, loosely, FLOPs of a network.
    """
    name = base_name(operation)
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    if not tensors or name not in LAYERS | ATTENTION:
        return 0
    if name in CONVOLUTIONS:
        transposed = len(arguments) > 6 and arguments[6] is True
        return (tensors[0] if transposed else out).numel() * tensors[1][0].numel()
    if name in MATRIX_PRODUCTS:
        return out.numel() * tensors[-2].shape[-1]
    if name in RECURRENT:
        weights = [leaf for item in arguments[1:5] for leaf in (item if isinstance(item, list | tuple) else [item])]
        used = sum(leaf.numel() for leaf in weights if isinstance(leaf, Tensor) and leaf.ndim == 2)
        return math.prod(tensors[0].shape[:-1]) * used
    if name == "_trilinear":  # x W y: first W y, then x times that
        return out.numel() * (tensors[1][0].numel() + tensors[1].shape[1])
    query, key, value = tensors[:3]
    return _scores(query, key) * (query.shape[-1] + value.shape[-1])


def _scores(query: Tensor, key: Tensor) -> int:
    return math.prod(query.shape[:-1]) * key.shape[-2]


def _count_elementwise(operation: OpOverload, arguments: Sequence[Any], tensors: Sequence[Tensor], out: Tensor) -> int:
    name = base_name(operation)
    running_statistics = name in BATCH_NORMS and not (len(arguments) > 5 and arguments[5] is True)
    if name in BATCH_NORMS | OWN_STATISTICS:
        each = 2 if running_statistics else 7 if len(tensors) > 1 else 5
    elif name in SOFTMAXES:
        each = 5
    elif name in WINDOWS:
        each = math.prod(arguments[1])
    elif name in REDUCTIONS:
        return tensors[0].numel()
    else:
        each = int(name in ACTIVATIONS or torch.Tag.pointwise in operation.tags)
    return out.numel() * each
