"""The pages of compress, factor and trace begin with what was found, and leave out what was not asked."""

from __future__ import annotations

import re
from html import unescape

import pytest
import torch

from assay.lowrank import as_matrix, factorize, measure_landscape
from assay.lowrank.summary import describe_factorization
from assay.records.accuracy import CleanAccuracy
from assay.records.compression import CompressionReport, LayerCompression, NetworkMeasurement
from assay.report.check_page import render_page
from assay.report.compression_page import render_compression_page
from assay.report.factor_page import render_factor_page
from assay.report.lowrank_wording import compression_headline
from assay.report.summary import in_order
from assay.tracing import trace

SLOWER, ENOUGH = "none of 11 cheaper forms was faster", "the budget needs no more"


def layer(name: str, *, kind: str = "kept", reason: str = "") -> LayerCompression:
    share = 1 if kind == "kept" else 0.5
    return LayerCompression(
        name=name, kind=kind, rank=4, inner=None, full_rank=8, flops_before=1000, flops_after=int(1000 * share),
        parameters_before=100, parameters_after=int(100 * share), latency_before=1e-3, latency_after=1e-3 * share,
        condition_before=3.0, condition_after=2.0, relative_error=0.01, spectrum=(3.0, 1.0), reason=reason,
    )  # fmt: skip


def network(right: int, *, flops: int, latency: float) -> NetworkMeasurement:
    empty = {"per_class": (), "confusion": (), "calibration": ()}
    clean = CleanAccuracy.of(
        right, 200, expected_calibration_error=0.1, mean_confidence=0.9, loss=0.3, images_per_second=1.0, **empty
    )
    return NetworkMeasurement(
        parameters=1000, flops=flops, latency=latency, latency_low=latency, latency_high=latency, batch=1, clean=clean
    )


def report(*layers: LayerCompression, ratio: float = 0.8) -> CompressionReport:
    changed = any(each.kind != "kept" for each in layers)
    before = network(180, flops=2000, latency=1e-2)
    after = network(177, flops=1500, latency=1e-2 * ratio) if changed else before
    return CompressionReport(
        model="net", data="digits", target="0.7x of the FLOPs", calibration_images=64, fine_tuning_seconds=0.0,
        fine_tuning_epochs=0.0, seconds=1.0, before=before, compressed=after.clean, after=after, latency_ratio=ratio,
        layers=layers, curve=(), curve_top=0.9,
    )  # fmt: skip


LEFT = (layer("a", reason=SLOWER), layer("b", reason=SLOWER))
COST = "25 % fewer FLOPs for −1.50 points of accuracy"
REPLACED = layer("b", kind="linear")


@pytest.mark.parametrize(
    ("layers", "ratio", "headline"),
    [
        ((LEFT[0], REPLACED), 0.8, f"1.25 times as fast: {COST}"),
        ((REPLACED,), 1.1, f"Not faster, 1.10 times the latency: {COST}"),
        (LEFT, 0.98, "No layer got faster: nothing was replaced"),
        (
            (layer("a", reason=SLOWER), layer("b", reason=ENOUGH)),
            1.0,
            "The budget needs no change: nothing was replaced",
        ),
    ],
)
def test_compress_says_first_whether_anything_got_faster(layers, ratio, headline):
    made = report(*layers, ratio=ratio)
    assert compression_headline(made) == headline
    page = render_compression_page(made)
    assert f"<h1>{headline}</h1>" in page
    replaced = any(each.kind != "kept" for each in layers)
    assert ('class="key-figures"' in page) == replaced  # two equal networks need no figures, and noise is no speed
    assert ("times as fast" in page) == (replaced and ratio < 1)
    if not replaced:
        assert "11 cheaper forms was faster" in page[: page.index("Before and after</h2>")]


def test_factor_lists_eight_critical_points_at_most_and_short():
    x = torch.randn(24, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    landscape = measure_landscape(x, 9)
    assert len(landscape.critical_points) > 8
    page = render_factor_page(describe_factorization(factorize(x, 9), as_matrix(x), source="x", landscape=landscape))
    table = page[page.index("Critical points") :]
    rows = re.findall(r"<td[^>]*>(.*?)</td>", table[table.index("<tbody>") : table.index("</tbody>")])
    assert len(rows) == 8 * 5
    assert rows[0] == "1–9"
    assert rows[5] == "1–8, 10"
    assert rows[35:37] == ["none", "strict saddle"]
    assert f"8 of {len(landscape.critical_points)}" in table


def test_a_trace_shows_what_it_judged_and_no_gap(network_context):
    traced = trace(network_context.model, network_context.dataset, steps=2, learning_rate=1e-3)
    page = render_page(traced.record)
    judged = {verdict.category for verdict in traced.verdicts if verdict.status != "not run"}
    titles = re.findall(r'<p class="title">(.*?)</p>', page)
    assert len(re.findall(r'class="state"', page)) == len(judged) < 6, titles
    assert "did not run" not in page
    assert "nothing measured" not in page
    assert "Time of each stage" not in page
    assert "Benign images" not in page
    for kept, told in (({"pass"}, "rules hold: {} ({})."), ({"pass", "error", "warn"}, "Not met: {} ({}).")):
        verdicts = tuple(verdict for verdict in traced.verdicts if verdict.status in kept)
        page = unescape(render_page(traced.record.model_copy(update={"verdicts": verdicts})))
        first = in_order([v for v in verdicts if len(kept) > 1 or v.category == "optimisation"])[0]
        assert told.format(first.claim, first.measured) in page[page.index("<h1>") : page.index("</h1>")]
