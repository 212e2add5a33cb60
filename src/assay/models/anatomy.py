"""The layers, shapes, parameters and operations of any ``nn.Module``, measured on one forward pass."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from assay.arguments import checked
from assay.errors import ModelError
from assay.models.blocks import find_blocks
from assay.models.forward_pass import ForwardPass, Operation, record_forward
from assay.models.operations import ATTENTION
from assay.records.anatomy import Anatomy, LayerAnatomy

# Layers that are one row whatever they contain: parametrisations, projections used by their weight, a program that runs
# outside of Python.
SINGLE_ROW = (
    *(nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear, nn.Embedding),
    *(nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm),
    *(nn.MultiheadAttention, nn.RNNBase, torch.jit.ScriptModule),
)


@checked
def measure_anatomy(model: nn.Module, *, image_shape: tuple[int, int, int], name: str = "") -> Anatomy:
    """Layers, output shapes, parameters, floating-point operations and residual blocks of a model.

    One forward pass in evaluation mode on random images (2, *image_shape) in [0, 1], on the model's device and in its
    dtype. Every tensor operation is counted where it runs, so a functional ``relu`` or an attention written out by
    hand counts too: a module that computes something itself gets a row beside its layers.

    Args:
        model: any module that takes images (N, C, H, W); left exactly as it was run.
        image_shape: (C, H, W).
        name: what to call the model; default: its class.

    Returns:
        The record: ``layers`` in the order in which they run, ``parameters``, ``flops`` of one image (a multiply and an
        add count one each; the convention is in :mod:`assay.models.operations`), ``multiply_adds`` of its layers and
        products alone, as papers count them, ``depth`` in weight layers, and ``blocks``.

    Raises:
        ModelError: the model cannot take such images, or torch does not run it.

    Example:
        >>> import assay
        >>> model = assay.load_model("resnet20", classes=10, image_shape=(3, 32, 32))
        >>> anatomy = assay.measure_anatomy(model, image_shape=(3, 32, 32))
        >>> anatomy.depth, anatomy.parameters, len(anatomy.blocks)
        (20, 269722, 9)
    """
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper hides the modules
    run = record_forward(model, image_shape=image_shape)
    if run.output < 0 and next(model.parameters(), None) is None:  # zeros would be wrong numbers
        got = "logits that no operation of torch makes from them, as of a program that runs elsewhere"
        raise ModelError("model(images)", expected="a model that torch runs on the images", got=got)
    layers = _rows(model, run)
    return Anatomy(
        model=name or type(model).__name__,
        input_shape=image_shape,
        classes=run.output_shape[-1] if len(run.output_shape) > 1 else 0,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trainable_parameters=sum(each.numel() for each in model.parameters() if each.requires_grad),
        buffers=sum(buffer.numel() for buffer in model.buffers()),
        flops=sum(layer.flops for layer in layers),
        multiply_adds=sum(operation.multiply_adds for operation in run.operations) // run.images,
        depth=_depth(run),
        layers=layers,
        blocks=find_blocks(run, model, image_shape=(run.images, *image_shape)),
        normalizes_input=run.changed,
    )


def _depth(run: ForwardPass) -> int:
    """Weight layers on the longest path to the output; to anywhere, where the output's origin is unknown."""
    longest = [0]  # of the images; then of each operation
    for operation in run.operations:
        longest.append(max(longest[source + 1] for source in operation.inputs) + operation.layers)
    return max(longest) if run.output < 0 else longest[run.output + 1]


def _rows(model: nn.Module, run: ForwardPass) -> tuple[LayerAnatomy, ...]:
    """A row for each layer that ran, each module that computes something itself, and each whose parameters are unused.

    An operation belongs to the innermost module that was running, a parameter to the module that first used it (its
    owner, if none did); or to the layer around that which is a single row.
    """
    modules = dict(model.named_modules())
    row_of = {name: _row_of(name, modules) for name in modules}
    own: dict[str, list[Operation]] = {}
    for operation in run.operations:
        own.setdefault(row_of[operation.module], []).append(operation)
    parameters: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        row = row_of[run.users.get(id(parameter), name.rpartition(".")[0])]
        parameters[row] = parameters.get(row, 0) + parameter.numel()
    places: dict[str, tuple[int, int]] = {}
    for order, (name, module) in enumerate(modules.items()):
        computes = [operation.index for operation in own.get(name, []) if operation.flops]
        is_layer = name in parameters or isinstance(module, SINGLE_ROW) or not list(module.children())
        if row_of[name] == name and (is_layer or computes):
            start = run.first_seen.get(name, len(run.operations)) if is_layer else computes[0]
            places[name] = (start, order)
    return tuple(
        LayerAnatomy(
            name=name,
            type=type(modules[name]).__name__,
            output_shape=_of_one_image(run.outputs.get(name, ()), run.images),
            parameters=parameters.get(name, 0),
            flops=sum(operation.flops for operation in own.get(name, [])) // run.images,
            calls=run.calls.get(name, 0),
            detail=_detail(modules[name], own.get(name, [])) if name in run.calls else "never runs",
        )
        for name in sorted(places, key=lambda name: places[name])
        if name in run.calls or name in parameters
    )


def _row_of(name: str, modules: Mapping[str, nn.Module]) -> str:
    """The outermost layer around ``name`` that is a single row, else ``name`` itself."""
    parts = name.split(".")
    outer = ("", *(".".join(parts[:i]) for i in range(1, len(parts) + 1)))
    return next((each for each in outer if isinstance(modules.get(each), SINGLE_ROW)), name)


def _of_one_image(shape: tuple[int, ...], images: int) -> tuple[int, ...]:
    """Without the batch; where the batch is folded into the first size, that size for one image."""
    if not shape or shape[0] % images:
        return shape
    return shape[1:] if shape[0] == images else (shape[0] // images, *shape[1:])


def _detail(module: nn.Module, operations: list[Operation]) -> str:
    """Kernel and stride of a layer; of a module that is not torch's own, the operations it runs itself."""
    of_torch = type(module).__module__.partition(".")[0] == "torch"
    match module:
        case nn.modules.conv._ConvNd():
            geometry = {"stride": module.stride, "dilation": module.dilation, "groups": (module.groups,)}
            facts = [f"{name} {_short(sizes)}" for name, sizes in geometry.items() if max(sizes) > 1]
            detail = ", ".join(["×".join(map(str, module.kernel_size)), *facts])
        case nn.Linear():
            detail = f"{module.in_features} → {module.out_features}"
        case nn.modules.dropout._DropoutNd():
            detail = f"p = {module.p:g}"
        case nn.MaxPool2d() | nn.AvgPool2d():
            detail = f"{_short(module.kernel_size)}, stride {_short(module.stride)}"
        case nn.MultiheadAttention():
            detail = f"{module.num_heads} heads"
        case _ if isinstance(module, SINGLE_ROW) or (of_torch and not list(module.children())):
            detail = ""
        case _:
            names = [each.name for each in operations if each.flops]
            detail = ", ".join(dict.fromkeys("attention" if name in ATTENTION else name.strip("_") for name in names))
    return detail


def _short(sizes: int | tuple[int, ...]) -> str:
    """``2`` for (2, 2), ``2×1`` for (2, 1)."""
    each = (sizes,) if isinstance(sizes, int) else sizes
    return str(each[0]) if len(set(each)) == 1 else "×".join(map(str, each))
