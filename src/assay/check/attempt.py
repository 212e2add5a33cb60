"""One measurement of a stage: its records, or why it failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from assay.errors import DependencyError, InterruptedRunError, describe_error
from assay.records.base import Record
from assay.records.failure import FailedMeasurement
from assay.runtime.memory import ran_out_of_memory

LESS_MEMORY = "Take fewer or smaller images (--limit, --image-size), or a machine with more memory."
NO_GRADIENTS = "Take the network itself in place of the program, or attack without gradients (attack --attack square)."
ELSEWHERE = "Take the network itself in place of the program: what a program runs by itself cannot be seen."
MEND = "Run the model on these images in Python, forward and backward, to see where it fails; mend it and check again."


def attempt(
    measure: Callable[[], Iterable[Record]],
    *,
    stage: str,
    name: str,
    gives: tuple[type[Record], ...] = (),
    raises: tuple[type[Exception], ...] = (),
) -> Iterator[Record]:
    """The records that ``measure`` makes; where it fails, those made until then and a :class:`FailedMeasurement`.

    ``gives`` are the classes of records it makes when nothing fails. Any exception counts: the model is anybody's code.
    Those of ``raises`` are passed on, and that of an interrupt.
    """
    made: set[type[Record]] = set()
    try:
        for record in measure():
            made.add(type(record))
            yield record
    except Exception as error:
        if isinstance(error, (InterruptedRunError, *raises)):
            raise
        missing = tuple(str(kind.model_fields["kind"].default) for kind in gives if kind not in made)
        yield FailedMeasurement(
            stage=stage, measurement=name, missing=missing, reason=describe_error(error), way_out=find_way_out(error)
        )


def find_way_out(error: Exception) -> str:
    """What the user can do about a measurement that failed with ``error``."""
    text = str(error).lower()
    if isinstance(error, DependencyError):
        return "Install the package that is named, and check again."
    if "runs forward only" in text:
        return NO_GRADIENTS
    if "that torch runs" in text:
        return ELSEWHERE
    return LESS_MEMORY if ran_out_of_memory(error) else MEND
