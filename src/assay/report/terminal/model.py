"""What ``assay anatomy``, ``assay groups`` and ``assay train`` print: layers, decay groups, epochs."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from assay.records.anatomy import Anatomy, BlockAnatomy, LayerAnatomy
from assay.records.training import DecayGroups, TrainingRun
from assay.report.terminal.layout import print_items, print_line, print_table, tail
from assay.wording import clip, compact, inert

WIDE = 110  # columns from which there is room for the share of the FLOPs
_ROLES = {
    "norm": "scale and shift of normalisation layers",
    "bias": "biases of all other layers",
    "weight": "all other weights",
    "other": "slopes, scales, tokens, position embeddings",
}


def print_anatomy(record: Anatomy, console: Console) -> None:
    """The layers in forward order, the kinds of residual blocks, and the totals."""
    shape = " × ".join(str(size) for size in record.input_shape)
    print_line(console, Text.assemble((record.model, "bold"), f"  {shape} image → {record.classes} outputs"))
    console.print(_layer_table(record, width=console.width), highlight=False)
    if record.blocks:
        print_line(console, "blocks", "dim")
        for kind, where in _block_lines(record.blocks):
            print_line(console, kind, wrap=False)
            console.print(Padding(Text(where, style="dim"), (0, 0, 0, 6)), highlight=False)
        console.print()
    for line in _totals(record):
        print_line(console, line)


def _layer_table(record: Anatomy, *, width: int) -> Table:
    """A row a layer. Numbers are never shortened; names and types share the width that is left."""
    columns = ["output", "parameters", "FLOPs", *(["share"] if width >= WIDE else [])]
    totals = ["", f"{record.parameters:,}", compact(record.flops), ""]
    numbers = [_numbers(layer, record.flops)[: len(columns)] for layer in record.layers]
    types = [_type(layer) for layer in record.layers]
    taken = sum(max(map(len, column)) for column in zip(columns, totals, *numbers, strict=False))
    room = max(18, width - taken - 3 * (len(columns) + 2) - 1)
    longest_name = max((len(layer.name) for layer in record.layers), default=0)
    type_room = min(max(map(len, types), default=0), max(room * 2 // 5, room - longest_name))
    table = Table(box=box.SIMPLE_HEAD, header_style="dim", pad_edge=False, show_footer=True, padding=(0, 1))
    table.add_column("layer", "total", no_wrap=True, footer_style="bold")
    table.add_column("type", no_wrap=True)
    for i, (heading, total) in enumerate(zip(columns, totals, strict=False)):
        table.add_column(heading, total, justify="right" if i else "left", no_wrap=True, footer_style="bold")
    for layer, kind, cells in zip(record.layers, types, numbers, strict=True):
        name = tail(inert(layer.name, keep="") or "(the model)", room - type_room)
        style = None if layer.parameters else "dim"
        table.add_row(Text(name), Text(clip(kind, type_room)), *(Text(cell) for cell in cells), style=style)
    return table


def _type(layer: LayerAnatomy) -> str:
    calls = f" ×{layer.calls}" if layer.calls > 1 else ""
    return inert(f"{layer.type}{calls} {layer.detail}".strip(), keep="")


def _numbers(layer: LayerAnatomy, flops: int) -> list[str]:
    return [
        "×".join(str(size) for size in layer.output_shape),
        f"{layer.parameters:,}" if layer.parameters else "",
        compact(layer.flops) if layer.flops else "",
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


def _totals(record: Anatomy) -> list[str]:
    frozen = record.parameters - record.trainable_parameters
    raw = "pixels reach the first weights as they are"
    normalizes = "the model normalises its own input" if record.normalizes_input else raw
    products = ""
    if record.multiply_adds:
        others = compact(record.flops - record.multiply_adds)
        products = (
            f"{compact(record.multiply_adds)} multiply-adds in layers and products, as most papers count them; "
            f"{others} with norms, activations and sums"
        )
    return [
        f"{record.parameters:,} parameters{f', {frozen:,} of them frozen' if frozen else ''}; "
        f"{record.buffers:,} numbers in buffers",
        f"{compact(record.flops)} FLOPs an image (a multiply and an add count one each)",
        *([products] if products else []),
        f"depth: {record.depth} weight layers on the longest path from input to output; {normalizes}",
    ]


def print_decay_groups(record: DecayGroups, console: Console, *, names: bool) -> None:
    """The groups, with ``names`` every parameter of each, what is no weight of a layer, what a search would miss."""
    rows = (
        (group.role, str(len(group.names)), f"{group.parameters:,}", f"{group.weight_decay or 0:g}", _ROLES[group.role])
        for group in record.groups
    )
    print_table(console, ("group", ">tensors", ">parameters", ">decay", "what"), rows)
    if names:
        for group in record.groups:
            for name in group.names:
                print_line(console, f"{group.role:7}{name}", wrap=False)
    if record.frozen or record.tied:
        left_out = f"Left out: {record.frozen} frozen tensors."
        print_line(console, f"{left_out} Counted once: {record.tied} further names of tied ones.")
    if record.other:
        print_line(console, f"No matrix or kernel of a layer, and therefore not decayed ({len(record.other)}):")
        for each in record.other if names else record.other[:8]:
            shape = f"({', '.join(map(str, each.shape))})"
            print_line(console, f"  {each.name} {shape} of {each.owner}: {each.why}", wrap=False)
        if not names and len(record.other) > 8:
            print_line(console, f"  and {len(record.other) - 8} more; --names lists them")
    if record.assumed:
        shown = record.assumed if names else record.assumed[:8]
        print_line(console, f"Taken for weights, of modules of no known type ({len(record.assumed)}):")
        print_line(console, "  " + ", ".join(shown) + (" …" if len(shown) < len(record.assumed) else ""))
    if record.missed_by_name:
        missed = len(record.missed_by_name)
        print_line(console, f'A search for "bn" in the names would miss {missed} norm parameters:')
        shown = record.missed_by_name if names else record.missed_by_name[:8]
        print_line(console, "  " + ", ".join(shown) + (" …" if len(shown) < missed else ""))


def print_training_run(run: TrainingRun, console: Console) -> None:
    """The epochs as a table, then what the time was spent on."""
    print_items(
        console,
        run.epochs,
        {
            ">epoch": lambda epoch: str(epoch.epoch + 1),
            ">loss": lambda epoch: f"{epoch.loss:.4f}",
            ">accuracy": lambda epoch: f"{epoch.accuracy:.2%}",
            ">validation": lambda epoch: "" if (share := epoch.validation_accuracy) is None else f"{share:.2%}",
            ">learning rate": lambda epoch: f"{epoch.learning_rate:.3g}",
            ">gradient": lambda epoch: f"{epoch.gradient_norm:.3g}",
            ">img/s" if run.modality == "images" else ">seq/s": lambda epoch: f"{epoch.images_per_second:,.0f}",
            ">seconds": lambda epoch: f"{epoch.seconds:.1f}",
        },
    )
    trained = f"Trained {run.model} on {run.n:,} {run.modality} of {run.data} in {run.seconds:.1f} s"
    print_line(console, f"{trained} ({run.precision}).", wrap=False)
    if run.time_split is not None:
        parts = [f"{name} {took:.1f} s" for name, took in run.time_split.model_dump().items() if took >= 0.05]
        print_line(console, f"Time: {', '.join(parts)}.", wrap=False)
    for note in run.notes:
        print_line(console, f"Note: {note}.")
