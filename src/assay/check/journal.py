"""What a check has finished so far, kept beside its report until the report is written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from assay.data.dataset import ImageDataset
from assay.files import remove_leftovers, write_atomically
from assay.records.base import Frozen
from assay.records.checkup import Measurement, Stage

FILE = "check.partial.json"
OTHERS = "check.partial.*.json"  # of the second process, the third, …


class FinishedStage(Frozen):
    """One stage and the records it gave."""

    stage: Stage
    records: tuple[Measurement, ...]


_PAGES: TypeAdapter[tuple[FinishedStage, ...]] = TypeAdapter(tuple[FinishedStage, ...])


class Journal:
    """Finished stages on disk, valid for one fingerprint of model, data, budget and seed only.

    ``folder=None`` keeps nothing. Every addition rewrites the file atomically, so a check that is killed at any
    moment leaves the journal of the last finished stage. Of several processes each has a file of its own, and reads
    everybody's.
    """

    def __init__(self, folder: Path | None, *, fingerprint: str, resume: bool, rank: int = 0) -> None:
        self._path = None if folder is None else folder / (OTHERS.replace("*", str(rank)) if rank else FILE)
        self._fingerprint = fingerprint
        self._finished = tuple(page for path in self._paths() for page in self._read(path)) if resume else ()

    def _paths(self) -> list[Path]:
        if self._path is None:
            return []
        return [path for pattern in (FILE, OTHERS) for path in sorted(self._path.parent.glob(pattern))]

    def _read(self, path: Path) -> tuple[FinishedStage, ...]:
        try:
            content = json.loads(path.read_text())
            if content["fingerprint"] != self._fingerprint:
                return ()
            return _PAGES.validate_python(content["finished"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return ()  # a journal of another version is worth nothing, and loses nothing but time

    def find(self, name: str) -> FinishedStage | None:
        """The finished stage of this name, or None."""
        return next((page for page in self._finished if page.stage.name == name), None)

    def add(self, page: FinishedStage) -> None:
        """Keep one more finished stage."""
        self._finished = (*self._finished, page)
        if self._path is not None:
            content = {"fingerprint": self._fingerprint, "finished": _PAGES.dump_python(self._finished, mode="json")}
            write_atomically(self._path, json.dumps(content))

    def close(self) -> None:
        """Remove all files: the report has taken their place."""
        for path in self._paths():
            path.unlink(missing_ok=True)
        if self._path is not None:
            remove_leftovers(self._path.parent)


def fingerprint(model: nn.Module, dataset: ImageDataset, **options: Any) -> str:
    """SHA-256 over every weight and buffer, every image and label, and the options."""
    digest = hashlib.sha256(json.dumps(options, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            flat = tensor.detach().cpu().contiguous().flatten()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    digest.update(dataset.images.contiguous().numpy().tobytes())
    digest.update(dataset.labels.numpy().tobytes())
    return digest.hexdigest()
