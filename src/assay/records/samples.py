"""Which samples a number was measured on, and what became of each: enough to pair two measurements."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Self

from pydantic import model_validator

from assay.records.base import Frozen

_RUN = re.compile(r"(-?[0-9]{1,19})(?:\.\.(-?[0-9]{1,19})(?:/([1-9][0-9]{0,18}))?)?")


class SampleSet(Frozen):
    """``n`` samples by their ids, with digests that tell whether two sets are the same.

    ``ids`` lists them in ascending order as runs: ``0..999``, ``0..9990/10`` (every tenth), ``3,7,12..15``.
    ``labels`` is a BLAKE2b digest of ids and labels, ``pixels`` of the images, both in the order of ``ids``;
    ``pixels`` is empty where only predictions were known, and no images.
    """

    n: int
    ids: str
    labels: str
    pixels: str

    @model_validator(mode="after")
    def _runs_fit(self) -> Self:
        if sum(len(run) for run in read_runs(self.ids)) != self.n:
            raise ValueError(f"runs of ids that hold {self.n} samples")
        return self

    def list_ids(self) -> list[int]:
        """The ids, ascending."""
        return [number for run in read_runs(self.ids) for number in run]


class SampleBits(Frozen):
    """One bit a sample, in the order of ``samples.ids``: whether it was right. ``bits`` is base64, first bit first."""

    samples: SampleSet
    bits: str

    @classmethod
    def of(cls, samples: SampleSet, right: Iterable[bool]) -> Self:
        """Pack ``right``, one value a sample in ascending order of the ids."""
        digits = "".join("1" if value else "0" for value in right)
        padded = digits.ljust(-(-len(digits) // 8) * 8, "0")
        packed = int(padded or "0", 2).to_bytes(len(padded) // 8, "big")
        return cls(samples=samples, bits=base64.b64encode(packed).decode("ascii"))

    @model_validator(mode="after")
    def _length_fits(self) -> Self:
        if len(decode_base64(self.bits)) != -(-self.samples.n // 8):
            raise ValueError(f"base64 of {self.samples.n} bits")
        return self

    def unpack(self) -> list[bool]:
        """One value a sample, in ascending order of the ids."""
        packed = decode_base64(self.bits)
        digits = bin(int.from_bytes(b"\x01" + packed, "big"))[3:]
        return [digit == "1" for digit in digits[: self.samples.n]]


class SampleLevels(Frozen):
    """A small whole number (0 to 255) a sample, in the order of ``samples.ids``, as base64 of one byte each."""

    samples: SampleSet
    levels: str

    @classmethod
    def of(cls, samples: SampleSet, levels: Sequence[int]) -> Self:
        """Pack ``levels``, one value a sample in ascending order of the ids."""
        return cls(samples=samples, levels=base64.b64encode(bytes(levels)).decode("ascii"))

    @model_validator(mode="after")
    def _length_fits(self) -> Self:
        if len(decode_base64(self.levels)) != self.samples.n:
            raise ValueError(f"base64 of {self.samples.n} bytes")
        return self

    def unpack(self) -> list[int]:
        """One value a sample, in ascending order of the ids."""
        return list(decode_base64(self.levels))


def decode_base64(text: str) -> bytes:
    """The bytes of base64. Raises :class:`ValueError` for anything else."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"base64 ({error})") from None


def write_runs(ids: Sequence[int]) -> str:
    """Ascending distinct numbers as runs; at least three in equal steps make one.

    >>> write_runs([0, 1, 2, 3, 10, 20, 30, 99])
    '0..3,10..30/10,99'
    """
    if any(later <= earlier for earlier, later in pairwise(ids)):
        raise ValueError("ids: expected ascending distinct numbers")
    runs, start = [], 0
    while start < len(ids):
        end, step = start, ids[start + 1] - ids[start] if start + 1 < len(ids) else 1
        while end + 1 < len(ids) and ids[end + 1] - ids[end] == step:
            end += 1
        if end - start < 2:
            runs.append(f"{ids[start]}")
            start += 1
        else:
            runs.append(f"{ids[start]}..{ids[end]}" + (f"/{step}" if step > 1 else ""))
            start = end + 1
    return ",".join(runs)


def read_runs(text: str) -> Iterator[range]:
    """The runs of :func:`write_runs`, each as a range. Raises :class:`ValueError` for anything else."""
    last = None
    for part in filter(None, text.split(",")):
        match = _RUN.fullmatch(part)
        if match is None:
            raise ValueError(f"runs of ids such as 0..999, got {part!r:.40}")
        first, end, step = match.groups()
        run = range(int(first), int(end or first) + 1, int(step or 1))
        if len(run) == 0 or (last is not None and run[0] <= last):
            raise ValueError(f"ascending runs of ids, got {part!r:.40}")
        last = run[-1]
        yield run
