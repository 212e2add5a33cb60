"""Do training and evaluation mode differ through dropout and normalisation, and through nothing else?"""

from __future__ import annotations

import math

from torch import nn

from assay.claims.claim import Settings, register_claim
from assay.claims.evidence import difference, drawn, fact, mean_point
from assay.data.dataset import ImageDataset
from assay.diagnostics.modes import audit_modes
from assay.models.sources import load_model
from assay.records.claims import Chart, ClaimEvidence, ClaimFact

KINDS = {
    "neither": "mlp,width=64",
    "dropout": "mlp,width=64,dropout=0.5",
    "BatchNorm": "mlp,width=64,batch_norm=true",
    "both": "mlp,width=64,dropout=0.5,batch_norm=true",
}
MARGIN = 1.0  # per cent of the range of the logits


@register_claim(
    "modes-differ",
    "Training and evaluation mode differ only through dropout and normalisation.",
    decides="The logits of one network in both modes: a gap of exactly 0 without either, and of more than 1 % of their "
    "range with each.",
    would_change="A module that reads its own training flag for something else (an auxiliary head, a random depth). "
    "Normalisation that keeps no running statistics, such as LayerNorm, has no mode.",
    references=(
        "Srivastava et al. 2014, Dropout, Journal of Machine Learning Research 15",
        "Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167",
    ),
)
def measure(settings: Settings) -> ClaimEvidence:
    """max |logits in training mode − logits in evaluation mode| over their range, of each network and each seed."""
    data, seeds = settings.test(), settings.seeds(settings.pick(tiny=2, quick=5, full=10))
    gaps = {
        name: [_gap(load_model(spec, image_shape=data.shape, classes=10, seed=seed), data) for seed in seeds]
        for name, spec in KINDS.items()
    }
    layer_norm = _gap(_with_layer_norm(data), data)
    without = gaps["neither"]
    return ClaimEvidence(
        how=f"A perceptron of three layers with random weights, {len(seeds)} seeds, on 16 images of {data.name}: the "
        "largest difference of the logits between the two modes, in per cent of their range.",
        facts=(
            _exactly_zero("largest gap without dropout and normalisation", max(without)),
            _exactly_zero("gap with LayerNorm, which keeps no running statistics", layer_norm, decides=False),
        ),
        samples=tuple(
            difference(f"gap with {name}", values, "% of the range", "increase", MARGIN)
            for name, values in gaps.items()
            if name != "neither"
        ),
        charts=(
            Chart(
                finding="Without dropout and BatchNorm the modes agree to the last bit",
                **drawn("bars", x="the perceptron has", y="largest difference of logits, % of range", x_scale="names"),
                points=tuple(mean_point(values, x=name, within=(0, math.inf)) for name, values in gaps.items()),
                note="Interval: 95 % over the seeds.",
            ),
        ),
    )


def _exactly_zero(name: str, gap: float, *, decides: bool = True) -> ClaimFact:
    got = "0" if gap == 0 else f"{gap:.2g} %"
    return fact(name, "exactly 0", got, gap == 0, decides=decides)


def _gap(model: nn.Module, data: ImageDataset) -> float:
    gap = audit_modes(model, data).train_eval_gap
    assert gap is not None
    return 100 * gap


def _with_layer_norm(data: ImageDataset) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(data.shape), 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 10)
    )
