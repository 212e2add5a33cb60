from __future__ import annotations

import math

import pytest

from assay.records.accuracy import Proportion, SequenceAccuracy
from assay.records.configuration import InputConvention, NormalizationAudit, NormLayer
from assay.records.gradients import Curvature, DepthTrace, LayerTrace
from assay.records.recurrence import Decay, StateGradients, TimeTrace
from assay.verdict import find_rule, judge


def decay(rate: float) -> Decay:
    horizon = -1 / math.log(rate) if rate < 1 else math.inf
    return Decay(law="exponential", rate=rate, exponent=1, r2_exponential=1, r2_polynomial=0, horizon=horizon, points=9)


def time_trace(rate: float = 0.99, *, reverse_zero: int = 0, non_finite: int = 0) -> TimeTrace:
    norms = tuple(rate ** (49 - t) for t in range(50))
    states = (
        StateGradients(name="l0", part="hidden", norms=norms, decay=decay(rate), non_finite=non_finite),
        StateGradients(
            name="l0.reverse", part="hidden", reverse=True, norms=norms, decay=decay(0.9), zero=reverse_zero
        ),
    )
    return TimeTrace(label="m", length=50, n=4, loss=1.0, head="l0", states=states)


def depth_trace(*, update: float = 1e-3, non_finite: int = 0) -> DepthTrace:
    layer = LayerTrace(
        name="fc", type="Linear", depth=0, activation=(1.0,), gradient=(1.0,), weight_gradient=(1.0,), update=(update,)
    )
    first = "fc at step 1" if non_finite else None
    return DepthTrace(label="m", total=1, steps=(1,), layers=(layer,), non_finite=non_finite, first_non_finite=first)


def normalization(*, distance: float = 0.0, other: int = 60, oddities: tuple[str, ...] = ()) -> NormalizationAudit:
    layer = NormLayer(
        name="bn", type="BatchNorm2d", channels=3, distance=distance, mean_shift=0, log_variance_ratio=0,
        batches_tracked=5, oddities=oddities,
    )  # fmt: skip
    return NormalizationAudit(
        n=100, n_statistics=100, layers=(layer,), before=Proportion.of(60, 100), reestimated=None,
        conventions=(
            InputConvention.of(60, 100, convention="as is"),
            InputConvention.of(other, 100, convention="in [0, 255]"),
        ),
        stem="conv", stem_mean=0.5, stem_std=0.2,
    )  # fmt: skip


def sequence_accuracy(loss: float) -> SequenceAccuracy:
    return SequenceAccuracy.of(
        3, 10, task="adding", length=9, loss=loss, loss_unit="squared error", baseline=1 / 6, baseline_is="1",
        right_is="close",
    )  # fmt: skip


def curvature(largest: float, *, learning_rate: float | None = None) -> Curvature:
    return Curvature(
        n=10, parameters=3, eigenvalues=(largest,), smallest=0, residual=0, iterations=3, trace=1, trace_error=0,
        critical_learning_rate=2 / largest, learning_rate=learning_rate,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "record", "status"),
    [
        ("A411", time_trace(0.99), "pass"),
        ("A411", time_trace(0.96), "warn"),
        ("A411", time_trace(0.5), "error"),
        ("A412", time_trace(0.99), "pass"),
        ("A412", time_trace(1.2), "warn"),
        ("A412", time_trace(1.5), "error"),
        ("A412", time_trace(0.9, non_finite=1), "error"),
        ("A413", time_trace(reverse_zero=0), "pass"),
        ("A413", time_trace(reverse_zero=49), "warn"),
        ("A414", depth_trace(), "pass"),
        ("A414", depth_trace(non_finite=2), "error"),
        ("A415", depth_trace(update=1e-3), "pass"),
        ("A415", depth_trace(update=0.5), "warn"),
        ("A415", depth_trace(update=2.0), "error"),
        ("A416", curvature(100.0), "pass"),
        ("A416", curvature(1e6), "warn"),
        ("A416", curvature(100.0, learning_rate=0.01), "pass"),
        ("A416", curvature(100.0, learning_rate=0.03), "warn"),
        ("A417", sequence_accuracy(0.05), "pass"),
        ("A417", sequence_accuracy(0.12), "warn"),
        ("A417", sequence_accuracy(0.166), "error"),
        ("A417", sequence_accuracy(math.nan), "error"),
        ("A511", normalization(), "pass"),
        ("A511", normalization(distance=0.5), "warn"),
        ("A511", normalization(distance=5.0), "error"),
        ("A512", normalization(other=62), "pass"),
        ("A512", normalization(other=95), "error"),
        ("A513", normalization(), "pass"),
        ("A513", normalization(oddities=("momentum 0.9",)), "warn"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_side_of_each_threshold(rule: str, record, status: str) -> None:
    (verdict,) = judge([record], rules=[find_rule(rule)])
    assert verdict.status == status


def test_without_a_trace_these_rules_keep_quiet() -> None:
    assert not {verdict.rule for verdict in judge([])} & {"A411", "A416", "A511"}
