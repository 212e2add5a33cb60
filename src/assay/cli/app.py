"""``assay app``: look at one picture after the other in a browser, on this machine only."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli import inputs as arg
from assay.errors import DependencyError


def app(
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
            help="The images to look at: digits, cifar10, a folder, *.parquet, *.npz, … A run folder brings its own.",
            show_default=False,
        ),
    ] = None,
    data_dir: arg.DataDir = None,
    split: arg.Split = "test",
    limit: arg.Limit = None,
    port: Annotated[
        int | None, typer.Option(help="Of 127.0.0.1. [default: the first free one from 7860]", show_default=False)
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
    normalization: arg.Normalization = None,
    image_size: arg.ImageSize = None,
    max_bad: arg.MaxBad = 0,
    device: arg.Device = "auto",
) -> None:
    """Open the app: change a picture, attack it, find the smallest change that breaks it; ranks; recurrences.

    It answers this machine only and asks nothing of any other. Ctrl-C ends it.
    """
    from importlib.util import find_spec

    from rich.console import Console

    from assay.cli.inputs import open_subject

    if find_spec("gradio") is None:
        raise DependencyError("gradio", extra="app", purpose="the app")
    from assay.app.serve import find_port, serve

    chosen = find_port(port)  # before any work is done for it
    console = Console(stderr=True)
    subject = open_subject(
        model,
        weights=weights,
        data=data,
        data_dir=data_dir,
        split=split,
        limit=limit,
        normalization=normalization,
        image_size=image_size,
        max_bad=max_bad,
        device=device,
        console=console,
    )

    def ready(address: str) -> None:
        typer.echo(f"{address}  (Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(subject, port=chosen, on_ready=ready)
