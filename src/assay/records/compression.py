"""What became of a network whose layers were replaced by thinner ones."""

from __future__ import annotations

from typing import Literal

from assay.records.accuracy import CleanAccuracy
from assay.records.attack import RobustAccuracy
from assay.records.base import Frozen, Record


class LayerCompression(Frozen):
    """One layer: how it was replaced, or why it was left.

    ``relative_error`` is E‖y − y′‖²/E‖y − ȳ‖² of its output on the calibration images before fine-tuning, with the
    inputs it gets in the compressed network; errors weigh as much as they move the network's output.
    ``latency_before`` and ``latency_after`` are seconds for one batch. ``condition_before`` and ``condition_after`` are
    κ = σ₁/σ_r of the layer as a matrix (out, in·k²): the weight as it was, and the product of the factors as they are
    in the end, r their rank. ``spectrum`` holds the singular values before.
    """

    name: str
    kind: Literal["linear", "channel", "spatial", "tucker", "kept"]
    rank: int
    inner: int | None
    full_rank: int
    flops_before: int
    flops_after: int
    parameters_before: int
    parameters_after: int
    latency_before: float
    latency_after: float
    condition_before: float
    condition_after: float
    relative_error: float
    spectrum: tuple[float, ...] = ()
    reason: str = ""


class CompressionPoint(Frozen):
    """The network with every layer at one ``share`` of its full rank: accuracy on held-out images, not fine-tuned."""

    method: Literal["data-aware", "weight SVD"]
    share: float
    flops: int
    accuracy: float
    n: int


class NetworkMeasurement(Frozen):
    """A network as measured: its size, its speed and its accuracies on test images.

    ``latency`` is the fastest of the interleaved runs, in seconds for one batch of ``batch`` images: what the work
    takes; ``latency_low`` and ``latency_high`` are the quartiles: what else the machine was doing.
    """

    parameters: int
    flops: int
    latency: float
    latency_low: float
    latency_high: float
    batch: int
    clean: CleanAccuracy
    robust: RobustAccuracy | None = None


class CompressionReport(Record):
    """A network before and after.

    ``curve`` compares uniform rank fractions with and without knowledge of the data, on images held out of the
    training set, where the whole network has ``curve_top``. ``latency_ratio`` is after/before. ``compressed`` is the
    accuracy of the compressed network before its fine-tuning. ``left_out`` names the linear and convolutional layers
    that could not be replaced, each with the reason; ``notes`` say what a reader should know of the numbers.
    """

    kind: Literal["compression_report"] = "compression_report"
    model: str
    data: str
    target: str
    calibration_images: int
    fine_tuning_seconds: float
    fine_tuning_epochs: float
    seconds: float
    before: NetworkMeasurement
    compressed: CleanAccuracy
    after: NetworkMeasurement
    latency_ratio: float
    layers: tuple[LayerCompression, ...]
    curve: tuple[CompressionPoint, ...]
    curve_top: float
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class LayerSpectrum(Frozen):
    """One layer's weight as a matrix.

    ``stable_rank`` is ‖W‖²_F/σ₁²; ``effective_rank`` exp(−Σ p ln p) with p = σ/Σσ (Roy & Vetterli 2007);
    ``rank_for_99`` the smallest r that holds 99 % of Σσ²; ``condition_number`` σ₁/σ_min, infinite when σ_min = 0.
    """

    name: str
    type: str
    rows: int
    columns: int
    singular_values: tuple[float, ...]
    stable_rank: float
    effective_rank: float
    rank_for_99: int
    condition_number: float
    groups: int = 1


class LayerSpectra(Record):
    """The spectra of all weight matrices of two rows or more.

    ``redundancy`` is 1 − Σ parameters of the rank-99 factors (where fewer) / Σ parameters.
    """

    kind: Literal["layer_spectra"] = "layer_spectra"
    layers: tuple[LayerSpectrum, ...]
    redundancy: float
