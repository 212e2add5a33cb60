"""The run folder: what a run was, how it went, its weights, and the state to go on from.

config.json         the model (name, shape of the data, normalisation), the data, the recipe, the seed
environment.json    the machine and the software
metrics.jsonl       a line a step, a line an epoch
model.safetensors   the whole state dict, normalisation included
state.pt            weights, optimizer, averages and counters of the last checkpoint; loads with ``weights_only``

Every file but the log is written to a temporary neighbour, flushed and renamed, so a kill at any moment leaves the
former version. ``state.pt`` alone decides where a run resumes.
"""

from __future__ import annotations

import io
import json
import pickle
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from assay.errors import OptionError
from assay.files import make_folder, write_atomically
from assay.records.training import EpochSummary
from assay.runtime import describe_environment, device_of
from assay.runtime.store import check_same_identity
from assay.training.metrics import EpochTotals, MetricsLog, StepMetrics, Stopwatch
from assay.training.recipes import Recipe

SCHEMA_VERSION = 1
SHAPE = ("classes", "image_shape", "features", "outputs", "length", "reads")  # facts of the data a model is built for


@dataclass
class RunState:
    """Everything beside weights and optimizer that the next step depends on or the record needs.

    ``fallen_back``: the recipe's adversary has failed and its fallback took over. ``clock`` counts what ``seconds``
    were spent on. Where a recipe prunes, ``losses`` (n,) are those of the samples when last trained on, less the mean
    of their micro-batch, infinite before; ``left_out`` bool (n,) marks the samples that this epoch leaves out.
    """

    step: int = 0
    seconds: float = 0.0
    fallen_back: bool = False
    totals: EpochTotals = field(default_factory=EpochTotals)
    epochs: list[EpochSummary] = field(default_factory=list)
    clock: Stopwatch = field(default_factory=lambda: Stopwatch({}))
    losses: Tensor | None = None
    left_out: Tensor | None = None

    def count(self, metrics: StepMetrics, *, images: int) -> None:
        """One more step, of ``images``."""
        totals = self.totals
        self.totals = EpochTotals(
            steps=totals.steps + 1,
            images=totals.images + images,
            loss=totals.loss + metrics.loss * images,
            correct=totals.correct + round(metrics.accuracy * images),
            gradient_norm=totals.gradient_norm + metrics.gradient_norm,
            learning_rate=totals.learning_rate + metrics.learning_rate,
            seconds=totals.seconds + metrics.seconds - self.seconds,
        )
        self.step, self.seconds = metrics.step, metrics.seconds

    def close_epoch(self, epoch: int, validation_accuracy: float | None) -> EpochSummary:
        """Turn the totals into a summary, keep it, and begin anew."""
        summary = self.totals.summarize(epoch=epoch, validation_accuracy=validation_accuracy)
        self.epochs.append(summary)
        self.totals = EpochTotals()
        return summary


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to be the continuation of another; ``data`` are the facts of its task."""

    recipe: dict[str, Any]
    data: dict[str, Any]
    seed: int


def write_config(out: Path, model: nn.Module, identity: RunIdentity, *, architecture: str | None) -> None:
    """Write ``config.json`` and ``environment.json``.

    ``architecture`` is the name that the recipe's network was built by. None: the model is the caller's own, known by
    ``module:Class``, which loads again if its constructor needs no arguments.
    """
    config = {
        "schema_version": SCHEMA_VERSION,
        "model": {
            "name": architecture or name_of(model),
            **{fact: identity.data[fact] for fact in SHAPE if fact in identity.data},
            **normalization_of(model),
            "options": identity.recipe["model_options"] if architecture else {},
        },
        "data": identity.data,
        "recipe": identity.recipe,
        "seed": identity.seed,
    }
    write_atomically(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    environment = describe_environment(device_of(model))
    write_atomically(out / "environment.json", environment.model_dump_json(indent=2) + "\n")


def name_of(model: nn.Module) -> str:
    """``module:Class`` of a model that has no other name."""
    return f"{type(model).__module__}:{type(model).__qualname__}"


def normalization_of(model: nn.Module) -> dict[str, list[float]]:
    """The ``mean`` and ``std`` buffers of the first module that has both; nothing for a model that has none."""
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if {"mean", "std"} <= buffers.keys():
            return {name: buffers[name].flatten().tolist() for name in ("mean", "std")}
    return {}


def save_weights(out: Path, tensors: dict[str, Tensor]) -> None:
    """Write ``model.safetensors``; tied tensors are written once for each name."""
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(out / "model.safetensors", save(separate))


def save_state(
    out: Path,
    model: nn.Module,
    optimizers: tuple[Optimizer, ...],
    average: dict[str, Tensor],
    *,
    state: RunState,
    identity: RunIdentity,
) -> None:
    """Write ``state.pt``: all that :func:`restore_state` needs to go on exactly here."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "identity": json.dumps(asdict(identity), sort_keys=True),
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "average": average,
        "step": state.step,
        "seconds": state.seconds,
        "fallen_back": state.fallen_back,
        "totals": asdict(state.totals),
        "epochs": [summary.model_dump_json() for summary in state.epochs],
        "clock": state.clock.seconds,
        "losses": state.losses,
        "left_out": state.left_out,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(out / "state.pt", buffer.getvalue())


