from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from assay.app.guard import LARGEST_REQUEST, Guard

UPLOADS = Path("/tmp/assay-app-x")


def ask(*, host="127.0.0.1:7860", body=b"", kind="application/json", type="http"):
    """Send one request through the guard; (status, headers, the body that the app behind it has read)."""
    seen: list[bytes] = []
    sent: list[dict] = []

    async def behind(scope, receive, send):
        if scope["type"] == "http":
            seen.append((await receive())["body"])
            await send({"type": "http.response.start", "status": 200, "headers": [(b"x", b"y")]})
            await send({"type": "http.response.body", "body": b"hello"})
        else:
            seen.append(b"")

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    headers = [(b"host", host.encode()), (b"content-type", kind.encode())]
    asyncio.run(Guard(behind, uploads=UPLOADS)({"type": type, "headers": headers}, receive, send))
    start = sent[0] if sent else {}
    return start.get("status"), dict(start.get("headers", ())), seen


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost", "[::1]:80"])
def test_this_machine_is_answered_and_told_to_load_nothing_from_elsewhere(host):
    status, headers, seen = ask(host=host, body=b"{}")
    assert status == 200
    assert seen == [b"{}"]
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'self'" in policy
    assert "http" not in policy
    assert "*" not in policy
    assert headers[b"x"] == b"y"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "127.0.0.1:7860@evil", "", "10.0.0.3:7860"])
def test_a_name_that_merely_leads_here_is_refused(host):
    assert ask(host=host)[0] == 421
    assert ask(host=host)[2] == []
    assert ask(host=host, type="websocket")[2] == []


@pytest.mark.parametrize(
    "file",
    [
        {"path": "http://evil.example/x.png"},
        {"path": "https://evil.example/x.png", "meta": {"_type": "gradio.FileData"}},
        {"path": " HTTP://evil.example"},
        {"path": "file:///etc/passwd"},
        {"url": "https://evil.example/x.png"},
        {"url": "data:image/png;base64,AAAA"},
        {"path": "/tmp/assay-app-x/1/a.png", "url": "data:image/png;base64,AAAA"},
        {"path": "/tmp/assay-app-x/1/a.png", "url": "//evil.example/x.png"},
        {"path": "/etc/passwd"},
        {"path": "/tmp/assay-app-x/../../etc/passwd"},
        {"path": "/tmp/assay-app-xy/a.png"},
        {"path": "a.png"},
        {"path": "/tmp/assay-app-x/\0"},
        {"path": ["/tmp/assay-app-x/1/a.png"]},
    ],
    ids=str,
)
def test_a_file_that_is_no_upload_is_refused_wherever_it_hides(file):
    for data in ([file], [0, {"deep": [{"er": file}]}]):
        status, _, seen = ask(body=json.dumps({"data": data, "fn_index": 1}).encode())
        assert status == 400
        assert seen == []


def test_an_upload_is_let_through():
    file = {"path": "/tmp/assay-app-x/1/a.png", "url": "http://127.0.0.1:7860/gradio_api/file=/tmp/assay-app-x/1/a.png"}
    assert ask(body=json.dumps({"data": [file]}).encode())[0] == 200


def test_what_is_not_json_is_the_apps_business_and_what_is_endless_is_refused():
    assert ask(body=b"{not json")[0] == 200
    assert ask(body=b'{"a": 1', kind="text/plain")[0] == 200
    assert ask(body=b" " * (LARGEST_REQUEST + 1))[0] == 413
    assert ask(body=b"[" * 100_000)[0] == 200
