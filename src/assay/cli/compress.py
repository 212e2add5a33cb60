"""``assay compress``: a smaller and faster network, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import OptionError

if TYPE_CHECKING:
    from assay.models.factorized import Kind


def compress(
    model: arg.Model,
    data: arg.Data = "cifar10",
    weights: arg.Weights = None,
    target: Annotated[
        str | None, typer.Option(help="A share of the FLOPs, such as 0.6x. [default: 0.7x]", show_default=False)
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(help="Instead: the fewest FLOPs that lose at most so many points.", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(min=0, help="Epochs of fine-tuning afterwards; 0.5 is half of one.")] = 0.0,
    lr: Annotated[float, typer.Option(min=0, help="Learning rate of the fine-tuning (AdamW).")] = 3e-4,
    kinds: Annotated[str, typer.Option(help="Forms a layer may take.")] = "linear,channel,spatial,tucker",
    calibration: Annotated[int, typer.Option(min=8, help="Training images that layers are fitted on.")] = 256,
    batch: Annotated[int, typer.Option(min=1, help="Images in a batch when latency is measured.")] = 64,
    attack: Annotated[str, typer.Option(help="Measure robust accuracy with this attack; none: do not.")] = "pgd",
    robust_images: Annotated[int, typer.Option(min=1, help="Test images to attack.")] = 500,
    curve: Annotated[
        str, typer.Option(help="Shares of the rank for the accuracy curve; none: no curve.")
    ] = "0.25,0.5,0.75",
    out: Annotated[Path, typer.Option(help="The run folder to write.")] = Path("compressed"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is in --out.")] = False,
    data_dir: arg.DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N test images only.")] = None,
    seed: arg.Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the record instead of the table.")] = False,
) -> None:
    """Factorise the layers of a network on data, replacing only those that get faster.

    The result is a folder that loads wherever a model loads. Exit codes: 0 done, 2 usage or input error.
    """
    from rich.console import Console

    from assay.compression.run import Plan, save_compressed
    from assay.compression.run import compress as run
    from assay.data.sources import load_dataset
    from assay.files import make_folder, write_atomically
    from assay.models.sources import open_model
    from assay.report.compression_page import render_compression_page
    from assay.report.terminal.lowrank import print_compression

    if (out / "model.safetensors").exists() and not overwrite:
        raise OptionError("--out", expected="a new folder, or --overwrite", got=f"{out}, which holds a model")
    plan = Plan(
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
        seed=seed,
    )
    train = load_dataset(data, split="train", data_dir=data_dir)
    test = load_dataset(data, split="test", data_dir=data_dir, limit=limit)
    loaded = open_model(model, weights=weights, classes=len(test.classes), image_shape=test.shape, seed=seed)
    make_folder(out)
    console = Console(stderr=True, highlight=False)
    for note in loaded.notes:
        console.print(f"note: {note}", markup=False)
    done = run(loaded.model, train, test, plan, name=model, say=lambda line: console.print(line, markup=False))
    save_compressed(out, done.model, done.factorization, spec=model, classes=test.classes, image_shape=test.shape)
    write_atomically(out / "compression.json", done.report.model_dump_json(indent=2) + "\n")
    write_atomically(out / "compression.html", render_compression_page(done.report))
    if as_json:
        typer.echo(json.dumps(done.report.model_dump(mode="json")))
        return
    print_compression(done.report, Console(), out=out)


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
