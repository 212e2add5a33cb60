"""``assay attack``: accuracy under attack, the loss after each step, and whether the attack can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.options import Epsilon, Inputs, Norm, Resume, argument, flag, option, takes_inputs
from assay.errors import COULD_NOT_RUN, OptionError, UnusedOptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from assay.attacks.campaign import Campaign
    from assay.attacks.options import AttackOptions
    from assay.attacks.threat import Threat
    from assay.data.dataset import ImageDataset
    from assay.records.base import Record
    from assay.runtime.sharding import BlockShard

DEFAULT_EPSILON = "8/255"
DEFAULT_BLOCK = 500
SANITY_SAMPLES = 100


@takes_inputs()
def attack(
    inputs: Inputs,
    name: Annotated[
        str, option("Attack", "The attack; an unknown name lists all.", "--attack", metavar="NAME")
    ] = "pgd",
    norm: Norm = "linf",
    epsilon: Epsilon = DEFAULT_EPSILON,
    steps: Annotated[int | None, option("Attack", "Number of steps.", metavar="N")] = None,
    step_size: Annotated[
        str | None, option("Attack", "Length of a step, in pixels of [0, 1]: 2/255.", metavar="PIXELS")
    ] = None,
    restarts: Annotated[int | None, option("Attack", "Number of random starting points.", metavar="N")] = None,
    loss: Annotated[
        str | None, option("Attack", "Objective to maximise: ce, margin, dlr or probability-margin.", metavar="NAME")
    ] = None,
    target_class: Annotated[
        str | None,
        option(
            "Attack",
            "Targeted attack: only images classified as this class (name or number) count as broken.",
            "--target",
            metavar="CLASS",
        ),
    ] = None,
    eot_samples: Annotated[
        int,
        option(
            "Attack",
            "Forward passes averaged into one gradient (expectation over transformation), for a randomised model.",
            metavar="N",
            min=1,
        ),
    ] = 1,
    average: Annotated[
        int | None, option("Attack", "The former name of --eot-samples.", metavar="N", hidden=True, min=1)
    ] = None,
    sets: Annotated[
        list[str] | None,
        option("Attack", "Set any option of the attack (see --show); may be repeated.", "--set", metavar="FIELD=VALUE"),
    ] = None,
    show: Annotated[
        bool, flag("Attack", "Print every option of the attack with value, type and meaning, and end.", "--show")
    ] = False,
    curve: Annotated[bool, flag("Measurements", "Also measure accuracy against epsilon.", "--curve")] = False,
    sanity: Annotated[bool, flag("Measurements", "Also check whether attacks on this model can be trusted.")] = True,
    json_file: Annotated[
        Path | None, option("Output", "Write the records to this file.", "--json", metavar="FILE")
    ] = None,
    out: Annotated[
        Path | None,
        option(
            "Output", "Folder for the result of every sample, as Parquet parts written as they come.", metavar="DIR"
        ),
    ] = None,
    block: Annotated[int, option("Output", "With --out: images a part.", metavar="N", min=1)] = DEFAULT_BLOCK,
    stop_at: Annotated[
        float | None,
        option("Run", "With --out: end when the 95 % interval is ± this narrow, such as 0.01.", metavar="FRACTION"),
    ] = None,
    resume: Resume = False,
    shard: Annotated[
        str | None,
        option(
            "Run",
            "With --out: read and attack the i-th of n shards only, as i/n with i from 0; then `assay merge`.",
            metavar="I/N",
        ),
    ] = None,
    precision: Annotated[
        str,
        option("Run", "Of the search: float32, bfloat16, or auto. Successes are verified in float32.", metavar="DTYPE"),
    ] = "auto",
    batch_size: Annotated[int, option("Run", "Images under attack at one time.", metavar="N", min=1)] = 256,
) -> None:
    """Attack a model and measure its robust accuracy.

    Every adversarial example is clipped, checked against the ball in float64, and verified by the unchanged model.

    Under torchrun, with --out, the processes share the images and the first one merges the results.
    """
    from rich.console import Console

    from assay.attacks import describe_attack, measure_robust_accuracy, show_attack_options
    from assay.attacks.campaign import await_parts, merge_campaign, run_campaign
    from assay.attacks.threat import Threat
    from assay.cli.inputs import open_inputs
    from assay.files import write_atomically
    from assay.report.terminal.attack import AttackProgress, print_attack, print_attack_anatomy

    shorthands = {"steps": steps, "step_size": step_size, "restarts": restarts, "loss": loss}
    options = _parse_options(name, shorthands, sets or ())
    if show:
        typer.echo(show_attack_options(options))
        return
    threat = Threat(norm=norm, epsilon=parse_fraction(epsilon, where="--epsilon"))  # type: ignore[arg-type]
    _check_uses_epsilon(options, {"--epsilon": epsilon != DEFAULT_EPSILON, "--curve": curve})
    part, shares_folder = _find_shard(shard, block=block, seed=inputs.seed)
    if out is None and (resume or stop_at is not None or part is not None or block != DEFAULT_BLOCK):
        raise OptionError("--out", expected="a folder to keep the results in", got="nothing")
    leads = part is None or part.index == 0
    errors = Console(stderr=True, quiet=not leads)
    opened = open_inputs(inputs, errors, shard=part)
    network = opened.model
    dataset, target = _choose_target(opened.dataset, target_class, single=out is None and not curve)
    common: dict[str, Any] = {
        "attack": options, "norm": threat.norm, "seed": inputs.seed, "batch_size": batch_size, "precision": precision,
    }  # fmt: skip
    eot: dict[str, Any] = {"epsilon": threat.epsilon, "eot_samples": average or eot_samples}
    console = Console()
    with AttackProgress(errors) as progress:
        if out is None:
            measured = measure_robust_accuracy(
                network, dataset, target_class=target, on_step=progress.show, **common, **eot
            )
            notes, record = measured.result.notes, measured.record
        else:
            campaign = run_campaign(
                network,
                dataset,
                folder=out,
                block=part.block_size(dataset.part.n) if part is not None and dataset.part is not None else block,
                stop_at=stop_at,
                resume=resume,
                shard=part,
                on_step=progress.show,
                **common,
                **eot,
            )
            if shares_folder:
                if not leads:
                    return
                await_parts(out)
                campaign = merge_campaign([out])
            notes, record = _campaign_notes(campaign, part), campaign.record
    print_attack(
        record, console, notes=[note for note in notes if not any(known.startswith(note) for known in opened.notes)]
    )
    records: list[Record] = [record]
    if out is None and bool(measured.result.broken.any()):
        records.append(anatomy := describe_attack(measured, dataset))  # the classes predicted, how visible it is
        print_attack_anatomy(anatomy, console)
    if leads:
        records += _measure_more(opened.model, dataset, threat, common, console, curve=curve, sanity=sanity)
    if json_file is not None:
        write_atomically(json_file, "[" + ",\n".join(record.model_dump_json(indent=1) for record in records) + "]\n")
    if _print_failures(records, errors):
        raise typer.Exit(COULD_NOT_RUN)


def _find_shard(text: str | None, *, block: int, seed: int) -> tuple[BlockShard | None, bool]:
    """The shard that ``text`` names, else this process's under torchrun, whose processes share the folder."""
    from assay.runtime.sharding import BlockShard, Shard

    shard = Shard.of_torchrun() if text is None else Shard.parse(text)
    if shard is None:
        return None, False
    return BlockShard(shard.index, shard.count, block=block, seed=seed), text is None


