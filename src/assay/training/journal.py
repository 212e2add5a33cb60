"""What a run keeps on disk while it goes: checkpoints when due, a line a step, and the weights at the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from assay.files import make_folder
from assay.records.training import EpochSummary
from assay.training.checkpoint import RunIdentity, RunState, restore_state, save_state, save_weights, write_config
from assay.training.metrics import MetricsLog, StepMetrics


@dataclass
class Journal:
    """The run folder ``out`` of one run; without a folder nothing is kept and every method does nothing.

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
        """Make the folder, and go back to its last checkpoint if that is wanted and there is one.

        A folder that holds a finished or broken run is written over unless ``resume``.
        """
        if self.out is None:
            return RunState()
        make_folder(self.out)
        state = RunState()
        if resume:
            state = restore_state(self.out, self.model, self.optimizers, self.average, identity=self.identity)
        if self.leads:
            (self.out / "state.pt").unlink(missing_ok=True) if not resume else None
            write_config(self.out, self.model, self.identity, architecture=self.architecture)
            self._log = MetricsLog(self.out / "metrics.jsonl", resume_at=state.step)
        self.saved_step = state.step
        return state

    @property
    def kept(self) -> str | None:
        """Where the last checkpoint is and of which step, in words; None when there is none."""
        return f"that of step {self.saved_step} in {self.out}" if self.out is not None and self.saved_step else None

    def step(self, metrics: StepMetrics) -> None:
        """Log one step."""
        if self._log is not None:
            self._log.step(metrics)

    def epoch(self, summary: EpochSummary, *, step: int) -> None:
        """Log one epoch."""
        if self._log is not None:
            self._log.epoch(summary, step=step)

    def watch(self, seen: dict[str, object] | None, *, epoch: int, step: int, fallen_back: bool) -> None:
        """Log what the watch over an adversary saw, if there is one."""
        if self._log is not None and seen is not None:
            self._log.watch(seen, epoch=epoch, step=step, fallen_back=fallen_back)

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
