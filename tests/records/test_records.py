"""Records: frozen, free of tensors, and equal to themselves after a trip through JSON."""

from __future__ import annotations

import json
import math
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from assay.records.accuracy import CleanAccuracy, Proportion, wilson_interval
from assay.records.attack import EpsilonCurve, EpsilonPoint, RobustAccuracy
from assay.records.base import Record
from assay.records.checkup import Measurement
from assay.records.gradients import GradientFlow, LayerGradient


def record_classes() -> list[type[Record]]:
    found: list[type[Record]] = []
    queue = list(Record.__subclasses__())
    while queue:
        cls = queue.pop()
        found.append(cls)
        queue.extend(cls.__subclasses__())
    return found


def test_every_kind_is_the_snake_case_name_of_its_class() -> None:
    for cls in record_classes():
        snake = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
        assert cls.model_fields["kind"].default == snake


def test_a_record_is_its_own_record() -> None:
    curve = EpsilonCurve(attack="pgd", norm="linf", steps=1, points=(), median_epsilon=None, seconds=0.0)
    assert curve.record is curve
    assert "record" not in curve.model_dump()


def test_every_measurement_is_told_apart_by_its_kind() -> None:
    union = get_args(get_args(Measurement)[0])
    kinds = [cls.model_fields["kind"].default for cls in union]
    assert len(kinds) == len(set(kinds)) >= 11


@given(n=st.integers(1, 10**6), share=st.floats(0, 1))
def test_wilson_interval_holds_the_estimate_and_stays_in_the_unit_range(n: int, share: float) -> None:
    correct = round(n * share)
    low, high = wilson_interval(correct, n)
    assert 0 <= low <= correct / n <= high <= 1
    assert low < high


def test_wilson_interval_solves_its_defining_equation() -> None:
    # The interval is the set of p with |p̂ − p| ≤ z·√(p(1−p)/n): both ends meet it with equality.
    for correct, n in [(9173, 10_000), (1, 7), (5, 5 + 1), (250, 1000)]:
        for end in wilson_interval(correct, n):
            deviation = abs(correct / n - end)
            assert deviation == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / n), rel=1e-9)


def test_wilson_interval_agrees_with_scipy() -> None:
    scipy_stats = pytest.importorskip("scipy.stats")
    for correct, n in [(0, 10), (10, 10), (3, 10), (9173, 10_000)]:
        theirs = scipy_stats.binomtest(correct, n).proportion_ci(method="wilson")
        assert wilson_interval(correct, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="0 <= correct <= n, got 11 of 10"):
        Proportion.of(11, 10)
    with pytest.raises(ValidationError, match="0 <= correct <= n, got 11 of 10"):
        Proportion(correct=11, n=10, accuracy=1.1, low=0, high=1)


def test_records_are_frozen_and_closed() -> None:
    point = EpsilonPoint.of(3, 10, epsilon=0.1)
    with pytest.raises(ValidationError, match="frozen"):
        point.epsilon = 0.2  # type: ignore[misc]
    with pytest.raises(ValidationError, match="surprise"):
        EpsilonPoint.of(3, 10, epsilon=0.1, surprise=1)


@given(loss=st.floats(allow_nan=False), names=st.lists(st.text(), min_size=2, max_size=3))
def test_json_keeps_every_value_infinities_too(loss: float, names: list[str]) -> None:
    record = CleanAccuracy.of(
        1,
        2,
        loss=loss,
        per_class=tuple({"name": name, **Proportion.of(1, 2).model_dump()} for name in names),
        confusion=((1, 0), (1, 0)),
        expected_calibration_error=0.25,
        calibration=(),
        mean_confidence=0.75,
        images_per_second=10.0,
    )
    text = record.model_dump_json()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert TypeAdapter(Measurement).validate_json(text) == record


def test_nan_survives_json() -> None:
    layer = LayerGradient(
        name="fc",
        type="Linear",
        depth=0,
        parameters=2,
        weight_norm=1.0,
        weight_gradient=math.nan,
        relative_gradient=math.inf,
        activation=-math.inf,
        activation_gradient=0.0,
    )
    flow = GradientFlow(layers=(layer,), n=1, loss=math.nan, decay_per_layer=None)
    again = TypeAdapter(Measurement).validate_json(flow.model_dump_json())
    assert isinstance(again, GradientFlow)
    assert math.isnan(again.loss)
    assert math.isnan(again.layers[0].weight_gradient)
    assert again.layers[0].relative_gradient == math.inf
    assert again.layers[0].activation == -math.inf


def test_nested_records_keep_their_class() -> None:
    curve = EpsilonCurve(
        attack="pgd",
        norm="linf",
        steps=10,
        points=(EpsilonPoint.of(9, 10, epsilon=0.0), EpsilonPoint.of(2, 10, epsilon=8 / 255)),
        median_epsilon=0.01,
        seconds=1.0,
    )
    again = TypeAdapter(Measurement).validate_json(curve.model_dump_json())
    assert again == curve
    assert not isinstance(again, RobustAccuracy)


@pytest.mark.parametrize("k", [3, 100, 101, 1000])
def test_a_large_confusion_matrix_is_written_by_its_cells(k: int) -> None:
    matrix = [[0] * k for _ in range(k)]
    matrix[0][k - 1], matrix[k - 1][1], matrix[2][2] = 5, 1, 7
    record = CleanAccuracy.of(
        7, 13, loss=0.3, per_class=(), confusion=tuple(map(tuple, matrix)), expected_calibration_error=0.02,
        calibration=(), mean_confidence=0.92, images_per_second=1000.0,
    )  # fmt: skip
    text = record.model_dump_json()
    assert CleanAccuracy.model_validate_json(text) == record
    assert (json.loads(text)["confusion"] == matrix) is (k <= 100)
    if k > 100:
        assert json.loads(text)["confusion"] == {"classes": k, "cells": [[0, k - 1, 5], [2, 2, 7], [k - 1, 1, 1]]}
        assert len(text) < 1000


@pytest.mark.parametrize(
    "confusion",
    [{}, {"classes": 2}, {"classes": -1, "cells": []}, {"classes": 10**9, "cells": []},
     {"classes": 2, "cells": [[0, 2, 1]]}, {"classes": 2, "cells": [[0, 1]]}, {"classes": 2, "cells": ["x"]}],
)  # fmt: skip
def test_cells_of_no_confusion_matrix_are_refused(confusion: dict[str, object]) -> None:
    record = CleanAccuracy.of(
        1, 1, loss=0.3, per_class=(), confusion=(), expected_calibration_error=0.0, calibration=(), mean_confidence=1.0,
        images_per_second=1.0,
    )  # fmt: skip
    document = {**json.loads(record.model_dump_json()), "confusion": confusion}
    with pytest.raises(ValidationError, match="confusion"):
        CleanAccuracy.model_validate(document)