def _print_failures(records: Sequence[Record], console: Console) -> int:
    """What could not be measured, and how much of it there is."""
    from assay.records.failure import FailedMeasurement
    from assay.report.terminal.layout import STYLES, print_line

    failures = [record for record in records if isinstance(record, FailedMeasurement)]
    for failure in failures:
        line = f"could not run: {failure.measurement}: {failure.reason}. {failure.way_out}"
        print_line(console, line, STYLES["could not run"])
    return len(failures)


def _parse_options(name: str, shorthands: Mapping[str, object], sets: Sequence[str]) -> AttackOptions:
    """The options from the shorthands that were given and from ``--set``, which overrides them."""
    from assay.attacks import parse_attack_options

    given = {f"--set {field}": f"{field}={value}" for field, value in shorthands.items() if value is not None}
    try:
        return parse_attack_options(name, [*given.values(), *sets])
    except OptionError as error:
        if error.where not in given:
            raise
        flag_name = error.where.replace("set ", "").replace("_", "-")  # name the option that was used
        raise OptionError(flag_name, expected=error.expected, got=error.got) from None


def _check_uses_epsilon(options: AttackOptions, given: Mapping[str, bool]) -> None:
    """Raise :class:`UnusedOptionError` for a flag that was given to an attack without a ball."""
    for flag_name in (flag_name for flag_name, is_given in given.items() if is_given and not options.uses_epsilon):
        raise UnusedOptionError(flag_name, reason=f"{options.name} does not depend on epsilon")


