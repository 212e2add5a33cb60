"""Resumable jobs: their finished pieces on disk, and the identity and fingerprints that tell two jobs apart."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from assay.errors import DataError, OptionError, one_line
from assay.files import make_folder, remove_leftovers, write_atomically

IDENTITY = "identity.json"
_CHUNK_BYTES = 1 << 22  # hashed at once, so that a data set is never copied whole


class ResumableStore:
    """The finished pieces of one job, a file each in ``folder``, beside the ``identity.json`` of that job.

    Files are written atomically, so a process killed at any moment leaves only finished pieces. Several processes of
    one job may share the folder. ``identity`` holds whatever the pieces depend on, as JSON values, nested or not.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, suffix: str = ".json") -> None:
        self.folder = folder
        self._identity = json.loads(json.dumps(identity))  # tuples become lists, as in the file
        self._suffix = suffix

    def claim(self, *, replace: bool) -> None:
        """Make the folder this job's. Pieces of another job are removed if ``replace``, otherwise refused:

        :class:`OptionError` names the first field in which the identities differ, :class:`DataError` says that the
        identity cannot be read.
        """
        make_folder(self.folder)
        path = self.folder / IDENTITY
        if path.is_file() or self._pieces():
            try:
                check_same_identity(str(path), read_identity(self.folder), self._identity)
            except (OptionError, DataError):
                if not replace:
                    raise
                self._remove_pieces()
            else:
                return
        write_atomically(path, json.dumps(self._identity, indent=1) + "\n")

    def path(self, key: str) -> Path:
        """The file of the piece ``key``, whether it is there or not."""
        return self.folder / f"{key}{self._suffix}"

    def __contains__(self, key: str) -> bool:
        return self.path(key).is_file()

    def write(self, key: str, content: bytes | str) -> None:
        """Keep a finished piece."""
        write_atomically(self.path(key), content)

    def close(self) -> None:
        """Remove the pieces, then the identity and the folder: the job's result has taken their place."""
        self._remove_pieces()
        remove_leftovers(self.folder)
        (self.folder / IDENTITY).unlink(missing_ok=True)
        with suppress(OSError):  # somebody else's files may be there
            self.folder.rmdir()

    def _pieces(self) -> list[Path]:
        return [path for path in self.folder.glob(f"*{self._suffix}") if path.name != IDENTITY]

    def _remove_pieces(self) -> None:
        for path in self._pieces():
            path.unlink(missing_ok=True)


def read_identity(folder: Path) -> dict[str, Any]:
    """The identity of the job whose pieces ``folder`` holds; :class:`DataError` where there is none to be read."""
    path = folder / IDENTITY
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(str(path), expected="the identity of a resumable job", got=one_line(error)) from None


def check_same_identity(
    where: str, stored: Mapping[str, Any], current: Mapping[str, Any], *, of: str = "the run to resume"
) -> None:
    """Raise :class:`OptionError` naming the first field, such as ``recipe.seed``, in which two identities differ.

    A ``name`` comes before the options that depend on it.
    """
    there, here = _flatten(stored), _flatten(current)
    for name in sorted(there.keys() | here.keys(), key=lambda name: [(p != "name", p) for p in name.split(".")]):
        expected, got = there.get(name), here.get(name)
        if expected != got:
            raise OptionError(f"{where}: {name}", expected=f"{expected!r} as in {of}", got=repr(got))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


class _Samples(Protocol):
    """What :func:`fingerprint` reads of a data set; ``runtime`` is below ``data``."""

    @property
    def images(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def ids(self) -> Tensor: ...


def fingerprint(*, model: nn.Module | None = None, dataset: _Samples | None = None, **options: Any) -> str:
    """SHA-256, in hexadecimal, over weights, buffers, modules and their code, images, labels, ids, and the options."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    tensors = {} if model is None else dict(sorted(model.state_dict().items()))
    for line in () if model is None else _describe_modules(model):
        digest.update(line.encode(errors="replace"))
    if dataset is not None:
        tensors |= {"images": dataset.images, "labels": dataset.labels, "ids": dataset.ids}
    for name, tensor in tensors.items():
        # a state dict may hold anything that a module adds, and parameters that have no shape yet
        if isinstance(tensor, Tensor) and not nn.parameter.is_lazy(tensor):
            tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            rows = tensor.detach() if tensor.ndim else tensor.detach()[None]
            bytes_per_row = max(1, rows.nbytes // max(1, len(rows)))
            for chunk in torch.split(rows, max(1, _CHUNK_BYTES // bytes_per_row)):
                digest.update(chunk.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _describe_modules(model: nn.Module) -> Iterator[str]:
    """What makes two models of equal weights different: their modules, their settings, and code that is not torch's."""
    classes: set[type] = set()
    for name, module in model.named_modules():
        settings = {k: v for k, v in sorted(vars(module).items()) if isinstance(v, bool | int | float | str)}
        settings.pop("training", None)
        shown = ""
        with suppress(Exception):  # anybody's code
            shown = module.extra_repr()
        yield f"{name} {type(module).__qualname__} {shown} {settings}"
        classes |= {cls for cls in type(module).__mro__ if not cls.__module__.startswith(("torch", "builtins"))}
    for cls in sorted(classes, key=lambda cls: cls.__qualname__):
        for name, member in sorted(vars(cls).items()):
            with suppress(OSError, TypeError):  # no function, or one without a file
                yield f"{cls.__qualname__}.{name} {inspect.getsource(member)}"
