"""What all programs in files have in common when they become models: sizes, classes, their names, notes."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from assay.errors import ModelError
from assay.models.calls import refusing
from assay.models.programs.classifier import ImageInput, ProgramClassifier, choose_output
from assay.models.sources.blueprint import Blueprint, ModelRequest
from assay.models.weights import NAMES_OF_CLASSES, find_class_names
from assay.models.wrappers import Normalize, Normalized, choose_normalization
from assay.runtime import preserved

SIZE = 224  # of an image, where neither the file nor the data say it
EXAMPLES = 16
TOLERANCE = 1e-4  # of the range of the logits: by how much two ways to run a program may differ
OTHER_BATCHES = (1, 2, 5)  # on which a program for one size of batch is tried
LISTS_OF_NAMES = ("names", "labels", "classes", "class_names", "categories", "imagenet_classes")


def check_file(spec: str) -> Path:
    """The path of a file that is there; :class:`ModelError` otherwise."""
    path = Path(spec)
    if not path.is_file():
        raise ModelError(spec, expected="a file", got="a folder" if path.is_dir() else "no such file")
    return path


def image_shape(takes: ImageInput, request: ModelRequest, *, where: str) -> tuple[int, int, int]:
    """(C, H, W) of the images: what the file states, else as the data has them. Raises :class:`ModelError`."""
    stated = takes.channels, takes.height, takes.width
    wanted = request.image_shape
    if wanted is not None:
        for name, own, size in zip(("channels", "height", "width"), stated, wanted, strict=True):
            if own not in {None, size}:
                hint = "" if name == "channels" or stated[1] != stated[2] else f" (--image-size {own})"
                shape = ", ".join("?" if size is None else str(size) for size in stated)
                raise ModelError(
                    where, expected=f"images of shape ({shape}){hint}, which it is made for", got=f"data of {wanted}"
                )
    default = wanted or (3, SIZE, SIZE)
    return tuple(own or size for own, size in zip(stated, default, strict=True))  # type: ignore[return-value]


def example_images(shape: tuple[int, int, int], request: ModelRequest) -> tuple[Tensor, str]:
    """Images to try a program on, and what to call them: those of the data, else random ones."""
    given = request.examples
    random = torch.rand(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
    if given is None or not len(given) or tuple(given.shape[1:]) != shape:
        return random, f"{EXAMPLES} random images"
    chosen = given[:EXAMPLES].detach().cpu().float()
    missing = max(0, max(OTHER_BATCHES) - len(chosen))  # a batch of other images shows whether they mix
    beside = f" and {missing} random ones" if missing else ""
    return torch.cat([chosen, random[:missing]]), f"{len(chosen)} images of the data{beside}"


def run_once(model: ProgramClassifier, images: Tensor, *, where: str) -> Tensor:
    """Its output for ``images``, without gradients; :class:`ModelError` where it does not take them."""
    with torch.no_grad(), preserved(model, training=None), refusing(model.program, images.shape, where=where):
        return model(images)  # type: ignore[no-any-return]


def with_chosen_output(
    model: ProgramClassifier, names: Sequence[str], images: Tensor, *, where: str
) -> tuple[ProgramClassifier, tuple[str, ...]]:
    """The same with the output that is the logits, and a note where there are several."""
    batch = images[: model.takes.batch or len(images)]
    batch = batch[torch.arange(model.takes.batch or len(batch)) % len(batch)]
    with torch.no_grad(), preserved(model, training=None), refusing(model.program, images.shape, where=where):
        outputs = model.all_outputs(batch)
    if isinstance(outputs, dict):
        names, outputs = tuple(map(str, outputs)), tuple(outputs.values())
    place = choose_output(outputs, names, where=where)
    model = ProgramClassifier(model.program, model.takes, output=place)
    several = isinstance(outputs, (tuple, list)) and len(outputs) > 1
    called = [names[i] if i < len(names) else f"output {i}" for i in range(len(outputs))] if several else []
    notes = (f"{where} has the outputs {', '.join(called)}: {called[place]} is taken as the logits",) if several else ()
    return model, notes


def free_batch(model: ProgramClassifier, images: Tensor, outputs: Tensor) -> ProgramClassifier:
    """The same without its size of batch, where it gives each image the same in others too; else as it is."""
    freed = model.with_batch(None)
    try:
        fits = [same(run_once(freed, images[:n], where=""), outputs[:n]) <= TOLERANCE for n in OTHER_BATCHES]
    except ModelError:
        fits = [False]
    return freed if all(fits) else model


def plan_program(
    spec: str,
    request: ModelRequest,
    model: ProgramClassifier,
    *,
    shape: tuple[int, int, int],
    outputs: Tensor,
    texts: Mapping[str, str],
    notes: Sequence[str],
) -> Blueprint:
    """The blueprint of a finished program: ``outputs`` are those of some images, ``texts`` what lies beside it."""
    count = outputs.shape[1] if outputs.ndim == 2 and outputs.shape[1] > 1 else None
    takes, said = model.takes, list(notes)
    if takes.batch is not None:
        said.append(f"{spec} takes batches of {takes.batch} only: fewer images are filled up, more are split")
    if takes.white != 1:
        said.append(f"{spec} takes pixels in [0, {takes.white:g}]: images are multiplied by that")
    chosen = request.normalization

    def make(classes: int) -> nn.Module:
        if chosen is None:
            return model.eval()
        return Normalized(Normalize(choose_normalization(chosen, channels=shape[0])), model).eval()

    names = None if count is None else names_from_texts(texts, count)
    return Blueprint(make, shape, classes=count, class_names=names, has_weights=True, notes=tuple(said))


def names_from_texts(texts: Mapping[str, str], classes: int) -> tuple[str, ...] | None:
    """The names of ``classes`` classes in the texts that lie in a file under a key such as ``classes`` or ``names``.

    A text is JSON, a literal of Python, or one name a line (or between commas).
    """
    for key, text in texts.items():
        stem = key.rpartition("/")[2].partition(".")[0].lower()
        value = _parse(text)
        if stem in {*NAMES_OF_CLASSES, *LISTS_OF_NAMES}:
            names = find_class_names({"classes": value})
        else:
            names = find_class_names(value)
        if names is not None and len(names) == classes:
            return names
    return None


def _parse(text: str) -> object:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines if len(lines) > 1 else [part.strip() for part in text.split(",")]


def same(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference as a share of the range of ``theirs``; infinite where they cannot be compared."""
    if ours.shape != theirs.shape or not bool(theirs.isfinite().all()):
        return float("inf")
    span = float(theirs.max() - theirs.min())
    difference = float((ours.double() - theirs.double()).abs().max())
    return 0.0 if difference == 0 else (difference / span if span else float("inf"))
