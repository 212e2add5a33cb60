"""The arguments and options that several verbs share, worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Argument(
        help="A run folder, an architecture (resnet20, allcnn, …), torchvision:NAME, timm:NAME, "
        "path/to/file.py:factory, or package.module:factory.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Weights for the architecture: .safetensors, or a checkpoint that loads with weights_only.",
        show_default=False,
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="digits, cifar10, mnist, fashion-mnist, a folder of class folders, "
        "*.parquet, *.npz, IDX files, or hf:owner/name."
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Where named data sets are looked for first; then $ASSAY_DATA, then the cache.", show_default=False
    ),
]
Split = Annotated[str, typer.Option(help="The part of the data to use: test or train.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Use only the first N samples.", show_default=False)]
MaxBad = Annotated[int, typer.Option(min=0, help="Skip up to this many broken images; each is named.")]
Seed = Annotated[int, typer.Option(help="Every random choice follows from this number.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
ImageSize = Annotated[
    int | None,
    typer.Option(min=1, help="Resize the short side to this, then crop the centre.", show_default=False),
]
Normalization = Annotated[
    str | None,
    typer.Option(
        help="Of an architecture of ours: imagenet (the default for colour), cifar10, none, or m1,m2,m3/s1,s2,s3.",
        show_default=False,
    ),
]
BaselineFile = Annotated[
    Path | None,
    typer.Option(
        "--baseline", help="Accepted findings (see `assay accept`): shown, but they do not fail.", show_default=False
    ),
]
