"""Singular values of the layers, each as the matrix (c_out, c_in·k²)."""

from __future__ import annotations

from typing import Literal

from assay.records.base import Frozen, Record


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
