"""``assay augment``: what each image operation, or a whole policy, does to pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from assay.cli.options import OF_THE_MODEL, Inputs, argument, flag, option, takes_inputs
from assay.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor


_LARGEST = 1024  # a gallery needs no more pixels, and ninety operations on a camera's file would take minutes


@takes_inputs(
    omit=(*OF_THE_MODEL, "limit", "device"),
    defaults={"split": "train"},
    helps={"data": "Samples to show it on: digits, cifar10, a folder, …"},
)
def augment(
    inputs: Inputs,
    image: Annotated[Path | None, argument("A picture file.", metavar="IMAGE")] = None,
    samples: Annotated[int, option("Data", "How many samples of the data.", metavar="N", min=1, max=64)] = 8,
    magnitude: Annotated[
        list[str] | None,
        option(
            "Operations",
            "Show this operation at this magnitude instead of the preset; may be repeated: -m rotate=45.",
            "--magnitude",
            "-m",
            metavar="NAME=VALUE",
        ),
    ] = None,
    sweep: Annotated[
        bool, flag("Operations", "Add a strip for each operation, from its least to its largest magnitude.")
    ] = True,
    policy: Annotated[
        str | None,
        option(
            "Policy",
            "Show a policy instead: randaugment, trivialaugment, autoaugment('cifar10'), or a line such as "
            '"crop(4) + flip() + rotate(-30, 30, p=0.5)".',
            metavar="POLICY",
        ),
    ] = None,
    draws: Annotated[
        int, option("Policy", "How many random draws of the policy on each sample.", metavar="N", min=1, max=20)
    ] = 7,
    out: Annotated[Path, option("Output", "Where to write: a page .html, or a picture .png.", metavar="FILE")] = Path(
        "gallery.html"
    ),
) -> None:
    """Draw what augmentation does: the twelve operations on one picture, or a policy on samples of a data set."""
    import torch
    from rich.console import Console

    from assay.augment.gallery import draw_operations, draw_policy, render_gallery
    from assay.augment.language import parse_policy
    from assay.augment.sheet import render_sheet
    from assay.cli.inputs import print_notes
    from assay.files import write_atomically

    data, seed = inputs.data, inputs.seed
    if out.suffix not in {".html", ".png"}:
        raise OptionError("--out", expected="a name that ends in .html or .png", got=out)
    if image is not None and data is not None:
        raise OptionError("--data", expected="either a picture file or a data set", got=f"{image} and {data}")
    if image is None and data is None and policy is None:
        raise OptionError("IMAGE", expected="a picture file, or --data", got="neither")
    if policy is not None and magnitude:
        raise OptionError("--magnitude", expected="no magnitudes beside --policy", got=" ".join(magnitude))
    if image is not None:
        notes: list[str] = []
        pictures, ids, names = read_picture(image, notes=notes)[None], torch.zeros(1, dtype=torch.int64), [image.name]
        print_notes(notes, Console(stderr=True))
    else:
        pictures, ids, names = _draw_samples(inputs, count=samples if policy else 1)
    if policy is None:
        chosen = parse_magnitudes(magnitude or [])
        gallery = draw_operations(pictures[0], title=names[0], magnitudes=chosen or None, sweep=sweep)
    else:
        parsed = parse_policy(policy, where="--policy")
        gallery = draw_policy(pictures, ids, names, policy=parsed, title=policy, seed=seed, draws=draws)
    write_atomically(out, render_gallery(gallery) if out.suffix == ".html" else render_sheet(gallery))
    shown = len(gallery.panels) + sum(len(strip.panels) for strip in gallery.strips) + (gallery.original is not None)
    Console().print(f"{out}: {shown} pictures", highlight=False, soft_wrap=True)


def parse_magnitudes(texts: list[str], *, where: str = "--magnitude") -> dict[str, float]:
    """``["rotate=45"]`` to ``{"Rotate": 45.0}``. Raises :class:`OptionError` naming the text that is wrong."""
    from assay.augment.operations import check_magnitude, find_operation

    magnitudes = {}
    for text in texts:
        name, equals, number = text.partition("=")
        operation = find_operation(name)
        try:
            value = float(number) if equals else 0.0
        except ValueError:
            raise OptionError(where, expected="NAME=VALUE, as in rotate=45", got=text) from None
        if operation.takes_magnitude and not equals:
            raise OptionError(where, expected=f"{name}=VALUE ({operation.unit})", got=text)
        check_magnitude(operation, value)
        magnitudes[operation.name] = value
    return magnitudes


def read_picture(path: Path, *, notes: list[str] | None = None) -> Tensor:
    """A picture file as uint8 (C, H, W), upright, grey or RGB, its longer side at most 1024 pixels.

    What had to be guessed of it, or was left out, is added to ``notes``. Raises :class:`DataError` when the file is
    missing or no picture.
    """
    import numpy as np
    import torch
    from PIL import Image

    from assay.data.decoding import UNKNOWN_FORMAT, Broken, decode_alone

    if not path.is_file():
        raise DataError(str(path), expected="a picture file", got="a folder" if path.is_dir() else "no such file")
    decoded = decode_alone(path)
    if isinstance(decoded, Broken):
        if decoded.reason == UNKNOWN_FORMAT:
            raise DataError(str(path), expected="a picture file", got="a file that is no picture")
        raise DataError(str(path), expected="a readable picture file", got=decoded.reason)
    if notes is not None:
        notes += decoded[1]
    picture = Image.fromarray(decoded[0])
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return torch.from_numpy((pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)).copy())


def _draw_samples(inputs: Inputs, *, count: int) -> tuple[Tensor, Tensor, list[str]]:
    """Images, ids and names of ``count`` samples drawn from the data."""
    import torch
    from rich.console import Console

    from assay.cli.inputs import open_data
    from assay.runtime import generator

    dataset = open_data(inputs, Console(stderr=True))
    chosen = dataset.subset(torch.randperm(len(dataset), generator=generator(inputs.seed))[:count])
    names = [f"{dataset.classes[label]} · {chosen.sample_name(i)}" for i, label in enumerate(chosen.labels.tolist())]
    return chosen.images, chosen.ids, names
