"""``assay.trace`` and ``trace_sequences``: what they measure, and that any model is left as it was found."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import assay
from assay.data.dataset import ImageDataset
from assay.data.sequences import adding_problem
from assay.diagnostics.depth import measure_gradient_flow
from assay.errors import ModelError, OptionError
from assay.models.sequence import build_sequence_model
from assay.records.accuracy import SequenceAccuracy
from assay.records.gradients import DepthTrace, GradientFlow, LayerGradient
from assay.records.reading import read_checkup
from assay.records.recurrence import TimeTrace
from assay.report.terminal.trace import print_traces
from assay.tracing import trace_sequences
from assay.tracing.depth import rows_of_step


class Net(nn.Module):
    """Anybody's model, left in training mode, with a buffer and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4 * 36, 3)
        self.features[0].bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@pytest.fixture
def data() -> ImageDataset:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (48, 3, 8, 8), generator=draws, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(48) % 3, ("a", "b", "c"), name="made", split="test")


def state(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [(name, value.clone()) for name, value in model.state_dict().items()]


def test_any_model_is_traced_and_left_as_it_was_found(data: ImageDataset) -> None:
    model = Net().train()
    before = state(model)
    report = assay.trace(model, data, steps=4, every=2, curvature=True, name="mine")
    kinds = ["mode_audit", "normalization_audit", "gradient_flow", "input_gradients", "depth_trace", "curvature"]
    assert [record.kind for record in report.records] == kinds
    assert all(torch.equal(value, old) for (_, value), (_, old) in zip(state(model), before, strict=True))
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert [p.requires_grad for p in model.parameters()].count(False) == 1
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_its_records_are_those_of_the_single_measurements_and_follow_from_the_seed(data: ImageDataset) -> None:
    model = Net()
    report = assay.trace(model, data, steps=4, every=2, seed=3)
    assert report.record.first(GradientFlow) == measure_gradient_flow(model, data)
    again, other = (assay.trace(model, data, steps=4, every=2, seed=seed).record.first(DepthTrace) for seed in (3, 4))
    trace = report.record.first(DepthTrace)
    assert trace.steps == (1, 3)
    assert [layer.gradient for layer in trace.layers] == [layer.gradient for layer in again.layers]
    assert [layer.gradient for layer in trace.layers] != [layer.gradient for layer in other.layers]


def test_a_steep_learning_rate_moves_the_weights_more(data: ImageDataset) -> None:
    gentle, steep = (
        assay.trace(Net(), data, steps=1, learning_rate=rate).record.first(DepthTrace) for rate in (0.001, 0.1)
    )
    assert sum(layer.update[0] for layer in steep.layers) > 10 * sum(layer.update[0] for layer in gentle.layers)


def test_a_report_is_written_as_records_page_and_charts(data: ImageDataset, tmp_path: Path) -> None:
    report = assay.trace(Net(), data, steps=2, every=1, name="mine", weights="w.pt")
    names = report.write(tmp_path / "new")
    assert sorted(names) == ["input-gradients", "layers-by-steps", "report.html", "trace.json"]
    checkup = read_checkup(tmp_path / "new" / "trace.json")
    assert checkup.model_dump_json() == report.record.model_dump_json()  # NaN is not equal to itself
    assert (checkup.subject.model, checkup.subject.weights, checkup.subject.data) == ("mine", "w.pt", "made")
    assert [(v.rule, v.status) for v in checkup.verdicts] == [(v.rule, v.status) for v in report.verdicts]
    assert {path.name for path in (tmp_path / "new").iterdir()} >= {"input-gradients.svg", "input-gradients.png"}


def test_a_classifier_that_reads_rows_is_traced_over_time_as_well(data: ImageDataset) -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.RNN(24, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x.permute(0, 2, 1, 3).flatten(2))[0][:, -1])

    trace = assay.trace(Rows(), data, steps=0).record.first(TimeTrace)
    assert trace is not None
    assert len(trace.state(trace.head).norms) == 8  # the rows


def test_sequence_models_are_trained_as_copies_and_tested() -> None:
    task = adding_problem(10)
    models = {
        cell: build_sequence_model(cell, features=task.features, outputs=task.outputs, length=10, hidden=6, seed=1)
        for cell in ("rnn", "lstm")
    }
    before = {cell: state(model) for cell, model in models.items()}
    report = trace_sequences(models, task, steps=3, batch_size=8)
    assert [(type(record), record.label) for record in report.records] == [
        (TimeTrace, "rnn"),
        (SequenceAccuracy, "rnn"),
        (TimeTrace, "lstm"),
        (SequenceAccuracy, "lstm"),
    ]
    for cell, model in models.items():
        assert all(torch.equal(value, old) for (_, value), (_, old) in zip(state(model), before[cell], strict=True))
    untrained = trace_sequences(models, task, batch_size=8, test=["lstm"])
    assert [type(record) for record in untrained.records] == [TimeTrace, TimeTrace, SequenceAccuracy]
    first, trained = untrained.records[0], report.records[0]
    assert (first.trained, trained.trained) == (0, 3)
    assert first.state(first.head).norms != trained.state(trained.head).norms


def test_what_cannot_be_traced_is_named(data: ImageDataset) -> None:
    with pytest.raises(ModelError):
        assay.trace(nn.Flatten(), data)
    with pytest.raises(OptionError, match="every: expected at least 1, got 0"):
        assay.trace(Net(), data, every=0)


def test_a_step_of_large_images_takes_fewer_of_them() -> None:
    def images(side: int) -> ImageDataset:
        return ImageDataset(torch.zeros(80, 3, side, side, dtype=torch.uint8), torch.arange(80) % 2, ("a", "b"))

    layers = [layer for _ in range(6) for layer in (nn.LazyConv2d(64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2)).eval()
    model(torch.zeros(1, 3, 8, 8))
    assert rows_of_step(model, images(32)) == 64
    kept = 12 * 64 * 224 * 224 * 4  # bytes an image at least: what each convolution and each norm reads
    assert 1 <= rows_of_step(model, images(224)) <= 1.5 * 2**30 / kept


def test_every_layer_takes_one_line_of_the_terminal_however_long_its_name() -> None:
    names = [f"network._blocks.{place}._depthwise_conv" for place in range(30)]
    layer = LayerGradient(
        name="", type="Conv2dStaticSamePadding", depth=0, parameters=9, weight_norm=1.0, weight_gradient=1.0,
        relative_gradient=3.69e-2, activation=2.69, activation_gradient=1.0, gradient_per_sample=0.0604, dead=0.125,
    )  # fmt: skip
    flow = GradientFlow(
        layers=tuple(layer.model_copy(update={"name": name}) for name in names), n=40, loss=1.0, decay_per_layer=1.0
    )
    sink = StringIO()
    print_traces([flow], [], Console(file=sink, width=80))
    lines = sink.getvalue().splitlines()
    assert len(lines) == 1 + len(names) + 1
    assert all(f".{place}._depthwise_conv" in line for place, line in enumerate(lines[1:-1]))
