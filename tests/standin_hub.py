"""A stand-in for the Hugging Face hub on this machine: folders are its models; it lists what was asked for."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """``models`` maps OWNER/NAME to a folder; ``asked`` are the paths of all requests."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.models: dict[str, Path] = {}
        self.asked: list[str] = []

    @property
    def fetched(self) -> set[str]:
        """The names of the files whose content was sent."""
        return {line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for name, folder in self.models.items():
            if path.startswith(f"/api/models/{name}/revision/") or path == f"/api/models/{name}":
                siblings = [{"rfilename": each.name} for each in sorted(folder.iterdir())]
                return self._json({"id": name, "modelId": name, "sha": REVISION, "siblings": siblings})
            if path.startswith(f"/api/models/{name}/tree/"):
                files = [
                    {"type": "file", "path": each.name, "size": each.stat().st_size, "oid": _digest(each)}
                    for each in sorted(folder.iterdir())
                ]
                return self._json(files)
            if path.startswith(f"/{name}/resolve/"):
                file = folder / path.rpartition("/")[2]
                if not file.is_file():
                    return 404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}, b""
                return 200, {"X-Repo-Commit": REVISION, "ETag": f'"{_digest(file)}"'}, file.read_bytes()
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""

    @staticmethod
    def _json(content: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def _digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def serve() -> Iterator[Hub]:
    class Handler(BaseHTTPRequestHandler):
        def reply(self, *, body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            status, headers, content = hub.answer(path)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def do_GET(self) -> None:
            self.reply(body=True)

        def do_HEAD(self) -> None:
            self.reply(body=False)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def redirect(monkeypatch: pytest.MonkeyPatch, *, address: str, cache: Path) -> None:
    """The hub's client, already imported or not, talks to ``address`` and keeps files in ``cache``."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name, value in (("HF_ENDPOINT", address), ("HF_HUB_CACHE", str(cache)), ("HF_HUB_OFFLINE", "0")):
        monkeypatch.setenv(name, value)
