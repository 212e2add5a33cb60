"""Serve the app on the loopback address until Ctrl-C."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from assay.app.guard import Guard
from assay.augment.engine import prepare_kernels
from assay.errors import DependencyError, OptionError
from assay.views.context import LIMITS, Limits, ViewContext

ADDRESS = "127.0.0.1"
FIRST_PORT, PORTS = 7860, 40
_SWITCHED_OFF = ("share", "inbrowser", "show_error", "enable_monitoring", "ssr_mode", "pwa", "mcp_server")


@contextmanager
def served(context: ViewContext, *, port: int | None = None, limits: Limits = LIMITS) -> Iterator[str]:
    """Run the app for the length of a block; yields its address.

    Uploads go into a temporary folder of this user, removed at the end. Without a ``port`` the first free one from 7860
    is taken. Torch leaves one core to the page. Raises :class:`DependencyError` without Gradio and
    :class:`OptionError` for a port that is taken.
    """
    chosen = find_port(port)
    with tempfile.TemporaryDirectory(prefix="assay-app-") as folder, _environment(folder), _one_core_spared():
        try:
            import gradio as gr
        except ImportError:
            raise DependencyError("gradio", extra="app", purpose="the app") from None
        from starlette.middleware import Middleware

        from assay.app.layout import build_app
        from assay.app.panels import head
        from assay.app.theme import make_theme

        logging.getLogger("httpx").setLevel(logging.WARNING)
        page = build_app(context, limits=limits)
        threading.Thread(target=prepare_kernels, daemon=True).start()  # before the first attack by image operations
        try:
            _, address, _ = page.launch(
                server_name=ADDRESS,
                server_port=chosen,
                quiet=True,
                prevent_thread_lock=True,
                allowed_paths=[],
                max_file_size=limits.upload_bytes,
                state_session_capacity=100,
                strict_cors=True,
                footer_links=[],
                **dict.fromkeys(_SWITCHED_OFF, False),
                theme=make_theme(gr),
                head=head(),  # its style as `css` every rule would be confined to a part of the page
                app_kwargs={"middleware": [Middleware(Guard, uploads=Path(folder))]},
            )
        except OSError as error:
            raise OptionError("--port", expected="a free port", got=f"{chosen} ({error})") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(
    context: ViewContext, *, port: int | None = None, limits: Limits = LIMITS, on_ready: Callable[[str], None] = print
) -> None:
    """Serve until Ctrl-C; ``on_ready`` is called with the address."""
    with served(context, port=port, limits=limits) as address:
        on_ready(address)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


def find_port(port: int | None) -> int:
    """``port``, or the first free one from 7860. Raises :class:`OptionError` for a port that is taken."""
    if port is not None and not 1 <= port <= 65535:
        raise OptionError("--port", expected="1..65535", got=port)
    candidates = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
    for candidate in candidates:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ADDRESS, candidate))
            except OSError:
                continue
            return candidate
    got = f"{port}, which is taken" if port is not None else f"all of {FIRST_PORT}..{FIRST_PORT + PORTS - 1} taken"
    raise OptionError("--port", expected="a free port", got=got)


@contextmanager
def _one_core_spared() -> Iterator[None]:
    """Torch's threads wait by spinning: on all cores, every response of the server would hold them all up."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """What Gradio reads from the environment only (no analytics, uploads into ``folder``), restored at the end."""
    settings = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
