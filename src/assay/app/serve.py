"""Serve the app on this machine's own address, until somebody ends it."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from assay.app.guard import Guard
from assay.augment.engine import prepare_kernels
from assay.errors import DependencyError, OptionError
from assay.views.subject import LIMITS, Limits, Subject

ADDRESS = "127.0.0.1"
FIRST_PORT, PORTS = 7860, 40


@contextmanager
def served(subject: Subject, *, port: int | None = None, limits: Limits = LIMITS) -> Iterator[str]:
    """The address of the running app, for the length of a block.

    Uploads go into a folder of their own that only this user can read, and that is removed at the end. Without a
    ``port`` the first free one from 7860 is taken. Torch leaves one core to the page. Raises :class:`DependencyError`
    without Gradio and :class:`OptionError` for a port that is taken.
    """
    chosen = find_port(port)
    with tempfile.TemporaryDirectory(prefix="assay-app-") as folder, _environment(folder), _one_core_spared():
        try:
            import gradio as gr
        except ImportError:
            raise DependencyError("gradio", extra="app", purpose="the app") from None
        from starlette.middleware import Middleware

        from assay.app.layout import build_app
        from assay.app.panels import style
        from assay.app.theme import make_theme

        logging.getLogger("httpx").setLevel(logging.WARNING)
        page = build_app(subject, limits=limits)
        threading.Thread(target=prepare_kernels, daemon=True).start()  # before the first attack by image operations
        try:
            _, address, _ = page.launch(
                server_name=ADDRESS,
                server_port=chosen,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                inbrowser=False,
                show_error=False,
                allowed_paths=[],
                max_file_size=limits.upload_bytes,
                state_session_capacity=100,
                enable_monitoring=False,
                strict_cors=True,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                footer_links=[],
                theme=make_theme(gr),
                head=f"<style>{style()}</style>",  # as `css` every rule would be confined to a part of the page
                app_kwargs={"middleware": [Middleware(Guard, uploads=Path(folder))]},
            )
        except OSError as error:
            raise OptionError("--port", expected="a free port", got=f"{chosen} ({error})") from None
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(
    subject: Subject,
    *,
    port: int | None = None,
    limits: Limits = LIMITS,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve until Ctrl-C; ``on_ready`` is told the address."""
    with served(subject, port=port, limits=limits) as address:
        on_ready(address)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return


def find_port(port: int | None) -> int:
    """``port`` if it is free, else :class:`OptionError`; without one the first free from 7860."""
    if port is not None and not 1 <= port <= 65535:
        raise OptionError("--port", expected="1..65535", got=port)
    wanted = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
    for candidate in wanted:
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
    """Torch's threads wait for each other by spinning: on all cores, every answer of the server would stop them all."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before - 1))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _environment(folder: str) -> Iterator[None]:
    """What Gradio reads from the environment only: no analytics, uploads into ``folder``; put back at the end."""
    wanted = {"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": folder, "HF_HUB_OFFLINE": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
