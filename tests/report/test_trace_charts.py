"""What the pictures of traces hold: every number, and a sign for what is none."""

from __future__ import annotations

import json
import math

from assay.records.gradients import DepthTrace, LayerTrace
from assay.records.recurrence import Decay, StateGradients, TimeConstants, TimeTrace
from assay.report.trace_charts import forget_time_constants, gradients_over_time, layers_by_steps


def layer(name: str, gradient: tuple[float, ...], depth: int) -> LayerTrace:
    ones = (1.0,) * len(gradient)
    return LayerTrace(
        name=name, type="Linear", depth=depth, activation=ones, gradient=gradient, weight_gradient=ones, update=ones
    )


def time_trace(label: str, norms: tuple[float, ...]) -> TimeTrace:
    fit = Decay(
        law="exponential", rate=0.5, exponent=1, r2_exponential=1, r2_polynomial=0, horizon=1.4, points=len(norms)
    )
    state = StateGradients(name="l0", part="hidden", norms=norms, decay=fit)
    constants = (TimeConstants(name="l0", steps=(2.0, 30.0), median=16.0),)
    return TimeTrace(
        label=label, task="adding", length=len(norms), n=4, loss=1.0, head="l0", states=(state,),
        time_constants=constants, trained=7,
    )  # fmt: skip


def test_what_is_no_number_has_a_colour_of_its_own_and_is_explained() -> None:
    layers = (layer("a", (1e-3, 10.0), 0), layer("b", (0.0, 0.0), 1), layer("c", (1.0, math.nan), 2))
    trace = DepthTrace(label="m", total=2, steps=(1, 2), layers=layers, non_finite=1, first_non_finite="c at step 2")
    chart = layers_by_steps(trace).to_dict()
    (rows,) = chart["datasets"].values()
    assert [row["kind"] for row in rows] == ["finite", "finite", "zero", "zero", "finite", "not finite"]
    assert [row["y"] for row in rows[:2]] == [-3.0, 1.0]
    assert chart["title"]["subtitle"] == "grey: no gradient reaches it; black: not finite"
    assert "NaN" not in json.dumps(chart)


def test_several_models_share_one_chart_in_the_distance_from_the_last_step() -> None:
    traces = [time_trace("rnn", (1e-4, 1e-2, 1.0)), time_trace("lstm", (0.1, 0.1, 0.1))]
    chart = json.dumps(gradients_over_time(traces).to_dict(), ensure_ascii=False)
    assert '{"d": 2, "y": -4.0, "series": "rnn"}' in chart
    assert "adding, 3 steps, after 7 steps of training" in chart
    assert "dashed: the 3 steps of the sequence" in json.dumps(forget_time_constants(traces).to_dict())
