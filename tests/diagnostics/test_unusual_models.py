"""Models and loops that do not fit: each is refused in one line or measured all the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.data.dataset import ImageDataset
from assay.diagnostics.curvature import measure_curvature
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.recorder import record_gradients
from assay.diagnostics.saliency import measure_input_gradients
from assay.diagnostics.time import measure_time_trace
from assay.errors import ModelError
from assay.verdict import find_rule, judge

MEASURES = {"depth": measure_gradient_flow, "modes": audit_modes}


class OneImage(nn.Module):
    """(C, H, W) to (K,): no batch dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten())


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.fc(x.flatten(1)) * lengths


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES.keys())
@pytest.mark.parametrize(
    ("model", "got"),
    [
        (OneImage(), "RuntimeError: (addmm: )?mat1 and mat2|RuntimeError: size mismatch"),
        (TwoInputs(), "TypeError: .*missing 1 required positional argument: 'lengths'"),
    ],
    ids=["without a batch dimension", "with two inputs"],
)
def test_over_depth_a_model_takes_a_batch_of_images_and_nothing_else(
    images: ImageDataset, untouched, measure, model: nn.Module, got: str
) -> None:
    expected = rf"model\(images\): expected a model that takes images of shape \(N, 3, 8, 8\), got ({got})"
    with untouched(model), pytest.raises(ModelError, match=expected):
        measure(model, images)


def test_one_answer_for_the_whole_batch_is_no_classifier(images: ImageDataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Flatten(0))
    with pytest.raises(ModelError, match=r"model output: expected one tensor of logits \(N, 4\)"):
        measure_gradient_flow(model, images)


class Reader(nn.Module):
    def __init__(self, *, cut: bool = False) -> None:
        super().__init__()
        self.body, self.head, self.cut = nn.GRU(2, 4, batch_first=True), nn.Linear(4, 1), cut

    def forward(self, x: Tensor) -> Tensor:
        states = self.body(x)[0]
        return self.head(states.detach()[:, -1] if self.cut else states[:, -1])


class Lengths(Reader):
    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)


def test_over_time_a_model_takes_one_tensor() -> None:
    with pytest.raises(ModelError, match=r"model\(inputs\): expected a sequence model .* got TypeError: .*'lengths'"):
        measure_time_trace(Lengths(), torch.rand(3, 9, 2), torch.mean)
    with pytest.raises(ModelError, match=r"model\(inputs\): expected a sequence model that takes one tensor \(9, 2\)"):
        measure_time_trace(Reader(), torch.rand(9, 2), torch.mean)


def test_a_recurrence_cut_off_from_the_loss_is_told_and_not_passed() -> None:
    trace = measure_time_trace(Reader(cut=True), torch.rand(3, 9, 2), torch.mean)
    (verdict,) = judge([trace], rules=[find_rule("A411")])
    assert verdict.status == "error"
    assert "exactly zero at 9 of 9 steps" in verdict.measured


class Rounded(nn.Module):
    """The loss can be differentiated, its first layer cannot be reached."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(192, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x.flatten(1)).argmax(dim=1, keepdim=True).float().expand(-1, 8))


def test_layers_behind_a_part_that_has_no_derivative_are_named(images: ImageDataset) -> None:
    flow = measure_gradient_flow(Rounded(), images)
    assert [(layer.name, layer.reached) for layer in flow.layers] == [("stem", False), ("head", True)]
    assert flow.unused == ("stem.weight", "stem.bias")
    model = Rounded()
    with record_gradients(model) as recorder:
        model(torch.rand(5, 3, 8, 8)).sum().backward()
        recorder.step()
    stem, head = recorder.summarize().layers
    assert (stem.gradient, stem.weight_gradient) == ((0.0,), (0.0,))
    assert head.weight_gradient[0] > 0


def test_any_loop_can_be_watched_whatever_its_model_takes_and_returns() -> None:
    class Dictionary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(3, 3)

        def forward(self, *, batch: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"logits": self.shared(self.shared(batch["x"]))}

    model = Dictionary()
    with record_gradients(model) as recorder:
        model(batch={"x": torch.rand(3)})["logits"].sum().backward()
        recorder.step()
    (layer,) = recorder.summarize().layers
    assert layer.activation[0] > 0
    assert layer.weight_gradient[0] > 0


class NeedsTraining(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, training: bool) -> Tensor:
        ctx.training = training
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if not ctx.training:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return gradients[0], None


class Strict(nn.GRU):
    """On a device on which the backward pass of a recurrent layer needs training mode."""

    def forward(self, x: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        outputs, state = super().forward(x, hx)
        return NeedsTraining.apply(outputs, self.training), state  # type: ignore[no-untyped-call]


class Rows(nn.Module):
    def __init__(self, layer: type[nn.GRU]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = layer(24, 6, num_layers=2, dropout=0.5, batch_first=True), nn.Linear(6, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.body(x.transpose(1, 2).flatten(2))[0][:, -1])


NUMBERS = {
    "depth": lambda model, data: [layer.gradient_per_sample for layer in measure_gradient_flow(model, data).layers],
    "saliency": lambda model, data: measure_input_gradients(model, data).quantiles_wrong,
    "curvature": lambda model, data: measure_curvature(model, data).eigenvalues[:1],
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS.keys())
def test_recurrent_layers_whose_backward_pass_needs_training_mode(images: ImageDataset, untouched, numbers) -> None:
    strict = Rows(Strict).eval()
    with untouched(strict):
        measured = numbers(strict, images)
    assert list(measured) == pytest.approx(list(numbers(Rows(nn.GRU).eval(), images)), rel=1e-4)
    assert (strict.body.dropout, strict.calls) == (0.5, 0)