def restore_state(
    out: Path,
    model: nn.Module,
    optimizers: tuple[Optimizer, ...],
    average: dict[str, Tensor],
    *,
    identity: RunIdentity,
) -> RunState:
    """Load ``state.pt`` into model, optimizers and average; a fresh :class:`RunState` when there is none yet.

    Raises :class:`OptionError` when the file is damaged or belongs to another recipe, data set or seed.
    """
    path = out / "state.pt"
    if not path.is_file():
        return RunState()
    try:
        content = torch.load(path, map_location=device_of(model), weights_only=True)
        saved = json.loads(content["identity"])
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise OptionError(str(path), expected="the state of a run", got=f"a damaged file ({reason})") from None
    saved["recipe"] = Recipe.parse_saved(saved["recipe"], where=f"{path}: recipe").model_dump(mode="json")
    check_same_identity(str(path), saved, json.loads(json.dumps(asdict(identity))))
    model.load_state_dict(content["model"])
    for optimizer, optimizer_state in zip(optimizers, content["optimizers"], strict=True):
        optimizer.load_state_dict(optimizer_state)
    for name, tensor in average.items():
        tensor.copy_(content["average"][name])
    return RunState(
        step=content["step"],
        seconds=content["seconds"],
        fallen_back=content["fallen_back"],
        totals=EpochTotals(**content["totals"]),
        epochs=[EpochSummary.model_validate_json(text) for text in content["epochs"]],
        clock=Stopwatch(content.get("clock", {})),
        losses=_on_cpu(content.get("losses")),
        left_out=_on_cpu(content.get("left_out")),
    )


def _on_cpu(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.cpu()


@dataclass
class RunFolder:
    """The folder ``out`` of one run; where it is None nothing is kept and every method does nothing.

    ``average`` holds the averaged tensors where there are any: they, not the raw ones, become the weights on disk.
    Of several processes all read the checkpoint and only the one that ``leads`` writes.
    """

    out: Path | None
    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    average: dict[str, Tensor]
    identity: RunIdentity
    every_seconds: float
    leads: bool = True
    architecture: str | None = None
    saved_step: int = 0
    _saved_at: float = field(default_factory=time.monotonic)
    _log: MetricsLog | None = None

    def open(self, *, resume: bool) -> RunState:
        """Make the folder and, with ``resume``, restore its last checkpoint if there is one.

        Without ``resume`` a run that the folder holds is written over.
        """
        if self.out is None:
            return RunState()
        make_folder(self.out)
        state = RunState()
        if resume:
            state = restore_state(self.out, self.model, self.optimizers, self.average, identity=self.identity)
        if self.leads:
            if not resume:
                (self.out / "state.pt").unlink(missing_ok=True)
            write_config(self.out, self.model, self.identity, architecture=self.architecture)
            self._log = MetricsLog(self.out / "metrics.jsonl", resume_at=state.step)
        self.saved_step = state.step
        return state

    @property
    def last_checkpoint(self) -> str | None:
        """The last checkpoint's step and folder, for a message; None when there is none."""
        return f"that of step {self.saved_step} in {self.out}" if self.out is not None and self.saved_step else None

    def log_step(self, metrics: StepMetrics) -> None:
        if self._log is not None:
            self._log.step(metrics)

    def log_epoch(self, summary: EpochSummary, *, step: int) -> None:
        if self._log is not None:
            self._log.epoch(summary, step=step)

    def log_watch(self, accuracies: dict[str, object] | None, *, epoch: int, state: RunState) -> None:
        """The accuracies by which an adversary is monitored, if it is."""
        if self._log is not None and accuracies is not None:
            self._log.watch(accuracies, epoch=epoch, step=state.step, fallen_back=state.fallen_back)

    def save(self, state: RunState) -> None:
        """Write a checkpoint now."""
        if self.out is None:
            return
        if self.leads:
            with state.clock.part("saving"):
                save_weights(self.out, {**self.model.state_dict(), **self.average})
                save_state(self.out, self.model, self.optimizers, self.average, state=state, identity=self.identity)
        self.saved_step, self._saved_at = state.step, time.monotonic()

    def save_if_due(self, state: RunState) -> None:
        """Write a checkpoint if the last one is ``every_seconds`` old."""
        if time.monotonic() - self._saved_at >= self.every_seconds:
            self.save(state)

    def save_final(self, model: nn.Module) -> None:
        """Write the weights that the run ends with; the checkpoint keeps those the last step left."""
        if self.out is not None and self.leads:
            save_weights(self.out, model.state_dict())
