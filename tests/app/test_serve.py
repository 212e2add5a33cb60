"""The app over HTTP, as any client meets it: each its own answer, nothing but answers."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from assay.app.serve import find_port
from assay.errors import OptionError

PLAIN = (None, "(as it is)", 0, 0, 0, 0, 0, 1, 1, 1, 1, 8, 256, False)  # no upload, no label, the twelve undone


def send(
    url: str, content: bytes | None = None, *, kind: str = "application/json", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    """Status and text of an answer, whatever the status."""
    request = Request(url, data=content, headers={"content-type": kind, **(headers or {})})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except HTTPError as error:
        with error:
            return error.code, error.read().decode("utf-8", "replace")


def ask(address: str, view: str, *data: Any) -> str:
    """What a view answers, all its parts; what went wrong, as ``error: …``, when it did not."""
    status, said = send(f"{address}/gradio_api/call/{view}", json.dumps({"data": data}).encode())
    if status != 200:
        return f"error: {status} {said}"
    _, events = send(f"{address}/gradio_api/call/{view}/{json.loads(said)['event_id']}")
    kind, _, body = events.strip().rpartition("\n")
    answer = json.loads(body.removeprefix("data: "))
    return unescape("".join(answer)) if kind.endswith("event: complete") else f"error: {answer}"


def upload(address: str, name: str, content: bytes) -> dict[str, Any]:
    """A file as the views take it."""
    head = f'--b\r\ncontent-disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    body = head.encode() + content + b"\r\n--b--\r\n"
    status, said = send(f"{address}/gradio_api/upload", body, kind="multipart/form-data; boundary=b")
    assert status == 200, said
    return {"path": json.loads(said)[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}


def without_time(html: str) -> str:
    return "".join(part for part in html.split("<dd>") if " ms" not in part)


def test_users_at_the_same_time_each_get_their_own_result(app_address: str) -> None:
    def visit(place: int) -> tuple[str, str, str]:
        def attack() -> str:
            return ask(app_address, "attack", "pgd", "L∞", 20, 5, place, *PLAIN)

        return attack(), ask(app_address, "look", place, *PLAIN), attack()

    places = [3, 11, 3, 24, 39, 0]
    one_by_one = {place: visit(place) for place in set(places)}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(visit, places))
    for place, (first, seen, again) in zip(places, answers, strict=True):
        assert f"--sample {place} --attack pgd --norm linf --epsilon 20/255 --steps 5" in first
        assert f"--sample {place}</code>" in seen
        assert without_time(first) == without_time(again) == without_time(one_by_one[place][0])
        assert seen == one_by_one[place][1]
    assert len({seen for _, seen, _ in answers}) == 5


BALL = ("pgd", "L∞", 8, 5)


def test_samples_are_found_and_shown_small(app_address: str) -> None:
    said = ask(app_address, "samples", "all", "(any)", "0", *BALL)
    assert re.findall(r'data-sample="(\d+)"', said) == [str(i) for i in range(40)]
    assert len(said) < 100_000
    wrong = ask(app_address, "samples", "wrong", "(any)", "0", *BALL)
    assert "wrong samples in places 0 to 39 of 40" in wrong
    broken = ask(app_address, "samples", "broken", "(any)", "<30", *BALL)
    assert "samples that pgd breaks within L∞ 8/255 in places 0 to 29 of 40" in broken
    one = re.search(r'data-sample="(\d+)"', broken)
    assert one is not None
    assert "The attack succeeded" in ask(app_address, "attack", *BALL, int(one[1]), *PLAIN)
    assert not set(re.findall(r'data-sample="(\d+)"', wrong)) & set(re.findall(r'data-sample="(\d+)"', broken))
    for place in ("41", "-1", "x", "<", "9" * 20):
        assert 'role="alert"' in ask(app_address, "samples", "all", "(any)", place, *BALL)
    assert ask(app_address, "samples", "all", "zebra", "0", *BALL).startswith("error")


def test_every_view_answers(app_address: str, png: Callable[..., bytes]) -> None:
    assert "--sample 7</code>" in ask(app_address, "look", "all/7", *PLAIN)
    cat = upload(app_address, "my cat.png", png(90, 40))
    assert "--data made.npz --image 'my cat.png' --label 1</code>" in ask(app_address, "look", 0, cat, "1", *PLAIN[2:])
    assert "no label given" in ask(app_address, "look", 0, cat, *PLAIN[1:])
    assert "--smallest --norm l2" in ask(app_address, "smallest", "L2", 4, *PLAIN)
    for method in ("gradient", "integrated-gradients", "smoothgrad", "grad-cam"):
        said = ask(app_address, "map", method, "all/7", *PLAIN)
        assert f"{method}, class " in said
        assert f"--data made.npz --sample 7 --map {method}</code>" in said
        assert said.count("<img ") == 2
    assert "--data made.npz --sample 4 --rank 2" in ask(app_address, "factor", 4, None, 2, 1)
    assert "'my cat.png' --longest 384 --rank 3" in ask(app_address, "factor", 4, cat, 3, 1)
    assert "--radius 0.5 --norm 2" in ask(app_address, "recurrence", 0.5, 2, 4, 20, "rnn")


def test_bad_input_is_answered_in_one_line(app_address: str) -> None:
    said = ask(app_address, "recurrence", 1.2, 0.5, 4, 20, "rnn")
    assert "norm: expected at least the spectral radius, 1.2" in said
    text = upload(app_address, "x.png", b"\x80\x04\x95cos\nsystem\n")
    for view, data in (
        ("look", (0, text, *PLAIN[1:])),
        ("factor", (0, text, 3, 1)),
        ("look", (999, *PLAIN)),
        ("look", (0, None, "zebra", *PLAIN[2:])),
        ("attack", ("standard", "L∞", 8, 5, 0, *PLAIN)),
        ("attack", ("pgd", "L∞", 8, 5_000, 0, *PLAIN)),
        ("attack", ("pgd", "L∞", "much", 5, 0, *PLAIN)),
        ("map", ("grad-cam", 999, *PLAIN)),
        ("recurrence", (0.5, 2, 4, 10**6, "rnn")),
        ("recurrence", (0.5, 2, 4, 20, "lstm")),
        ("factor", (0, None, 10**6, 1)),
    ):
        said = ask(app_address, view, *data)
        assert said.startswith("error") or 'role="alert"' in said, (view, data, said[:300])
        assert "Traceback" not in said
    assert "✓" in ask(app_address, "look", 0, *PLAIN) or "✕" in ask(app_address, "look", 0, *PLAIN)


def test_an_upload_beyond_the_limit_is_refused(app_address: str) -> None:
    head = b'--b\r\ncontent-disposition: form-data; name="files"; filename="x.png"\r\n\r\n'
    body = head + os.urandom(10_000_001) + b"\r\n--b--\r\n"
    status, _ = send(f"{app_address}/gradio_api/upload", body, kind="multipart/form-data; boundary=b")
    assert status == 413


def test_no_file_of_this_machine_is_given_away(app_address: str, tmp_path, png: Callable[..., bytes]) -> None:
    (tmp_path / "secret.png").write_bytes(png(8, 8))
    for path in ("/etc/passwd", "../../../etc/passwd", "..%2f..%2f..%2fetc/passwd", str(tmp_path / "secret.png")):
        for route in ("gradio_api/file=", "file=", "static/", "assets/", "gradio_api/stream/"):
            status, text = send(f"{app_address}/{route}{path}")
            assert status >= 400, (route, path)
            assert "root:" not in text
            assert "PNG" not in text
    for mark in ({}, {"meta": {"_type": "gradio.FileData"}}):
        stolen = {"path": str(tmp_path / "secret.png"), **mark}
        assert ask(app_address, "look", 0, stolen, *PLAIN[1:]).startswith("error")


def test_nothing_is_fetched_for_a_client_and_strangers_are_refused(app_address: str) -> None:
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.setblocking(False)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/x.png"
        for file in ({"path": url, "meta": {"_type": "gradio.FileData"}}, {"path": "x", "url": url}, {"url": url}):
            assert ask(app_address, "look", 0, file, *PLAIN[1:]).startswith("error")
            body = json.dumps({"data": [0, file, *PLAIN[1:]], "session_hash": "s", "fn_index": 0}).encode()
            for route in ("run/look", "queue/join"):
                send(f"{app_address}/gradio_api/{route}", body)
        for route in (f"gradio_api/proxy={url}", f"proxy={url}"):
            assert send(f"{app_address}/{route}")[0] >= 400
        with pytest.raises(BlockingIOError):
            trap.accept()
    assert send(app_address, headers={"host": "evil.example"})[0] == 421


def test_the_page_comes_with_a_policy_and_names_nothing_to_load_from_elsewhere(app_address: str) -> None:
    with urlopen(app_address) as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        page = answer.read().decode()
    for tag in ('<script src="http', 'rel="stylesheet" href="http', "fonts.googleapis", "@import"):
        assert tag not in page


def test_a_port_that_is_taken_is_named_and_another_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OptionError, match=f"--port: expected a free port, got {port}, which is taken"):
            find_port(port)
    with pytest.raises(OptionError, match=r"--port: expected 1\.\.65535"):
        find_port(70_000)
    assert find_port(None) >= 7860
