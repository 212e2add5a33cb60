"""``assay app``: one picture after the other in a browser, on this machine only."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.cli.options import Inputs, flag, option, takes_inputs
from assay.errors import DependencyError


@takes_inputs(omit=("seed",))
def app(
    inputs: Inputs,
    port: Annotated[
        int | None, option("Server", "Port of 127.0.0.1. (default: the first free one from 7860)", metavar="PORT")
    ] = None,
    browser: Annotated[bool, flag("Server", "Open the page in the browser.")] = True,
) -> None:
    """Serve the app: change a picture, attack it, find the smallest adversarial perturbation; ranks; recurrences.

    It answers this machine only and connects to no other. Ctrl-C ends it.
    """
    from importlib.util import find_spec

    from rich.console import Console

    from assay.cli.inputs import open_view

    if find_spec("gradio") is None:
        raise DependencyError("gradio", extra="app", purpose="the app")
    from assay.app.serve import find_port, serve

    free = find_port(port)  # refused before any work
    context = open_view(inputs, Console(stderr=True))

    def on_ready(address: str) -> None:
        typer.echo(f"{address}  (Ctrl-C ends it)")
        if browser:
            import webbrowser

            webbrowser.open(address)

    serve(context, port=free, on_ready=on_ready)
