from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from assay.data.download import RemoteFile, fetch
from assay.errors import DataError, OutputError

CONTENT = np.random.default_rng(0).bytes(700_000)


class Server(ThreadingHTTPServer):
    """Serves CONTENT at every path and notes what it was asked for; ``manners`` are how it treats each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges: list[str | None] = []
        self.manners: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        manner = self.server.manners.pop(0) if self.server.manners else "polite"
        if manner.isdigit():
            self.send_error(int(manner))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and manner != "no ranges" else 0
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if manner == "wrong":
            body = bytes(len(body))
        self.wfile.write(body[: len(body) // 2] if manner == "hangs up" else body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def remote(server: Server) -> RemoteFile:
    return RemoteFile("file.bin", server.url, len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    folder = tmp_path / "new" / "cache"
    assert fetch(remote, folder).read_bytes() == CONTENT
    assert fetch(remote, folder).read_bytes() == CONTENT
    assert server.ranges == [None]
    assert left_over(folder) == ["file.bin"]


def test_a_broken_connection_is_taken_up_where_it_ended(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    server.manners = ["hangs up", "hangs up"]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges[:2] == [None, "bytes=350000-"]
    assert server.ranges[2] == "bytes=525000-"


def test_an_interrupted_run_is_taken_up_by_the_next(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    server.manners = ["hangs up"]
    with pytest.raises(DataError, match="expected the file over the network, or already in --data-dir"):
        fetch(remote, tmp_path, attempts=1)
    assert left_over(tmp_path) == ["file.bin.part"]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=350000-"]


def test_a_server_without_ranges_starts_anew(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    server.manners = ["no ranges"]
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_content_that_is_not_the_published_one_is_removed(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    server.manners = ["wrong"]
    with pytest.raises(DataError, match=rf"{server.url}: expected content with SHA-256 {remote.sha256[:16]}…, got "):
        fetch(remote, tmp_path)
    assert left_over(tmp_path) == []
    assert fetch(remote, tmp_path).read_bytes() == CONTENT


def test_a_beginning_left_over_from_another_file_is_thrown_away(
    tmp_path: Path, server: Server, remote: RemoteFile
) -> None:
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-", None]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_a_part_that_is_already_long_enough(tmp_path: Path, server: Server, remote: RemoteFile, length: int) -> None:
    (tmp_path / "file.bin.part").write_bytes((CONTENT + b"extra")[:length])
    assert fetch(remote, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ([] if length == len(CONTENT) else [None])


def test_a_passing_fault_is_tried_again_and_a_refusal_is_not(
    tmp_path: Path, server: Server, remote: RemoteFile
) -> None:
    server.manners = ["503"]
    assert fetch(remote, tmp_path / "a").read_bytes() == CONTENT
    server.manners = ["404", "404"]
    server.ranges.clear()
    with pytest.raises(DataError, match="got HTTP 404 Not Found"):
        fetch(remote, tmp_path / "b")
    assert server.ranges == [None]


def test_no_server_at_all_is_one_clear_line(tmp_path: Path, server: Server) -> None:
    nobody = RemoteFile("file.bin", "http://127.0.0.1:9/file.bin", 3, "0" * 64)
    with pytest.raises(DataError, match=r"^http://127.0.0.1:9/file.bin: expected the file over the network"):
        fetch(nobody, tmp_path, attempts=1, timeout=2)


def test_a_folder_that_cannot_be_written_is_an_output_error(tmp_path: Path, remote: RemoteFile) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="not a folder that can be written to"):
        fetch(remote, tmp_path / "file")


def test_two_at_once_ask_once(tmp_path: Path, server: Server, remote: RemoteFile) -> None:
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(remote, tmp_path).read_bytes())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT] * 4
    assert server.ranges == [None]
