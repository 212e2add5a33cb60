"""``assay attack``: how little change breaks the model, and how fast the loss climbs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import inputs as arg
from assay.cli.inputs import data_of
from assay.errors import OptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from assay.attacks.campaign import Campaign, Shard
    from assay.attacks.measure import RobustnessMeasurement
    from assay.attacks.threat import Threat
    from assay.data.dataset import ImageDataset
    from assay.records.attack import AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy


def attack(
    model: arg.Model,
    data: Annotated[
        str | None,
        typer.Option(
            help="The images to attack: digits, cifar10, a folder, *.parquet, *.npz, … A run folder brings its own.",
            show_default=False,
        ),
    ] = None,
    weights: arg.Weights = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    limit: arg.Limit = None,
    name: Annotated[str, typer.Option("--attack", help="Which attack; an unknown name lists them all.")] = "pgd",
    norm: Annotated[str, typer.Option(help="The size of a change: linf, l2 or l1.")] = "linf",
    epsilon: Annotated[str, typer.Option(help="The largest change, in pixels of [0, 1]: 8/255 or 0.031.")] = "8/255",
    steps: Annotated[int | None, typer.Option(help="Steps of an attack that takes them.", show_default=False)] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Length of a step, in pixels of [0, 1]: 2/255.", show_default=False)
    ] = None,
    restarts: Annotated[
        int | None, typer.Option(help="Runs from different starting points.", show_default=False)
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="What to climb: ce, margin, dlr or probability-margin.", show_default=False)
    ] = None,
    target_class: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="A class, by name or number: only images turned into it count, and its own are left out.",
            show_default=False,
        ),
    ] = None,
    average: Annotated[int, typer.Option(min=1, help="Passes that make one gradient, for a randomised model.")] = 1,
    curve: Annotated[bool, typer.Option("--curve", help="Also measure accuracy against epsilon.")] = False,
    sanity: Annotated[bool, typer.Option(help="Also check whether attacks on this model can be trusted.")] = True,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for every sample's result as Parquet parts, written as they come.", show_default=False
        ),
    ] = None,
    stop_at: Annotated[
        float | None,
        typer.Option(help="With --out: end when the 95 % interval is ± this narrow, such as 0.01.", show_default=False),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="With --out: go on with an interrupted run.")] = False,
    block: Annotated[int, typer.Option(min=1, help="With --out: images a part.")] = 500,
    shard: Annotated[
        str | None,
        typer.Option(
            help="With --out: only every n-th part from the i-th on, as i/n with i from 0; then `assay merge`.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of the search: float32, bfloat16, or auto. Successes are judged in float32.")
    ] = "auto",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the records to this file.", show_default=False)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images under attack at one time.")] = 256,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Attack a model and say what is left of its accuracy.

    Every success is clipped, checked against the ball in float64, and judged again by the untouched model.

    Under torchrun, with --out, the processes share the images out and the first one puts the results together.
    """
    from rich.console import Console

    from assay.attacks import (
        find_attack,
        measure_epsilon_curve,
        measure_robust_accuracy,
    )
    from assay.attacks.campaign import Shard, await_parts, merge_campaign, run_campaign
    from assay.attacks.threat import Threat
    from assay.data.sources import load_dataset
    from assay.files import write_atomically
    from assay.models.sources import load_model
    from assay.report.terminal.attack import AttackProgress, print_attack, print_curve
    from assay.runtime import choose_device, keep_freed_memory

    given: dict[str, Any] = {"steps": steps, "restarts": restarts, "loss": loss}
    given["step_size"] = None if step_size is None else parse_fraction(step_size, where="--step-size")
    options = find_attack(name, {key: value for key, value in given.items() if value is not None})
    threat = Threat(norm=norm, epsilon=parse_fraction(epsilon, where="--epsilon"))  # type: ignore[arg-type]
    together = Shard.of_torchrun()
    part = Shard.parse(shard) if shard is not None else together
    if out is None and (resume or stop_at is not None or part is not None):
        raise OptionError("--out", expected="a folder to keep the results in", got="nothing")
    leads = part is None or part.index == 0
    keep_freed_memory()
    target = choose_device(device)
    dataset = load_dataset(
        data or data_of(model), split=split, data_dir=data_dir, limit=limit, max_bad=max_bad, image_size=image_size
    )
    dataset, aim = _take_aim(dataset, target_class, alone=out is None and not curve)
    network = load_model(
        model,
        weights=weights,
        classes=len(dataset.classes),
        image_shape=dataset.shape,
        normalization=normalization,
    ).to(target)
    console = Console()
    with AttackProgress(Console(stderr=True, quiet=not leads)) as progress:
        if out is None:
            measured = measure_robust_accuracy(
                network,
                dataset,
                attack=options,
                norm=threat.norm,
                epsilon=threat.epsilon,
                seed=seed,
                batch_size=batch_size,
                eot_samples=average,
                precision=precision,
                target_class=aim,
                on_step=progress.show,
            )
            notes, record = measured.result.notes, measured.record
        else:
            done = run_campaign(
                network,
                dataset,
                folder=out,
                attack=options,
                norm=threat.norm,
                epsilon=threat.epsilon,
                seed=seed,
                batch_size=batch_size,
                eot_samples=average,
                precision=precision,
                block=block if part is None else min(block, -(-len(dataset) // part.count)),
                stop_at=stop_at,
                resume=resume,
                shard=part,
                on_step=progress.show,
            )
            if together is not None and shard is None:
                if not leads:
                    return
                await_parts(out)
                done = merge_campaign([out])
            notes, record = _tell(done, part), done.record
    print_attack(record, console, notes=notes)
    records: list[RobustAccuracy | AttackAnatomy | EpsilonCurve | AttackSanity] = [record]
    if out is None:
        records += _take_apart(measured, dataset, console)
    if curve and leads:
        found = measure_epsilon_curve(
            network,
            dataset,
            attack=options,
            norm=threat.norm,
            seed=seed,
            batch_size=batch_size,
            precision=precision,
        )
        print_curve(found, console)
        records.append(found)
    if sanity and leads:
        records.append(_check_attacks(network, dataset, threat, seed, console))
    if json_file is not None:
        write_atomically(json_file, "[" + ",\n".join(record.model_dump_json(indent=1) for record in records) + "]\n")


def _check_attacks(
    network: nn.Module, dataset: ImageDataset, threat: Threat, seed: int, console: Console
) -> AttackSanity:
    """Whether attacks on this model can be trusted, printed."""
    from assay.attacks import measure_attack_sanity
    from assay.report.terminal.attack import print_sanity
    from assay.verdict.attack_sanity import judge_attacks

    sanity = measure_attack_sanity(network, dataset, norm=threat.norm, epsilon=threat.epsilon, seed=seed)
    print_sanity(sanity, judge_attacks(sanity), console)
    return sanity


def _tell(done: Campaign, part: Shard | None) -> tuple[str, ...]:
    """What has to be said about a campaign that is not, or not yet, about every image."""
    if not done.stopped:
        return ()
    if part is None:
        return (f"ended early: valid interval {100 * done.low:.2f} to {100 * done.high:.2f} %",)
    return (f"shard {part.index}/{part.count}: {done.record.n:,} images; `assay merge` puts the shards together",)


def _take_aim(dataset: ImageDataset, target_class: str | None, *, alone: bool) -> tuple[ImageDataset, int | None]:
    """The images that can be turned into the class, and its number."""
    if target_class is None:
        return dataset, None
    if not alone:
        raise OptionError("--target", expected="a run without --out and --curve", got=repr(target_class))
    aim = find_class(target_class, dataset.classes)
    return dataset.subset((dataset.labels != aim).nonzero()[:, 0]), aim


def _take_apart(measured: RobustnessMeasurement, dataset: ImageDataset, console: Console) -> list[AttackAnatomy]:
    """What the attack did beyond how much it broke, printed; nothing where it broke nothing."""
    from assay.attacks import describe_attack
    from assay.report.terminal.attack import print_attack_anatomy

    if not bool(measured.result.broken.any()):
        return []
    anatomy = describe_attack(measured, dataset)
    print_attack_anatomy(anatomy, console)
    return [anatomy]


def find_class(text: str, classes: Sequence[str]) -> int:
    """A class by its name or its number; :class:`OptionError` otherwise."""
    if text in classes:
        return classes.index(text)
    if text.isdigit() and int(text) < len(classes):
        return int(text)
    raise OptionError("--target", expected=f"one of {', '.join(classes)}", got=repr(text))


def parse_fraction(text: str, *, where: str) -> float:
    """``8/255`` or ``0.031`` as a float; :class:`OptionError` otherwise."""
    top, slash, bottom = text.partition("/")
    try:
        return float(top) / (float(bottom) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise OptionError(where, expected="a number or a fraction such as 8/255", got=repr(text)) from None


def merge(
    folders: Annotated[
        list[Path], typer.Argument(help="The --out folders of the shards; one that they shared will do.")
    ],
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the record to this file.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write all samples to this Parquet file.", show_default=False)
    ] = None,
) -> None:
    """Put the shards of `assay attack --shard i/n --out DIR` together; each image must be there exactly once."""
    import pyarrow.parquet as pq
    from pyarrow import BufferOutputStream
    from rich.console import Console

    from assay.attacks.campaign import merge_campaign
    from assay.files import write_atomically
    from assay.report.terminal.attack import print_attack

    done = merge_campaign(folders)
    print_attack(done.record, Console())
    if table is not None:
        sink = BufferOutputStream()
        pq.write_table(done.table.replace_schema_metadata(None), sink)
        write_atomically(table, sink.getvalue().to_pybytes())
    if json_file is not None:
        write_atomically(json_file, "[" + done.record.model_dump_json(indent=1) + "]\n")
