"""``assay look``: one picture, what the model says about it, and what breaks it; what the app shows, in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import wording
from assay.cli import inputs as arg
from assay.errors import DataError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.views.breaking import Breakage
    from assay.views.looking import Look
    from assay.views.picture import Picture
    from assay.views.subject import Subject

SHOWN = 5


def look(
    model: Annotated[
        str | None,
        typer.Argument(
            help="As for `assay check`. Without one, a small network is trained on the digits first.",
            show_default=False,
        ),
    ] = None,
    weights: arg.Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="digits, cifar10, a folder, *.parquet, *.npz, … A run folder brings its own.", show_default=False
        ),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(help="The sample with this id, or with the name that a report calls it by.", show_default=False),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture file instead of a sample.", show_default=False)] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="The class it shows. [default: the sample's; for a file the model's answer]", show_default=False
        ),
    ] = None,
    apply: Annotated[
        list[str] | None,
        typer.Option(
            "--apply",
            metavar="NAME=VALUE",
            help="Change the picture first, as in rotate=20; may be repeated.",
            show_default=False,
        ),
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help="Attack it: an unknown name lists what there is.", show_default=False)
    ] = None,
    norm: Annotated[str, typer.Option(help="The size of a change: linf, l2 or l1.")] = "linf",
    epsilon: Annotated[str, typer.Option(help="The largest change, in pixels of [0, 1]: 8/255 or 0.031.")] = "8/255",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Steps: 10 of an attack, 60 of --smallest.", show_default=False)
    ] = None,
    smallest: Annotated[bool, typer.Option("--smallest", help="Find the smallest change that breaks it.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the pictures (PNG) to this folder.", show_default=False)
    ] = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    seed: arg.Seed = 0,
    device: arg.Device = "auto",
) -> None:
    """Look at one picture: probabilities, the input gradient, and, when asked, an attack on it.

    Every view of `assay app` prints the command of this verb that shows the same.
    """
    from rich.console import Console

    from assay.cli.inputs import open_subject
    from assay.files import make_folder
    from assay.views.looking import look as ask

    if (sample is None) == (image is None):
        raise OptionError("--sample", expected="either a sample or --image", got="both" if sample else "neither")
    if attack is not None and smallest:
        raise OptionError("--smallest", expected="either an attack or the smallest change", got=f"both, {attack}")
    if out is not None:
        make_folder(out)
    subject = open_subject(
        model,
        weights=weights,
        data=data,
        data_dir=data_dir,
        split=split,
        limit=None,
        normalization=normalization,
        image_size=image_size,
        max_bad=0,
        device=device,
        console=Console(stderr=True),
    )
    console = Console(highlight=False)
    picture = _choose(subject, sample=sample, image=image, label=label, operations=apply or [])
    seen = ask(subject, picture)
    found = _attack(subject, picture, attack, norm, epsilon, steps, smallest, seed)
    _print_look(seen, console)
    if found is not None:
        _print_breakage(found, console)
    if out is not None:
        names = _write(seen, found, out)
        console.print(f"wrote {out}: {', '.join(names)}", markup=False, soft_wrap=True)


def _choose(
    subject: Subject, *, sample: str | None, image: Path | None, label: str | None, operations: list[str]
) -> Picture:
    from assay.cli.augment import parse_magnitudes
    from assay.views.picture import alter, pick_sample, read_picture

    if image is None:
        picture = pick_sample(subject.dataset, sample or "")
    else:
        try:
            content = image.read_bytes()
        except OSError as error:
            raise DataError(str(image), expected="a picture file", got=error.strerror or error) from None
        picture = read_picture(content, name=image.name, shape=subject.dataset.shape)
    if label is not None:
        if label not in subject.classes:
            raise OptionError("--label", expected=f"one of {', '.join(subject.classes[:20])}", got=repr(label))
        picture = picture.under(subject.classes.index(label), name=label)
    return alter(picture, parse_magnitudes(operations, where="--apply"))


def _attack(
    subject: Subject,
    picture: Picture,
    attack: str | None,
    norm: str,
    epsilon: str,
    steps: int | None,
    smallest: bool,
    seed: int,
) -> Breakage | None:
    from assay.cli.attack import parse_fraction
    from assay.views.breaking import SEARCH_STEPS, AttackChoice, break_picture, find_smallest
    from assay.views.subject import Limits

    patient = Limits(steps=10_000, seconds=1e6)  # whoever waits at a terminal may wait as long as it takes
    size = parse_fraction(epsilon, where="--epsilon")
    choice = AttackChoice.parse(
        {"attack": attack or "pgd", "norm": norm, "epsilon": size, "steps": steps or 10, "seed": seed}
    )
    if smallest:
        return find_smallest(subject, picture, norm=choice.norm, steps=steps or SEARCH_STEPS, limits=patient)
    return None if attack is None else break_picture(subject, picture, choice, limits=patient)


def _print_look(seen: Look, console: Console) -> None:
    from rich.table import Table

    label = seen.picture.label
    truth = "no label given" if label is None else f"label {seen.classes[label]}"
    console.print(f"{seen.picture.name}: {seen.classes[seen.prediction]}, {truth}", style="bold", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    order = sorted(range(len(seen.classes)), key=lambda i: -seen.probabilities[i])[:SHOWN]
    for i in order:
        bar = "█" * round(30 * seen.probabilities[i])
        table.add_row(_text(seen.classes[i]), f"{100 * seen.probabilities[i]:.2f} %", f"[blue]{bar}[/blue]")
    console.print(table)
    console.print(
        f"loss of {seen.classes[seen.target]} {seen.loss:.4g} nats, input gradient {seen.gradient.gradient_norm:.4g}",
        markup=False,
    )


def _print_breakage(found: Breakage, console: Console) -> None:
    from rich.table import Table

    from assay.app.panels import describe_breakage

    colour = "red" if found.broken else "green"
    console.print(describe_breakage(found), style=f"bold {colour}", markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    if found.distance is not None:
        rounded = "still breaks it" if found.survives_rounding else "no longer breaks it"
        distance = f"{wording.norm(found.norm)} distance {wording.distance(found.distance, found.norm)}"
        console.print(f"{distance}; as an 8-bit file it {rounded}", markup=False)
    if len(found.losses) > 1 and not found.already_wrong:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("step", justify="right")
        table.add_column("loss", justify="right")
        last = len(found.losses) - 1
        for step in sorted({round(i * last / min(last, 10)) for i in range(min(last, 10) + 1)}):
            table.add_row(str(step), f"{found.losses[step]:.4f}")
        console.print(table)


def _text(name: str) -> str:
    from rich.markup import escape

    return escape(name)


def _write(seen: Look, found: Breakage | None, out: Path) -> list[str]:
    import base64

    from assay.data.pictures import png_base64, to_bytes
    from assay.files import write_atomically

    pictures = {"picture.png": png_base64(seen.picture.image), "gradient.png": seen.gradient.gradient_map}
    if found is not None:
        pictures["change.png"] = png_base64(to_bytes(found.perturbation))
        pictures["after.png"] = png_base64(to_bytes(found.adversarial))
    for name, encoded in pictures.items():
        write_atomically(out / name, base64.b64decode(encoded))
    return list(pictures)
