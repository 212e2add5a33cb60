"""``assay look``: one picture, what the model predicts, and attacks on it: what the app shows, in a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from assay.cli.options import Epsilon, Inputs, Norm, flag, option, takes_inputs
from assay.errors import DataError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from assay.views.attack import PictureAttack
    from assay.views.context import ViewContext
    from assay.views.explanation import PictureMap
    from assay.views.picture import Picture, Prediction


@takes_inputs(helps={"seed": "Seed of the attack; that of a random model is always 0."})
def look(
    inputs: Inputs,
    sample: Annotated[
        str | None, option("Picture", "The sample with this id, or with its name in a report.", metavar="ID")
    ] = None,
    image: Annotated[Path | None, option("Picture", "A picture file instead of a sample.", metavar="FILE")] = None,
    label: Annotated[
        str | None,
        option(
            "Picture", "The class it shows. (default: the sample's; for a file the predicted class)", metavar="CLASS"
        ),
    ] = None,
    operations: Annotated[
        list[str] | None,
        option(
            "Picture",
            "Apply an image operation first, as in rotate=20; may be repeated.",
            "--apply",
            metavar="NAME=VALUE",
        ),
    ] = None,
    attack: Annotated[
        str | None, option("Attack", "Attack it: pgd, fgsm, …; an unknown name lists all.", metavar="NAME")
    ] = None,
    norm: Norm = "linf",
    epsilon: Epsilon = "8/255",
    steps: Annotated[
        int | None, option("Attack", "Number of steps: 10 of an attack, 60 of --smallest.", metavar="N", min=1)
    ] = None,
    smallest: Annotated[
        bool, flag("Attack", "Search for the smallest adversarial perturbation instead.", "--smallest")
    ] = False,
    explain: Annotated[
        str | None,
        option(
            "Picture",
            "Map what the prediction rests on: gradient, integrated-gradients, smoothgrad or grad-cam.",
            "--map",
            metavar="NAME",
        ),
    ] = None,
    out: Annotated[Path | None, option("Output", "Write the pictures (PNG) to this folder.", metavar="DIR")] = None,
) -> None:
    """Show the prediction of one picture: probabilities, what they rest on, and an attack on it.

    Every view of `assay app` prints the command of this verb that shows the same.
    """
    from rich.console import Console

    from assay.cli.attack import parse_epsilon
    from assay.cli.inputs import open_view, print_notes
    from assay.files import make_folder
    from assay.report.terminal.layout import print_line
    from assay.views.attack import SEARCH_STEPS, AttackChoice, attack_picture, find_smallest_perturbation
    from assay.views.context import NO_LIMITS
    from assay.views.explanation import explain_picture, parse_method
    from assay.views.picture import predict_picture

    if (sample is None) == (image is None):
        raise OptionError("--sample", expected="either a sample or --image", got="both" if sample else "neither")
    radius = parse_epsilon(epsilon, norm=norm)
    if attack is not None and smallest:
        raise OptionError("--smallest", expected="either an attack or the smallest change", got=f"both, {attack}")
    method = None if explain is None else parse_method(explain)
    if out is not None:
        make_folder(out)
    context = open_view(inputs, Console(stderr=True))
    console = Console()
    picture = _choose(context, sample=sample, image=image, label=label, operations=operations or [])
    print_notes(picture.notes, Console(stderr=True))
    prediction = predict_picture(context, picture)
    values = {"attack": attack or "pgd", "norm": norm, "epsilon": radius}
    choice = AttackChoice.parse({**values, "steps": steps or 10, "seed": inputs.seed})
    explanation = None if method is None else explain_picture(context, picture, method)
    attacked = None
    if smallest:
        most = steps or SEARCH_STEPS
        attacked = find_smallest_perturbation(context, picture, norm=choice.norm, steps=most, limits=NO_LIMITS)
    elif attack is not None:
        attacked = attack_picture(context, picture, choice, limits=NO_LIMITS)
    _print(prediction, attacked, console)
    if explanation is not None:
        print_line(console, explanation.finding, wrap=False)
        if explanation.layer is not None:
            print_line(console, f"the feature map is that of {explanation.layer}")
    if out is not None:
        names = _write(prediction, attacked, explanation, out)
        print_line(console, f"wrote {out}: {', '.join(names)}", wrap=False)


def _choose(
    context: ViewContext, *, sample: str | None, image: Path | None, label: str | None, operations: list[str]
) -> Picture:
    from assay.cli.augment import parse_magnitudes
    from assay.views.picture import apply_operations, pick_sample, read_picture

    if image is None:
        picture = pick_sample(context.dataset, sample or "")
    else:
        try:
            content = image.read_bytes()
        except OSError as error:
            raise DataError(str(image), expected="a picture file", got=error.strerror or error) from None
        data = context.dataset
        picture = read_picture(content, name=image.name, shape=data.shape, preparation=data.preparation)
    if label is not None:
        if label not in context.classes:
            raise OptionError("--label", expected=f"one of {', '.join(context.classes[:20])}", got=repr(label))
        picture = picture.with_label(context.classes.index(label), name=label)
    return apply_operations(picture, parse_magnitudes(operations, where="--apply"))


def _print(prediction: Prediction, attacked: PictureAttack | None, console: Console) -> None:
    from assay.report.terminal.attack import print_picture_attack, print_prediction

    classes, label = prediction.classes, prediction.picture.label
    truth = "no label given" if label is None else f"label {classes[label]}"
    print_prediction(
        f"{prediction.picture.name}: {classes[prediction.predicted]}, {truth}",
        list(zip(classes, prediction.probabilities, strict=True)),
        console,
        note=f"cross-entropy of {classes[prediction.label]} {prediction.loss:.4g} nats, "
        f"norm of the input gradient {prediction.gradient.gradient_norm:.4g}",
    )
    if attacked is not None:
        print_picture_attack(
            attacked.headline,
            console,
            success=attacked.success,
            norm=attacked.norm,
            moved=attacked.moved,
            survives_rounding=attacked.survives_rounding,
            losses=() if attacked.misclassified else attacked.losses,
            notes=attacked.notes,
        )


def _write(
    prediction: Prediction, attacked: PictureAttack | None, explanation: PictureMap | None, out: Path
) -> list[str]:
    import base64

    from assay.data.pictures import png_base64, to_bytes
    from assay.files import write_atomically
    from assay.wording import picture_type

    maps = {"gradient": prediction.gradient.gradient_map}
    if explanation is not None:
        maps["map"] = explanation.map
    pictures = {"picture.png": png_base64(prediction.picture.image)}
    for name, encoded in maps.items():  # of a large picture a JPEG file
        pictures[f"{name}.{picture_type(encoded).replace('jpeg', 'jpg')}"] = encoded
    if attacked is not None:
        pictures["change.png"] = png_base64(to_bytes(attacked.perturbation))
        pictures["after.png"] = png_base64(to_bytes(attacked.adversarial))
    for name, encoded in pictures.items():
        write_atomically(out / name, base64.b64decode(encoded))
    return list(pictures)
