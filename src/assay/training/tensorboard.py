"""Steps as TensorBoard scalars."""

from __future__ import annotations

from pathlib import Path

from assay.errors import DependencyError
from assay.training.metrics import StepMetrics


class TensorBoardLog:
    """Call it with every step's metrics; the event file goes into ``folder``.

    Raises :class:`DependencyError` when the package is missing.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise DependencyError("tensorboard", extra="tensorboard", purpose="--tensorboard") from None
        self._writer = SummaryWriter(str(folder))

    def __call__(self, metrics: StepMetrics) -> None:
        """Write loss, accuracy, learning rate, gradient norm and speed of one step."""
        for name in ("loss", "accuracy", "learning_rate", "gradient_norm", "images_per_second"):
            self._writer.add_scalar(f"train/{name}", getattr(metrics, name), metrics.step)
        if metrics.step == metrics.steps:
            self._writer.close()
