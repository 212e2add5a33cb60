"""``assay anatomy``: what a model is made of, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import AsJson, Inputs, flag, option, takes_inputs
from assay.errors import OptionError

if TYPE_CHECKING:
    from assay.models.sources import LoadedModel

SHAPE_FROM_DATA = "A data set to take the image shape and the classes from: digits, cifar10, a folder, …"
WITHOUT = ("match_classes", "classes", "score_over", "split", "limit", "seed", "device")


@takes_inputs(model_required=True, omit=WITHOUT, helps={"data": SHAPE_FROM_DATA})
def anatomy(
    inputs: Inputs,
    image_shape: Annotated[
        str | None,
        option(
            "Model",
            "Shape of one image; else that of --data, of the run folder, or what the model is made for.",
            metavar="C,H,W",
        ),
    ] = None,
    classes: Annotated[
        int | None, option("Model", "Number of classes; else as for the image shape.", metavar="N", min=2)
    ] = None,
    json: AsJson = False,
) -> None:
    """Show a model's layers in the order they run: output shapes, parameters, FLOPs, residual blocks.

    FLOPs are those of one image, a multiply and an add counted separately. Any model will do; it is run once.
    """
    from rich.console import Console

    from assay.models.anatomy import measure_anatomy
    from assay.report.terminal.model import print_anatomy

    loaded = _open_bare(inputs, classes=classes, image_shape=_parse_shape(image_shape))
    record = measure_anatomy(loaded.model, image_shape=loaded.image_shape, name=inputs.model or "")
    if json:
        typer.echo(record.model_dump_json(indent=1))
        return
    print_anatomy(record, Console())


def _open_bare(inputs: Inputs, *, classes: int | None, image_shape: tuple[int, int, int] | None = None) -> LoadedModel:
    """A model whose data matter for the shape and the number of classes alone."""
    from rich.console import Console

    from assay.cli.inputs import open_data, open_model

    errors = Console(stderr=True)
    if inputs.data is None:
        return open_model(inputs, errors, classes=classes, image_shape=image_shape)
    if image_shape is not None or classes is not None:
        raise OptionError("--data", expected="either it, or --image-shape and --classes", got="both")
    dataset = open_data(inputs, errors)
    return open_model(inputs, errors, classes=len(dataset.classes), image_shape=dataset.shape)


def _parse_shape(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        channels, height, width = (int(size) for size in text.replace("x", ",").replace("×", ",").split(","))
    except ValueError:
        raise OptionError("--image-shape", expected="three sizes C,H,W such as 3,32,32", got=repr(text)) from None
    if min(channels, height, width) < 1:
        raise OptionError("--image-shape", expected="sizes of at least 1", got=repr(text))
    return channels, height, width


@takes_inputs(model_required=True, omit=WITHOUT, helps={"data": SHAPE_FROM_DATA})
def groups(
    inputs: Inputs,
    classes: Annotated[
        int | None, option("Model", "Number of classes of an architecture of ours. (default: 10)", metavar="N", min=2)
    ] = None,
    weight_decay: Annotated[
        float, option("Groups", "Weight decay of the group of weights.", metavar="RATE", min=0)
    ] = 5e-4,
    names: Annotated[bool, flag("Output", "List every parameter.", "--names")] = False,
    json: AsJson = False,
) -> None:
    """Sort a model's parameters into weight-decay groups, by module type and never by name.

    Matching "bn" in names misses every norm layer with another name, such as downsample.1 of a ResNet; those are
    listed, and so is what is no matrix or kernel of a layer: slopes, scales, tokens, position embeddings.
    """
    from rich.console import Console

    from assay.report.terminal.model import print_decay_groups
    from assay.training.param_groups import measure_decay_groups

    record = measure_decay_groups(_open_bare(inputs, classes=classes).model, weight_decay=weight_decay)
    if json:
        typer.echo(record.model_dump_json(indent=1))
        return
    print_decay_groups(record, Console(), names=names)
