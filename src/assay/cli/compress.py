"""``assay compress``: a smaller and faster network, and what it costs."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli.options import AsJson, Inputs, flag, option, takes_inputs
from assay.cli.within import Within, parse_duration, seconds_around_stages
from assay.errors import COULD_NOT_RUN, OptionError

if TYPE_CHECKING:
    from assay.models.factorized import Kind


@takes_inputs(
    model_required=True, omit=("score_over", "split", "device"), helps={"limit": "Use the first N test images only."}
)
def compress(
    inputs: Inputs,
    target: Annotated[
        str | None, option("Compression", "A share of the FLOPs, such as 0.6x. (default: 0.7x)", metavar="SHARE")
    ] = None,
    max_drop: Annotated[
        float | None,
        option(
            "Compression", "Instead: the fewest FLOPs that lose at most so many points of accuracy.", metavar="POINTS"
        ),
    ] = None,
    kinds: Annotated[
        str, option("Compression", "Factorisations a layer may take.", metavar="NAMES")
    ] = "linear,channel,spatial,tucker",
    calibration: Annotated[
        int, option("Compression", "Training images that layers are fitted on.", metavar="N", min=8)
    ] = 256,
    epochs: Annotated[
        float, option("Fine-tuning", "Epochs of fine-tuning afterwards; 0.5 is half of one.", metavar="N", min=0)
    ] = 0.0,
    lr: Annotated[float, option("Fine-tuning", "Learning rate of AdamW.", metavar="RATE", min=0)] = 3e-4,
    attack: Annotated[
        str, option("Measurements", "Measure robust accuracy with this attack; none: do not.", metavar="NAME")
    ] = "pgd",
    robust_images: Annotated[int, option("Measurements", "Test images to attack.", metavar="N", min=1)] = 500,
    curve: Annotated[
        str, option("Measurements", "Shares of the rank for the accuracy curve; none: no curve.", metavar="SHARES")
    ] = "0.25,0.5,0.75",
    batch: Annotated[
        int, option("Measurements", "Images in a batch when latency is measured.", metavar="N", min=1)
    ] = 64,
    out: Annotated[Path, option("Output", "The run folder to write.", metavar="DIR")] = Path("compressed"),
    overwrite: Annotated[bool, flag("Output", "Replace what is in --out.", "--overwrite")] = False,
    within: Within = None,
    as_json: AsJson = False,
) -> None:
    """Factorise the layers of a network on data, replacing only those that get faster.

    The result is a folder that loads wherever a model loads. Exit codes: 0 done, 2 usage or input error, 4 no time to
    attack --within the wall time.
    """
    from rich.console import Console

    from assay.cli.drawing import drawing
    from assay.cli.inputs import align_classes, data_notes, open_data, open_model, record_data, resolve_data
    from assay.compression import CompressionPlan, save_compressed
    from assay.compression import compress as run
    from assay.files import make_folder, write_atomically
    from assay.models.factorized import read_structure
    from assay.report.compression_page import render_compression_page
    from assay.report.terminal.lowrank import print_compression

    if (out / "model.safetensors").exists() and not overwrite:
        raise OptionError("--out", expected="a new folder, or --overwrite", got=f"{out}, which holds a model")
    time_given = None if within is None else parse_duration(within)
    plan = CompressionPlan(
        share=_share(target, max_drop),
        max_drop=max_drop,
        kinds=_kinds(kinds),
        calibration=calibration,
        epochs=epochs,
        lr=lr,
        batch=batch,
        attack=None if attack == "none" else attack,
        robust_images=robust_images,
        curve=() if curve == "none" else _shares(curve),
        seed=inputs.seed,
    )
    console = Console(stderr=True, highlight=False)
    inputs = resolve_data(inputs)
    name = inputs.model or ""
    train = open_data(replace(inputs, split="train", limit=None), console)
    test = align_classes(open_data(inputs, console, printed=data_notes(train)), train.classes)
    loaded = open_model(inputs, console, dataset=test, seed=inputs.seed)
    make_folder(out)
    left = None if time_given is None else max(1.0, time_given - seconds_around_stages())
    tell = partial(console.print, markup=False)
    done = run(loaded.model, train, test, plan, name=name, within=left, on_progress=tell)
    earlier = read_structure(inputs.weights) if inputs.weights is not None else ()
    factorization = (*earlier, *done.factorization)
    save_compressed(
        out,
        done.model,
        factorization,
        spec=name,
        classes=test.classes,
        image_shape=test.shape,
        preparation=train.preparation,
    )
    record_data(out, inputs)
    write_atomically(out / "compression.json", done.report.model_dump_json(indent=2) + "\n")
    with drawing(out / "compression.json"):
        write_atomically(out / "compression.html", render_compression_page(done.report))
    if as_json:
        typer.echo(json.dumps(done.report.model_dump(mode="json")))
    else:
        print_compression(done.report, Console(), out=out)
    if plan.attack is not None and done.report.after.robust is None:
        raise typer.Exit(COULD_NOT_RUN)


def _share(target: str | None, max_drop: float | None) -> float | None:
    if target is None:
        return 0.7 if max_drop is None else None
    try:
        return float(target.removesuffix("x"))
    except ValueError:
        raise OptionError("--target", expected="a share of the FLOPs such as 0.6x", got=repr(target)) from None


def _shares(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise OptionError("--curve", expected="shares such as 0.25,0.5", got=repr(text)) from None
    if not all(0 < value <= 1 for value in values):
        raise OptionError("--curve", expected="shares in (0, 1]", got=repr(text))
    return values


def _kinds(text: str) -> tuple[Kind, ...]:
    from assay.compression.network import KINDS

    names = [name.strip() for name in text.split(",")]
    wrong = [name for name in names if name not in KINDS]
    if wrong:
        raise OptionError("--kinds", expected=f"some of {', '.join(KINDS)}", got=wrong[0])
    return tuple(kind for kind in KINDS if kind in names)