def _measure_more(
    network: nn.Module,
    dataset: ImageDataset,
    threat: Threat,
    common: Mapping[str, Any],
    console: Console,
    *,
    curve: bool,
    sanity: bool,
) -> Iterator[Record]:
    """Accuracy against epsilon, and whether attacks on this model can be trusted; each printed, or why it failed."""
    from assay.attacks import measure_attack_sanity, measure_epsilon_curve
    from assay.check.attempt import attempt
    from assay.data.selection import sample_of_whole
    from assay.report.terminal.attack import print_curve, print_sanity
    from assay.verdict.attack_sanity import judge_attacks

    def measure_curve() -> Iterator[Record]:
        measured = measure_epsilon_curve(network, sample_of_whole(dataset), **common)
        print_curve(measured, console)
        yield measured

    def measure_sanity() -> Iterator[Record]:
        sample = sample_of_whole(dataset, SANITY_SAMPLES)
        ball: dict[str, Any] = {"norm": threat.norm, "epsilon": threat.epsilon, "seed": common["seed"]}
        checked = measure_attack_sanity(network, sample, n=SANITY_SAMPLES, **ball)
        print_sanity(checked, judge_attacks(checked), console)
        yield checked

    if curve:
        yield from attempt(measure_curve, stage="attack", name="accuracy against epsilon", raises=(OptionError,))
    if sanity:
        yield from attempt(measure_sanity, stage="attack", name="attack sanity", raises=(OptionError,))


def _campaign_notes(campaign: Campaign, part: BlockShard | None) -> tuple[str, ...]:
    """What is to be known of a campaign that is not, or not yet, about every image."""
    if not campaign.stopped:
        return ()
    if part is None:
        return (f"ended early: valid interval {100 * campaign.low:.2f} to {100 * campaign.high:.2f} %",)
    images = f"{campaign.record.n:,} images"
    return (f"shard {part.index}/{part.count}: {images}; `assay merge` puts the shards together",)


def _choose_target(dataset: ImageDataset, target_class: str | None, *, single: bool) -> tuple[ImageDataset, int | None]:
    """The images of other classes than the target, and its number."""
    if target_class is None:
        return dataset, None
    if not single:
        raise OptionError("--target", expected="a run without --out and --curve", got=repr(target_class))
    target = find_class(target_class, dataset.classes)
    return dataset.subset((dataset.labels != target).nonzero()[:, 0]), target


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
        list[Path], argument("The --out folders of the shards, or the one that they share.", metavar="DIR")
    ],
    json_file: Annotated[
        Path | None, option("Output", "Write the record to this file.", "--json", metavar="FILE")
    ] = None,
    table: Annotated[Path | None, option("Output", "Write all samples to this Parquet file.", metavar="FILE")] = None,
) -> None:
    """Put the shards of `assay attack --shard i/n --out DIR` together; each image must be there exactly once."""
    import pyarrow.parquet as pq
    from pyarrow import BufferOutputStream
    from rich.console import Console

    from assay.attacks.campaign import merge_campaign
    from assay.files import write_atomically
    from assay.report.terminal.attack import print_attack

    campaign = merge_campaign(folders)
    print_attack(campaign.record, Console())
    if table is not None:
        sink = BufferOutputStream()
        pq.write_table(campaign.table.replace_schema_metadata(None), sink)
        write_atomically(table, sink.getvalue().to_pybytes())
    if json_file is not None:
        write_atomically(json_file, "[" + campaign.record.model_dump_json(indent=1) + "]\n")
