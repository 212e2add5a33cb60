"""Programs written by ``torch.export.save``: ``.pt2`` files."""

from __future__ import annotations

from zipfile import BadZipFile, ZipFile

from assay.errors import ModelError, one_line
from assay.models.programs.classifier import ProgramClassifier, read_input
from assay.models.programs.exported_graph import build, read_archive
from assay.models.programs.plan import (
    check_file,
    example_images,
    free_batch,
    image_shape,
    plan_program,
    run_once,
    with_chosen_output,
)
from assay.models.sources.blueprint import Blueprint, ModelRequest


def plan_exported(spec: str, request: ModelRequest) -> Blueprint:
    """The program of a file, with its layers and gradients. Nothing in the file is unpickled but plain tensors.

    Raises :class:`ModelError`.
    """
    path = check_file(spec)
    try:
        with ZipFile(path) as file:
            archive = read_archive(file, where=spec)
        exported = build(archive, where=spec)
    except ModelError:
        raise
    except BadZipFile:
        raise ModelError(
            spec, expected="an archive written by torch.export.save", got="a file of another kind"
        ) from None
    except Exception as error:  # bytes of unknown origin can break a reader anywhere
        got = f"one that cannot be read ({type(error).__name__}: {one_line(error)})"
        raise ModelError(spec, expected="an archive written by torch.export.save", got=got) from None
    takes = read_input(exported.sizes, exported.dtype, where=spec, name=exported.name)
    shape = image_shape(takes, request, where=spec)
    images, _ = example_images(shape, request)
    model = ProgramClassifier(exported.graph, takes)
    model, notes = with_chosen_output(model, exported.outputs, images, where=spec)
    outputs = run_once(model, images, where=spec)
    model = free_batch(model, images, outputs)
    return plan_program(spec, request, model, shape=shape, outputs=outputs, texts=archive.texts, notes=notes)
