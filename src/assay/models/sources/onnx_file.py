"""Programs in ``.onnx`` files: converted to torch where the conversion gives the same, else in onnxruntime."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from assay.errors import DependencyError, ModelError, one_line
from assay.models.programs.classifier import ImageInput, OwnRuntime, ProgramClassifier, read_input
from assay.models.programs.onnx_session import ForwardOnly, open_session
from assay.models.programs.plan import (
    TOLERANCE,
    check_file,
    example_images,
    free_batch,
    image_shape,
    plan_program,
    run_once,
    same,
    with_chosen_output,
)
from assay.models.sources.blueprint import Blueprint, ModelRequest

if TYPE_CHECKING:
    from onnx import ModelProto


def plan_onnx(spec: str, request: ModelRequest) -> Blueprint:
    """The program of a file, verified on the images of the request. No code of the file's is run.

    Raises :class:`ModelError` for a file that onnxruntime cannot run on such images, :class:`DependencyError`.
    """
    path = check_file(spec)
    parsed = _read(path)
    session = open_session(path)
    port = session.image
    takes = read_input(port.sizes, port.dtype, where=spec, name=port.name)
    takes = replace(takes, white=find_white(parsed, port.name, takes))
    shape = image_shape(takes, request, where=spec)
    images, called = example_images(shape, request)
    original = ProgramClassifier(ForwardOnly(session, where=spec), takes)
    try:
        original, notes = with_chosen_output(original, session.outputs, images, where=spec)
    except ModelError:
        if takes.channels is not None or takes.channels_last:
            raise
        original = ProgramClassifier(ForwardOnly(session, where=spec), replace(takes, channels_last=True))
        original, notes = with_chosen_output(original, session.outputs, images, where=spec)
    theirs = run_once(original, images, where=spec)
    model, why = _convert(parsed, port.name, original, images, theirs)
    if model is None:
        model = ProgramClassifier(ForwardOnly(session, where=spec, why=why), original.takes, output=original.output)
        notes += (f"{spec} runs forward only, in onnxruntime: {why}; what needs gradients cannot run",)
    else:
        # A function, not the module: a copy of the model shares the session, and does not count it as a part.
        model.original = OwnRuntime(lambda images: original(images), original.takes.batch)  # noqa: PLW0108
        notes += (f"{spec} was converted to torch: {why} of its logits' range from onnxruntime on {called}",)
    return plan_program(spec, request, model, shape=shape, outputs=theirs, texts=session.metadata, notes=notes)


def _read(path: Path) -> ModelProto:
    try:
        import onnx
    except ModuleNotFoundError:
        raise DependencyError("onnx", extra="onnx", purpose=str(path)) from None
    try:
        return onnx.load(path)
    except Exception as error:  # bytes of unknown origin can break a reader anywhere
        raise ModelError(str(path), expected="an ONNX file", got=one_line(error) or "a file of another kind") from None


def _convert(
    parsed: ModelProto, image: str, original: ProgramClassifier, images: Tensor, theirs: Tensor
) -> tuple[ProgramClassifier | None, str]:
    """The program in torch, and how far it is from the original; None and the reason where it is not the same."""
    from assay.models.programs.onnx_graph import convert
    from assay.models.programs.onnx_operators import UnsupportedError

    try:
        converted = ProgramClassifier(convert(parsed, image), original.takes, output=original.output)
        distance = same(run_once(converted, images, where="converted"), theirs)
    except UnsupportedError as error:
        return None, f"{error} is not converted to torch"
    except Exception as error:  # whatever fails, the original still runs
        return None, f"the conversion to torch failed ({type(error).__name__}: {one_line(error)})"
    if not distance <= TOLERANCE:
        far = (
            "is of another shape or not finite"
            if distance == inf
            else f"differs by {distance:.2g} of the logits' range"
        )
        return None, f"what was converted to torch {far}"
    return free_batch(converted, images, theirs), f"{distance:.1g}"


def find_white(parsed: ModelProto, image: str, takes: ImageInput) -> float:
    """The value of a white pixel: 255 where the first operations scale or centre pixels of [0, 255], else 1."""
    from onnx import numpy_helper

    if takes.whole:
        return 255.0
    constants = {each.name: each for each in parsed.graph.initializer}
    for node in parsed.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                constants[node.output[0]] = attribute.t
    scale, shift, name = 1.0, 0.0, image
    for _ in range(8):  # x becomes scale · x + shift
        users = [node for node in parsed.graph.node if name in node.input]
        if len(users) != 1 or not users[0].output:
            break
        node = users[0]
        others = [each for each in node.input if each != name]
        if node.op_type in {"Mul", "Div", "Add", "Sub"} and node.input[0] == name and others and others[0] in constants:
            value = torch.tensor(numpy_helper.to_array(constants[others[0]])).double()
            number = float(value.abs().max() if node.op_type in {"Mul", "Div"} else value.mean())
            match node.op_type:
                case "Mul":
                    scale, shift = scale * number, shift * number
                case "Div":
                    scale, shift = scale / number, shift / number
                case "Add":
                    shift += number
                case "Sub":
                    shift -= number
        elif node.op_type not in {"Cast", "Transpose", "Identity"}:
            break
        name = node.output[0]
    return 255.0 if abs(scale) < 1 / 20 or abs(shift) > 20 * abs(scale) else 1.0
