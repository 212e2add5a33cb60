"""``assay anatomy``: what a model is made of, layer by layer."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError


def anatomy(
    model: arg.Model,
    weights: arg.Weights = None,
    data: Annotated[
        str | None,
        typer.Option(help="A data set to take image shape and classes from.", show_default=False),
    ] = None,
    data_dir: arg.DataDir = None,
    image_shape: Annotated[
        str | None,
        typer.Option(
            metavar="C,H,W",
            help="Shape of one image; else that of --data, of the run folder, or what the model is made for.",
            show_default=False,
        ),
    ] = None,
    classes: Annotated[
        int | None,
        typer.Option(min=2, help="Number of classes; else as for the image shape.", show_default=False),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Show a model's layers in the order they run: output shapes, parameters, FLOPs, residual blocks.

    FLOPs are those of one image, a multiply and an add counted separately. Any model will do; it is run once.
    """
    from rich.console import Console

    from assay.models.anatomy import measure_anatomy
    from assay.models.sources import open_model
    from assay.report.terminal.anatomy import print_anatomy

    shape = _parse_shape(image_shape)
    if data is not None:
        from assay.data.sources import load_dataset

        if shape is not None or classes is not None:
            raise OptionError("--data", expected="either it, or --image-shape and --classes", got="both")
        dataset = load_dataset(data, data_dir=data_dir)
        shape, classes = dataset.shape, len(dataset.classes)
    loaded = open_model(model, weights=weights, classes=classes, image_shape=shape)
    for note in loaded.notes:
        Console(stderr=True).print(note, style="yellow", markup=False, highlight=False)
    record = measure_anatomy(loaded.model, image_shape=loaded.image_shape, name=model)
    if json:
        typer.echo(record.model_dump_json(indent=1))
        return
    print_anatomy(record, Console())


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


def groups(
    model: arg.Model,
    weights: arg.Weights = None,
    weight_decay: Annotated[float, typer.Option(min=0, help="The decay that the weights are to get.")] = 5e-4,
    classes: Annotated[int, typer.Option(min=2, help="Classes of an architecture of ours.")] = 10,
    names: Annotated[bool, typer.Option("--names", help="List every parameter.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False,
) -> None:
    """Sort a model's parameters into the three weight-decay groups, by module type and never by name.

    Matching "bn" in names misses every norm that is called otherwise, such as downsample.1 of a ResNet; those are
    listed.
    """
    from rich.console import Console

    from assay.models.sources import load_model
    from assay.report.terminal.anatomy import print_decay_groups
    from assay.training.param_groups import measure_decay_groups

    record = measure_decay_groups(load_model(model, weights=weights, classes=classes), weight_decay=weight_decay)
    if json:
        typer.echo(record.model_dump_json(indent=1))
        return
    print_decay_groups(record, Console(), names=names)
