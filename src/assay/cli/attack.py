"""``assay attack``: accuracy under attack, the loss after each step, and whether the attack can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli.memory import Memory, parse_size
from assay.cli.options import Epsilon, Inputs, Norm, Resume, argument, flag, option, takes_inputs
from assay.cli.within import Within, parse_duration
from assay.errors import COULD_NOT_RUN, OptionError, UnusedOptionError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from assay.attacks.campaign import Campaign
    from assay.attacks.engine import OnStep
    from assay.attacks.options import AttackOptions
    from assay.attacks.threat import Threat
    from assay.data.dataset import ImageDataset
    from assay.records.base import Record
    from assay.runtime.sharding import BlockShard

LEVELS = 255  # an L∞ size up to it, and above 1, was meant in grey levels
DEFAULT_EPSILON = "8/255"
DEFAULT_BLOCK = 500
SANITY_SAMPLES = 100


@takes_inputs()
def attack(
    context: typer.Context,
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
    within: Within = None,
    memory: Memory = None,
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

    from assay.attacks import show_attack_options
    from assay.attacks.threat import Threat
    from assay.cli.attack_plan import ATTACK, CURVE, SANITY
    from assay.cli.inputs import open_inputs
    from assay.cli.progress import AttackProgress
    from assay.files import write_atomically
    from assay.runtime.memory import batch_memory, tell_halvings

    options = _parse_options(
        name, {"steps": steps, "step_size": step_size, "restarts": restarts, "loss": loss}, sets or ()
    )
    if show:
        typer.echo(show_attack_options(options))
        return
    threat = Threat(norm=norm, epsilon=parse_epsilon(epsilon, norm=norm))  # type: ignore[arg-type]
    _check_uses_epsilon(options, {"--epsilon": epsilon != DEFAULT_EPSILON, "--curve": curve})
    part, shares_folder = _find_shard(shard, block=block, seed=inputs.seed)
    time_given, most_memory = None if within is None else parse_duration(within), parse_size(memory)
    in_parts = (resume, stop_at is not None, part is not None, block != DEFAULT_BLOCK)
    _check_folder(out, needed=any(in_parts), planned=within is not None)
    leads = part is None or part.index == 0
    console, errors = Console(), Console(stderr=True, quiet=not leads)
    opened = open_inputs(inputs, errors, shard=part)
    room = context.with_resource(batch_memory(most_memory))
    dataset, target = _choose_target(opened.dataset, target_class, single=out is None and not curve)
    common: dict[str, Any] = {
        "attack": options, "norm": threat.norm, "seed": inputs.seed, "batch_size": batch_size, "precision": precision,
    }  # fmt: skip
    eot: dict[str, Any] = {"epsilon": threat.epsilon, "eot_samples": average or eot_samples}
    beside = _Beside(opened.model, dataset, threat, common)
    wanted = {CURVE: (curve, beside.measure_curve), SANITY: (sanity, beside.measure_sanity)}
    measures = {name: measure for name, (is_wanted, measure) in wanted.items() if is_wanted}
    given = {ATTACK: len(dataset), CURVE: len(dataset), SANITY: SANITY_SAMPLES}
    if out is None:
        once = _Attack(opened.model, dataset, {"target_class": target, **common, **eot})
        more: list[Record] = []
        if time_given is not None:
            n, more = _plan(once, measures, given, errors, within=time_given)
            given, measures = {ATTACK: n}, {}
        with AttackProgress(errors) as progress:
            records, notes = once.run(given[ATTACK], progress.show)
    else:
        settings: dict[str, Any] = {"folder": out, "stop_at": stop_at, "resume": resume, "block": block}
        campaign = _attack_in_parts(
            opened.model, dataset, part, errors, shared=shares_folder, **settings, **common, **eot
        )
        if campaign is None:
            return
        records, notes, more = [campaign.record], _campaign_notes(campaign, part), []
    notes = tuple(n for n in notes if not any(known.startswith(n) for known in opened.notes))
    _print_records(records, console, notes=(*notes, *filter(None, [tell_halvings(room.halvings)])))
    for record in (*more, *(_measure_beside(measures, given) if leads else ())):
        _print_records([record], console)
        records.append(record)
    if json_file is not None:
        write_atomically(json_file, "[" + ",\n".join(record.model_dump_json(indent=1) for record in records) + "]\n")
    if _print_failures(records, errors):
        raise typer.Exit(COULD_NOT_RUN)


def _check_folder(out: Path | None, *, needed: bool, planned: bool) -> None:
    """Raise :class:`OptionError` for a folder of results that is missing, or that a plan has no use for."""
    if out is not None and planned:
        raise OptionError("--within", expected="a run without --out, which --stop-at ends early", got="both")
    if out is None and needed:
        raise OptionError("--out", expected="a folder to keep the results in", got="nothing")


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


def _plan(
    attack: _Attack,
    measures: Mapping[str, Callable[[int], Record]],
    most: Mapping[str, int],
    console: Console,
    *,
    within: float,
) -> tuple[int, list[Record]]:
    """Images for the attack, and what is measured beside it: that comes first, so that the attack takes the rest."""
    from assay.cli.attack_plan import ATTACK, plan_attack, print_attack_plan

    largest = {name: min(n, len(attack.dataset)) for name, n in most.items()}
    plan = plan_attack({ATTACK: attack.run, **measures}, largest, within=within)
    print_attack_plan(plan, given := plan.give(), console)
    records = list(_measure_beside(measures, given))
    return plan.give_attack(attack.run), records


def _print_records(records: Sequence[Record], console: Console, *, notes: Sequence[str] = ()) -> None:
    """Each as it is read best, the ``notes`` with the accuracy under attack."""
    from assay.records.attack import AttackAnatomy, AttackSanity, EpsilonCurve, RobustAccuracy
    from assay.report.terminal.attack import print_attack, print_attack_anatomy, print_curve, print_sanity
    from assay.verdict.attack_sanity import judge_attacks

    for record in records:
        if isinstance(record, RobustAccuracy):
            print_attack(record, console, notes=notes)
        if isinstance(record, AttackAnatomy):
            print_attack_anatomy(record, console)
        if isinstance(record, EpsilonCurve):
            print_curve(record, console)
        if isinstance(record, AttackSanity):
            print_sanity(record, judge_attacks(record), console)


def _attack_in_parts(
    network: nn.Module,
    dataset: ImageDataset,
    part: BlockShard | None,
    console: Console,
    *,
    shared: bool,
    block: int,
    **options: Any,
) -> Campaign | None:
    """The campaign in its folder; of one that processes share the leader has all parts, and the others None."""
    from assay.attacks.campaign import await_parts, merge_campaign, run_campaign
    from assay.cli.progress import AttackProgress

    if part is not None and dataset.part is not None:
        block = part.block_size(dataset.part.n)
    with AttackProgress(console) as progress:
        campaign = run_campaign(network, dataset, block=block, shard=part, on_step=progress.show, **options)
        if not shared:
            return campaign
        if part is not None and part.index > 0:
            return None
        await_parts(options["folder"])
        return merge_campaign([options["folder"]])


@dataclass(frozen=True, eq=False)
class _Attack:
    """The attack on a part of ``dataset``, which stays in memory."""

    network: nn.Module
    dataset: ImageDataset
    options: Mapping[str, Any]

    def run(self, n: int, on_step: OnStep | None = None) -> tuple[list[Record], tuple[str, ...]]:
        """On ``n`` images: the accuracy, and where some broke what they turned into; and the notes on it."""
        from assay.attacks import describe_attack, measure_robust_accuracy
        from assay.data.selection import fair_sample

        part = fair_sample(self.dataset, n)
        measured = measure_robust_accuracy(self.network, part, on_step=on_step, **self.options)
        records: list[Record] = [measured.record]
        if bool(measured.result.broken.any()):
            records.append(describe_attack(measured, part))
        return records, measured.result.notes


@dataclass(frozen=True, eq=False)
class _Beside:
    """What is measured beside an attack: accuracy against epsilon, and whether attacks on this model can be trusted."""

    network: nn.Module
    dataset: ImageDataset
    threat: Threat
    common: Mapping[str, Any]

    def measure_curve(self, n: int) -> Record:
        from assay.attacks import measure_epsilon_curve

        return measure_epsilon_curve(self.network, self._sample(n), **self.common)

    def measure_sanity(self, n: int) -> Record:
        from assay.attacks import measure_attack_sanity

        ball: dict[str, Any] = {"norm": self.threat.norm, "epsilon": self.threat.epsilon, "seed": self.common["seed"]}
        return measure_attack_sanity(self.network, self._sample(n), n=n, **ball)

    def _sample(self, n: int) -> ImageDataset:
        """``n`` samples of the whole set, of which the data may be a shard; all where that is what the data have."""
        from assay.data.selection import sample_of_whole

        return sample_of_whole(self.dataset, None if n == len(self.dataset) else n)


def _measure_beside(measures: Mapping[str, Callable[[int], Record]], given: Mapping[str, int]) -> Iterator[Record]:
    """Each of ``measures`` on the images that it is given, or why there is none."""
    from assay.check.attempt import attempt
    from assay.records.failure import FailedMeasurement

    for name, measure in measures.items():
        if given[name] == 0:
            reason = "no time for as many images as tell something"
            yield FailedMeasurement(
                stage="attack", measurement=name, missing=(), reason=reason, way_out="Give more time (--within)."
            )
            continue
        yield from attempt(partial(_one, measure, given[name]), stage="attack", name=name, raises=(OptionError,))


def _one(measure: Callable[[int], Record], n: int) -> Iterator[Record]:
    yield measure(n)


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


def parse_epsilon(text: str, *, norm: str) -> float:
    """``--epsilon`` in pixels of [0, 1]; under L∞ :class:`OptionError` beyond the range of a pixel, 1."""
    value = parse_fraction(text, where="--epsilon")
    if norm == "linf" and value > 1:
        hint = f": did you mean {value:g}/255?" if value <= LEVELS else ""
        raise OptionError("--epsilon", expected=f"at most 1 under L∞, the range of a pixel{hint}", got=text)
    return value


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
