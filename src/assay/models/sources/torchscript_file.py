"""TorchScript programs, written by ``torch.jit.save``: told from checkpoints by what is in the file."""

from __future__ import annotations

import warnings
from zipfile import ZipFile

import torch

from assay.errors import ModelError, one_line
from assay.models.programs.classifier import ImageInput, ProgramClassifier
from assay.models.programs.plan import (
    check_file,
    example_images,
    image_shape,
    plan_program,
    run_once,
    with_chosen_output,
)
from assay.models.sources.blueprint import Blueprint, ModelRequest
from assay.models.sources.program_files import archived


def plan_torchscript(spec: str, request: ModelRequest) -> Blueprint:
    """The program's ``forward``, in evaluation mode. Raises :class:`ModelError`."""
    path = check_file(spec)
    names = archived(spec)
    if not any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(spec, expected="an archive written by torch.jit.save", got="a file of another kind")
    with ZipFile(path) as file:
        texts = {n.partition("/extra/")[2]: file.read(n).decode(errors="replace") for n in names if "/extra/" in n}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:  # bytes of unknown origin can break a reader anywhere
        got = f"one that cannot be read ({one_line(error)})"
        raise ModelError(spec, expected="an archive written by torch.jit.save", got=got) from None
    methods = [name for name in program._c._method_names() if not name.startswith("__")]
    if "forward" not in methods:
        got = f"one with {', '.join(methods) or 'no method'}"
        raise ModelError(spec, expected="a program with a method forward", got=got)
    arguments = program.forward.schema.arguments[1:]
    needed = [argument.name for argument in arguments if not argument.has_default_value()]
    if len(needed) != 1:
        got = f"forward({', '.join(needed)})"
        raise ModelError(spec, expected="a program of one input, the images", got=got)
    takes = ImageInput()
    shape = image_shape(takes, request, where=spec)
    images, _ = example_images(shape, request)
    model = ProgramClassifier(program, takes).eval()
    model, notes = with_chosen_output(model, (), images, where=spec)
    outputs = run_once(model, images, where=spec)
    return plan_program(spec, request, model, shape=shape, outputs=outputs, texts=texts, notes=notes)
