"""``--memory``: a number of bytes in the words of a command line."""

from __future__ import annotations

import re
from typing import Annotated

from assay.cli.options import option
from assay.errors import OptionError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)

Memory = Annotated[
    str | None,
    option("Run", "Most memory, while measuring, of the whole process: 4GB, 900MB.", metavar="SIZE"),
]


def parse_size(text: str | None, *, where: str = "--memory") -> int | None:
    """``4GB``, ``2.5G`` or ``900MiB`` in bytes, None for none; :class:`OptionError` otherwise."""
    if text is None:
        return None
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise OptionError(where, expected="a size such as 4GB or 900MB", got=repr(text))
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(unit.lower() or " "))
