"""``assay look``: one picture, what the model says about it, and what breaks it; what the app shows, in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import DataError, OptionError

if TYPE_CHECKING:
    from assay.views.breaking import Breakage
    from assay.views.looking import Look
    from assay.views.picture import Picture
    from assay.views.subject import Subject


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

    from assay.app.panels import describe_breakage
    from assay.cli.inputs import open_subject
    from assay.files import make_folder
    from assay.report.terminal.layout import print_line
    from assay.report.terminal.look import print_breakage, print_prediction
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
    console = Console()
    picture = _choose(subject, sample=sample, image=image, label=label, operations=apply or [])
    seen = ask(subject, picture)
    found = _attack(subject, picture, attack, norm, epsilon, steps, smallest, seed)
    name, truth = seen.picture.name, seen.picture.label
    known = "no label given" if truth is None else f"label {seen.classes[truth]}"
    print_prediction(
        f"{name}: {seen.classes[seen.prediction]}, {known}",
        list(zip(seen.classes, seen.probabilities, strict=True)),
        console,
        note=f"loss of {seen.classes[seen.target]} {seen.loss:.4g} nats, "
        f"input gradient {seen.gradient.gradient_norm:.4g}",
    )
    if found is not None:
        print_breakage(
            describe_breakage(found),
            console,
            broken=found.broken,
            norm=found.norm,
            distance=found.distance,
            survives_rounding=found.survives_rounding,
            losses=() if found.already_wrong else found.losses,
            notes=found.notes,
        )
    if out is not None:
        names = _write(seen, found, out)
        print_line(console, f"wrote {out}: {', '.join(names)}", wrap=False)


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
