"""The run folder: what a run was, how it went, its weights, and the state to go on from.

config.json         the model (name, shape of the data, normalisation), the data, the recipe, the seed
environment.json    the machine and the software
metrics.jsonl       a line a step, a line an epoch
model.safetensors   the state dict, normalisation included
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

from assay.errors import ModelError, OptionError, UnusedOptionError
from assay.files import make_folder, write_atomically
from assay.models.sources.blueprint import Structure
from assay.models.sources.run_folder import WEIGHTS
from assay.records.training import EpochSummary
from assay.runtime import describe_environment, device_of
from assay.runtime.store import check_same_identity
from assay.training.metrics import EpochTotals, MetricsLog, StepMetrics, Stopwatch
from assay.training.recipes import Recipe

SCHEMA_VERSION = 1
COUNTERS, PRUNING = ("step", "seconds", "fallen_back"), ("losses", "left_out")  # fields of RunState that are kept as is
# Facts of the data that a model is built for
SHAPE = ("classes", "image_shape", "preparation", "features", "outputs", "length", "reads")


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
        self.totals.add(metrics, images=images, seconds=metrics.seconds - self.seconds)
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


@dataclass
class RunFolder:
    """The folder ``out`` of one run; where it is None nothing is written and every method does nothing.

    ``average`` holds the averaged tensors where there are any: they, not the raw ones, become the weights on disk.
    ``architecture`` is the name that the recipe's network was built by, with the recipe's options, or the structure of
    another one. None: the model is the caller's own, known by ``module:Class``, which loads again if its constructor
    needs no arguments. Of several processes all read the
    checkpoint and only the one that ``leads`` writes.
    """

    out: Path | None
    model: nn.Module
    optimizers: tuple[Optimizer, ...]
    average: dict[str, Tensor]
    identity: RunIdentity
    every_seconds: float
    leads: bool = True
    architecture: str | Structure | None = None
    saved_step: int = 0
    log: MetricsLog = field(default_factory=lambda: MetricsLog(None))
    _saved_at: float = field(default_factory=time.monotonic)

    @property
    def model_name(self) -> str:
        if isinstance(self.architecture, Structure):
            return self.architecture.name
        return self.architecture or f"{type(self.model).__module__}:{type(self.model).__qualname__}"

    @property
    def last_checkpoint(self) -> str | None:
        """The last checkpoint's step and folder, for a message; None when there is none."""
        return f"that of step {self.saved_step} in {self.out}" if self.out is not None and self.saved_step else None

    def open(self, *, resume: bool) -> RunState:
        """Make the folder and, with ``resume``, restore its last checkpoint if there is one.

        Without ``resume`` a run that the folder holds is written over. Raises :class:`OptionError` when the checkpoint
        is damaged or belongs to another recipe, data set or seed, or where there is no folder to resume from.
        """
        if self.out is None:
            if resume:
                raise UnusedOptionError("resume", reason="no effect without out, the folder of the run to go on with")
            return RunState()
        for name, value in self.model.state_dict().items():
            if not isinstance(value, Tensor) or value.layout != torch.strided:
                got = f"a tensor of layout {value.layout}" if isinstance(value, Tensor) else type(value).__name__
                raise ModelError(f"model: {name}", expected="a dense tensor, to be kept in a run folder", got=got)
        path = make_folder(self.out) / "state.pt"
        state = self._restore(path) if resume and path.is_file() else RunState()
        if self.leads:
            if not resume:
                path.unlink(missing_ok=True)
            self._write_config(self.out)
            self.log = MetricsLog(self.out / "metrics.jsonl", resume_at=state.step)
        self.saved_step = state.step
        return state

    def save(self, state: RunState) -> None:
        """Write a checkpoint: all that is needed to go on exactly here, and the weights that would be kept now."""
        if self.out is None:
            return
        if self.leads:
            with state.clock.part("saving"):
                write_weights(self.out / WEIGHTS, {**self.model.state_dict(), **self.average})
                content = {
                    "schema_version": SCHEMA_VERSION,
                    "identity": json.dumps(asdict(self.identity), sort_keys=True),
                    "model": self.model.state_dict(),
                    "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
                    "average": self.average,
                    **{name: getattr(state, name) for name in COUNTERS},
                    "totals": asdict(state.totals),
                    "epochs": [summary.model_dump_json() for summary in state.epochs],
                    "clock": state.clock.seconds,
                    **{name: getattr(state, name) for name in PRUNING},
                }
                torch.save(content, buffer := io.BytesIO())
                write_atomically(self.out / "state.pt", buffer.getvalue())
        self.saved_step, self._saved_at = state.step, time.monotonic()

    def save_if_due(self, state: RunState) -> None:
        """Write a checkpoint if the last one is ``every_seconds`` old."""
        if time.monotonic() - self._saved_at >= self.every_seconds:
            self.save(state)

    def save_final(self) -> None:
        """Write the weights that the run ends with; the checkpoint keeps those the last step left."""
        if self.out is not None and self.leads:
            write_weights(self.out / WEIGHTS, self.model.state_dict())

    def _restore(self, path: Path) -> RunState:
        try:
            content = torch.load(path, map_location=device_of(self.model), weights_only=True)
            saved = json.loads(content["identity"])
        except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, KeyError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise OptionError(str(path), expected="the state of a run", got=f"a damaged file ({reason})") from None
        saved["recipe"] = Recipe.parse_saved(saved["recipe"], where=f"{path}: recipe").model_dump(mode="json")
        check_same_identity(str(path), saved, json.loads(json.dumps(asdict(self.identity))))
        self.model.load_state_dict(content["model"])
        for optimizer, optimizer_state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(optimizer_state)
        for name, tensor in self.average.items():
            tensor.copy_(content["average"][name])
        tensors = {name: content[name].cpu() for name in PRUNING if content.get(name) is not None}
        return RunState(
            **{name: content[name] for name in COUNTERS},
            **tensors,
            totals=EpochTotals(**content["totals"]),
            epochs=[EpochSummary.model_validate_json(text) for text in content["epochs"]],
            clock=Stopwatch(content.get("clock", {})),
        )

    def _write_config(self, out: Path) -> None:
        identity, architecture = self.identity, self.architecture
        options = architecture.options if isinstance(architecture, Structure) else identity.recipe["model_options"]
        config = {
            "schema_version": SCHEMA_VERSION,
            "model": {
                "name": self.model_name,
                **{fact: identity.data[fact] for fact in SHAPE if fact in identity.data},
                **normalization_of(self.model),
                "options": dict(options) if architecture else {},
            },
            "data": identity.data,
            "recipe": identity.recipe,
            "seed": identity.seed,
        }
        write_atomically(out / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
        environment = describe_environment(device_of(self.model))
        write_atomically(out / "environment.json", environment.model_dump_json(indent=2) + "\n")


def write_weights(path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None) -> None:
    """A safetensors file in which tied tensors stand once for each name."""
    separate = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, save(separate, metadata=metadata))


def normalization_of(model: nn.Module) -> dict[str, list[float]]:
    """The ``mean`` and ``std`` buffers of the first module that has both; nothing for a model that has none."""
    for module in model.modules():
        buffers = dict(module.named_buffers(recurse=False))
        if {"mean", "std"} <= buffers.keys():
            return {name: buffers[name].flatten().tolist() for name in ("mean", "std")}
    return {}
