"""``assay groups``: which parameters of a model decay, and which must not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import arguments as arg

if TYPE_CHECKING:
    from assay.records.training import DecayGroups

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
    from assay.models.loading import load_model
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
