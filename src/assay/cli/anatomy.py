"""``assay anatomy``: what a model is made of, layer by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from assay.records.anatomy import Anatomy, BlockAnatomy, LayerAnatomy
    from assay.records.training import DecayGroups


WIDE = 110  # columns from which there is room for details


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
    _print(record)


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


def _print(record: Anatomy) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    shape = " × ".join(str(size) for size in record.input_shape)
    console.print(Text.assemble((record.model, "bold"), f"  {shape} image → {record.classes} outputs"), highlight=False)
    console.print(_layer_table(record, width=console.width), highlight=False)
    if record.blocks:
        console.print(Text("blocks", style="dim"))
        for kind, where in _block_lines(record.blocks):
            console.print(Text(kind), highlight=False)
            console.print(Padding(Text(where, style="dim"), (0, 0, 0, 6)), highlight=False)
        console.print()
    for line in _facts(record):
        console.print(Text(line), highlight=False)


def _layer_table(record: Anatomy, *, width: int) -> Table:
    """A row a layer. Numbers always stand in full; names and types share what room is left."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    wide = width >= WIDE
    columns = ["output", "parameters", "FLOPs", *(["share"] if wide else [])]
    totals = ["", f"{record.parameters:,}", short(record.flops), ""]
    numbers = [_numbers(layer, record.flops)[: len(columns)] for layer in record.layers]
    kinds = [_kind(layer) for layer in record.layers]
    taken = sum(max(map(len, column)) for column in zip(columns, totals, *numbers, strict=False))
    room = max(18, width - taken - 3 * (len(columns) + 2) - 1)
    longest_name = max((len(layer.name) for layer in record.layers), default=0)
    kind_room = min(max(map(len, kinds), default=0), max(room * 2 // 5, room - longest_name))
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_footer=True, padding=(0, 1))
    table.add_column("layer", "total", no_wrap=True, footer_style="bold")
    table.add_column("type", no_wrap=True)
    for i, (heading, total) in enumerate(zip(columns, totals, strict=False)):
        table.add_column(heading, total, justify="right" if i else "left", no_wrap=True, footer_style="bold")
    for layer, kind, cells in zip(record.layers, kinds, numbers, strict=True):
        name = _tail(layer.name or "(the model)", room - kind_room)
        style = None if layer.parameters else "dim"
        table.add_row(Text(name), Text(_head(kind, kind_room)), *(Text(cell) for cell in cells), style=style)
    return table


def _kind(layer: LayerAnatomy) -> str:
    calls = f" ×{layer.calls}" if layer.calls > 1 else ""
    return f"{layer.type}{calls} {layer.detail}".strip()


def _numbers(layer: LayerAnatomy, flops: int) -> list[str]:
    return [
        "×".join(str(size) for size in layer.output_shape),
        f"{layer.parameters:,}" if layer.parameters else "",
        short(layer.flops) if layer.flops else "",
        f"{layer.flops / max(flops, 1):.1%}" if layer.flops else "",
    ]


def _block_lines(blocks: tuple[BlockAnatomy, ...]) -> list[tuple[str, str]]:
    """For each kind of block, in order of appearance: what it is, and where."""
    kinds: dict[str, list[str]] = {}
    for block in blocks:
        skip = "no skip" if block.skip == "none" else f"{block.skip} skip"
        facts = [block.shape, skip, block.norm_placement if block.norm_placement != "none" else "no norm"]
        facts = [fact for fact in facts if fact != "unknown"] + ["downsampling"] * block.downsamples
        kinds.setdefault(", ".join(facts), []).append(block.name or "(the model)")
    return [
        (f"{len(names):>3} × {kind}", ", ".join(names) if len(names) <= 3 else f"{names[0]} … {names[-1]}")
        for kind, names in kinds.items()
    ]


def _facts(record: Anatomy) -> list[str]:
    frozen = record.parameters - record.trainable_parameters
    kept = f", {frozen:,} of them frozen" if frozen else ""
    normalizes = (
        "the model normalises its own input"
        if record.normalizes_input
        else "pixels reach the first weights as they are"
    )
    return [
        f"{record.parameters:,} parameters{kept}; {record.buffers:,} numbers in buffers",
        f"{short(record.flops)} FLOPs an image (a multiply and an add count one each)",
        f"{record.depth} weight layers on the longest way through; {normalizes}",
    ]


def short(number: int) -> str:
    """Three significant digits: 81.8 M."""
    for size, sign in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size * 0.9995:
            scaled = number / size
            return f"{scaled:.{max(0, 2 - len(str(int(scaled))) + 1)}f}{sign}"
    return str(number)


def _tail(text: str, room: int) -> str:
    """The end of a name tells modules apart, so a name that is too long loses its beginning."""
    return text if len(text) <= room else f"…{text[1 - room :]}"


def _head(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"


_WHAT = {
    "norm": "scale and shift of normalisation layers",
    "bias": "biases of all other layers",
    "weight": "all the rest",
}


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
    from assay.models.sources import load_model
    from assay.training.param_groups import measure_decay_groups

    record = measure_decay_groups(load_model(model, weights=weights, classes=classes), weight_decay=weight_decay)
    if json:
        typer.echo(record.model_dump_json(indent=1))
        return
    _print_groups(record, names=names)


def _print_groups(record: DecayGroups, *, names: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, header_style="dim", pad_edge=False)
    for heading, side in (("group", "left"), ("tensors", "right"), ("parameters", "right"), ("decay", "right")):
        table.add_column(heading, justify=side)  # type: ignore[arg-type]
    table.add_column("what")
    for group in record.groups:
        decay = f"{group.weight_decay or 0:g}"
        table.add_row(group.role, str(len(group.names)), f"{group.parameters:,}", decay, _WHAT[group.role])
    console.print(table)
    if names:
        for group in record.groups:
            for name in group.names:
                console.print(f"{group.role:7}{name}", markup=False, highlight=False)
    if record.frozen or record.tied:
        console.print(
            f"Left out: {record.frozen} frozen tensors. Counted once: {record.tied} further names of tied ones."
        )
    if record.missed_by_name:
        console.print(f'A search for "bn" in the names would miss {len(record.missed_by_name)} norm parameters:')
        shown = record.missed_by_name if names else record.missed_by_name[:8]
        console.print("  " + ", ".join(shown) + (" …" if len(shown) < len(record.missed_by_name) else ""), markup=False)
