"""Low rank and conditioning of the weight matrices."""

from __future__ import annotations

import math

from assay.records.compression import LayerSpectra
from assay.verdict import examples as ex
from assay.verdict.rule import Rule, RuleExamples, RuleResult, grade, largest, name_some, reads
from assay.wording import percent

REDUNDANT = 0.3
CONDITION = 1e4


def _full_rank(spectra: LayerSpectra) -> RuleResult | None:
    if not spectra.layers:
        return None
    ranks = [(layer.rank_for_99, min(layer.rows, layer.columns), layer.name) for layer in spectra.layers]
    lowest = sorted(ranks, key=lambda rank: rank[0] / max(1, rank[1]))
    where = name_some(f"{name} (rank {needed} of {full})" for needed, full, name in lowest)
    measured = f"{percent(spectra.redundancy)} of the parameters saved at 99 % of the energy"
    status = grade(spectra.redundancy, warn=REDUNDANT, error=math.inf)  # it costs time, not correctness
    return RuleResult(status, measured, spectra.redundancy, where=where)


def _well_conditioned(spectra: LayerSpectra) -> RuleResult | None:
    if not spectra.layers:
        return None
    worst = largest(spectra.layers, by=lambda layer: layer.condition_number)
    number = worst.condition_number
    measured = "a layer without full rank" if math.isinf(number) else f"κ up to {number:,.0f}"
    status = grade(number, warn=CONDITION, error=math.inf)
    return RuleResult(status, measured, number, where=worst.name)


RULES = (
    Rule(
        id="A601",
        claim="Weights not redundant: low-rank factorisation would save few parameters",
        fault="Redundant weights: layers of low rank",
        threshold="less than 30 % saved when every layer keeps 99 % of its energy (squared singular values)",
        **reads(LayerSpectra, _full_rank),
        why="Layers of low rank can be factorised: nearly the same outputs with less time and memory.",
        fix="Factorise the layers named, and measure accuracy and latency again.",
        command="assay check MODEL --data DATA",
        mend="assay compress MODEL --data DATA --max-drop 1",
        limits="Energy of the weights is not accuracy: small singular values can matter for the data, and large ones "
        "may not. Fewer parameters need not be faster.",
        examples=RuleExamples(passing=lambda: (ex.spectra(),), failing=lambda: (ex.spectra(redundancy=0.7),)),
        reference="Denil et al. 2013, Predicting parameters in deep learning, arXiv:1306.0543",
        remedy="compression",
    ),
    Rule(
        id="A602",
        claim="Every layer is well conditioned (condition number κ)",
        fault="A badly conditioned layer (condition number κ)",
        threshold="κ, the largest over the smallest singular value, at most 10⁴",
        **reads(LayerSpectra, _well_conditioned),
        why="A layer with a huge κ loses directions of its input to rounding and slows gradient descent.",
        fix="Orthogonal initialisation or normalisation when training; otherwise factorise the layer to its rank.",
        command="assay check MODEL --data DATA",
        mend="torch.nn.init.orthogonal_(layer.weight)",
        limits="One layer at a time: the condition of the whole network, activations and normalisation included, is "
        "not measured. Layers pruned or factorised on purpose have no full rank.",
        examples=RuleExamples(passing=lambda: (ex.spectra(),), failing=lambda: (ex.spectra(condition=math.inf),)),
        reference="Saxe et al. 2014, Exact solutions to the nonlinear dynamics of learning, arXiv:1312.6120",
    ),
)
