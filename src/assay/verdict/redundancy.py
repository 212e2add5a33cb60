"""How much of the model is doing anything?"""

from __future__ import annotations

import math

from assay.records.compression import LayerSpectra
from assay.records.finding import Status
from assay.verdict.rule import Evidence, Outcome, Rule, name_some, percent

REDUNDANT = 0.3
CONDITION = 1e4


def _advise(value: float, limit: float) -> Status:
    """Redundancy costs time, never correctness: it is a warning at most."""
    return "pass" if value <= limit else "warn"


def _parameters_needed(evidence: Evidence) -> Outcome | None:
    spectra = evidence.first(LayerSpectra)
    assert spectra is not None
    if not spectra.layers:
        return None
    lowest = sorted(spectra.layers, key=lambda layer: layer.rank_for_99 / min(layer.rows, layer.columns))
    where = name_some(
        f"{layer.name} (rank {layer.rank_for_99} of {min(layer.rows, layer.columns)})" for layer in lowest
    )
    measured = f"{percent(spectra.redundancy)} of the weights spared at 99 % of the energy"
    return Outcome(_advise(spectra.redundancy, REDUNDANT), measured, spectra.redundancy, where=where)


def _well_conditioned(evidence: Evidence) -> Outcome | None:
    spectra = evidence.first(LayerSpectra)
    assert spectra is not None
    if not spectra.layers:
        return None
    worst = max(spectra.layers, key=lambda layer: layer.condition_number)
    number = worst.condition_number
    measured = "a layer without full rank" if math.isinf(number) else f"κ up to {number:,.0f}"
    return Outcome(_advise(number, CONDITION), measured, number, where=worst.name)


RULES = (
    Rule(
        id="A601",
        category="redundancy",
        claim="Its weights are needed",
        threshold="less than 30 % spared when every layer keeps 99 % of its energy",
        needs=(LayerSpectra,),
        judge=_parameters_needed,
        why="Layers of low rank can be factorised: the same answers with less time and memory.",
        fix="Factorise the layers named, and measure accuracy and latency again.",
        reference="Denil et al. 2013, Predicting parameters in deep learning, arXiv:1306.0543",
        remedy="compression",
    ),
    Rule(
        id="A602",
        category="redundancy",
        claim="Every layer is well conditioned",
        threshold="ratio of the largest to the smallest singular value at most 10⁴",
        needs=(LayerSpectra,),
        judge=_well_conditioned,
        why="A layer with a huge ratio loses directions of its input to rounding and slows gradient descent.",
        fix="Orthogonal initialisation or normalisation when training; otherwise factorise the layer to its rank.",
        reference="Saxe et al. 2014, Exact solutions to the nonlinear dynamics of learning, arXiv:1312.6120",
    ),
)
