"""Every error assay raises on purpose, in one tree; the class owns the exit code. And all exit codes.

AssayError                  (exit code 2)
├── InputError              something handed in is not what was expected: says where, expected, got
│   ├── DataError           a data set, an image, a label
│   ├── ModelError          a model, its weights, its output
│   └── OptionError         an option, a recipe, a configuration file
│       └── UnusedOptionError   an option that has no effect beside the others
├── OutputError             a place to write to cannot be written
├── DependencyError         an optional package is missing; names the extra that brings it
├── DivergedError           training produced non-finite numbers; names step, layer and last good checkpoint
└── InterruptedRunError     stopped from outside, resumable (exit code 3)

The command ends with 0 when nothing was found, 1 on findings, 2 on bad input and places that cannot be written, 3 when
interrupted, 4 when something that was asked for could not be measured, and 70 on a fault of assay itself.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

FINDINGS, COULD_NOT_RUN, FAULT = 1, 4, 70  # exit codes that no error of this tree has


def one_line(message: object, *, limit: int = 200) -> str:
    """The text of an error as one line of at most ``limit`` characters; empty for one that cannot be printed."""
    try:
        return " ".join(str(message).split())[:limit]
    except Exception:
        return ""


def describe_error(error: BaseException, *, limit: int = 300) -> str:
    """An error in one line; with the name of its class where it is none of this tree."""
    name = "" if isinstance(error, AssayError) else f"{type(error).__name__}: "
    return one_line(f"{name}{error}".removesuffix(": "), limit=limit)


class AssayError(Exception):
    """The root of all errors: catch it to catch everything assay raises on purpose.

    Attributes:
        exit_code: what the command line ends with; 2, or 3 where an interrupted run can be resumed.

    Example:
        >>> import assay
        >>> try:
        ...     assay.load_dataset("no-such-folder")
        ... except assay.AssayError as error:
        ...     print(type(error).__name__, error.exit_code)
        DataError 2
    """

    exit_code: ClassVar[int] = 2


class InputError(AssayError):
    """Something handed in is not what was expected; its message is one line.

    Attributes:
        where: the place of the fault: an argument, a file, a field, an element such as ``labels[37]``.
        expected: what would have been right there.
        got: what was there, as text.

    Example:
        >>> import assay
        >>> str(assay.InputError("labels[37]", expected="0..9", got=12))
        'labels[37]: expected 0..9, got 12'
    """

    def __init__(self, where: str, *, expected: str, got: object) -> None:
        self.where = where
        self.expected = expected
        self.got = str(got)
        super().__init__(f"{where}: expected {expected}, got {self.got}")

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_input_error, (type(self), self.where, self.expected, self.got))


def _rebuild_input_error(cls: type[InputError], where: str, expected: str, got: str) -> InputError:
    return cls(where, expected=expected, got=got)


class DataError(InputError):
    """A data set, an image or a label is not usable.

    Attributes:
        where, expected, got: as in :class:`InputError`.

    Example:
        >>> import assay
        >>> try:
        ...     assay.load_dataset("photos/")
        ... except assay.DataError as error:
        ...     print(error.where)
        photos/
    """


class ModelError(InputError):
    """A model, its weights or its output is not usable.

    Attributes:
        where, expected, got: as in :class:`InputError`.

    Example:
        >>> import assay
        >>> try:
        ...     assay.load_model("resnet21", classes=10, image_shape=(3, 32, 32))
        ... except assay.ModelError as error:
        ...     print(error.got)
        'resnet21' (did you mean resnet20?)
    """


class OptionError(InputError):
    """An option, a recipe or a configuration file is not valid.

    Attributes:
        where, expected, got: as in :class:`InputError`.

    Example:
        >>> import assay
        >>> try:
        ...     assay.load_recipe("digits", overrides=["epochs=0"])
        ... except assay.OptionError as error:
        ...     print(error)
        --set epochs: expected greater than 0, got 0
    """


class UnusedOptionError(OptionError):
    """An option was given that has no effect: what was chosen does not have it, or another option turns it off."""

    def __init__(self, where: str, *, reason: str) -> None:
        super().__init__(where, expected="no such option", got=reason)
        self.reason = reason
        self.args = (f"{where}: {reason}",)

    def __reduce__(self) -> tuple[object, ...]:
        return (partial(UnusedOptionError, reason=self.reason), (self.where,))


class OutputError(AssayError):
    """A file or folder cannot be written."""


class DependencyError(AssayError):
    """An optional package is missing."""

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package {package!r}: pip install 'assay[{extra}]'")


class DivergedError(AssayError):
    """Training produced numbers that are not finite."""


class InterruptedRunError(AssayError):
    """Stopped from outside before the end; what was done is kept and can be resumed."""

    exit_code: ClassVar[int] = 3
