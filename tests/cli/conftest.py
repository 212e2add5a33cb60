"""Fixtures of the command-line tests.

assay      run the command in this process: assay("check", "--help") -> Ended(code, out, err)
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from assay.cli.main import main


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def assay(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ended]]:
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["assay", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    yield run
    signal.signal(signal.SIGTERM, before)
