"""Sequences through the one training loop: the same arithmetic, resuming, tests, and refusals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay.data.sequences import TEST, TRAIN, SequenceTask, adding_problem, copy_memory
from assay.errors import AssayError, DivergedError, InterruptedRunError, ModelError, OptionError
from assay.evaluate import measure_sequence_accuracy
from assay.models.sequence import build_sequence_model
from assay.models.sources import load_model
from assay.training.loop import fit
from assay.training.metrics import StepMetrics
from assay.training.recipes import Recipe
from assay.training.sequence_model import constant_recipe, load_sequence_run, train_sequence_model

TASKS = {"adding": adding_problem(8, seed=3), "copy": copy_memory(2, seed=3)}


def model_for(task: SequenceTask, cell: str = "gru") -> nn.Module:
    return build_sequence_model(cell, hidden=8, **task.shape)


def recipe_for(cell: str = "gru", *, steps: int = 4, **changes: object) -> Recipe:
    plain = constant_recipe("small", model=cell, steps=steps, batch_size=6, learning_rate=0.01)
    return Recipe.parse({**plain.model_dump(), "model_options": {"hidden": 8}, **changes})


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_training_equals_the_loop_written_out(task: SequenceTask) -> None:
    ours, theirs = model_for(task), model_for(task)
    seen: list[StepMetrics] = []
    run = fit(ours, task, recipe=recipe_for(), seed=3, on_step=seen.append)
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.0)
    for step in range(4):
        inputs, targets = task.draw(6, TRAIN, step)
        optimizer.zero_grad()
        output = theirs(inputs)
        loss = task.loss(output, targets)
        loss.backward()
        assert seen[step].loss == pytest.approx(float(loss.detach()), rel=1e-5)
        assert seen[step].accuracy == pytest.approx(float(task.right(output, targets).float().mean()))
        optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert (run.modality, run.loss_unit, run.n) == ("sequences", task.loss_unit, 24)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS.keys())
def test_stopped_and_resumed_it_ends_in_the_same_weights(tmp_path: Path, task: SequenceTask) -> None:
    recipe = recipe_for("lstm", steps=6)
    complete = train_sequence_model(task, recipe=recipe, seed=3)

    def stop(metrics: StepMetrics) -> None:
        if metrics.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRunError, match="interrupted after step 3 of 6; go on with --resume"):
        train_sequence_model(task, recipe=recipe, seed=3, out=tmp_path, on_step=stop)
    resumed = train_sequence_model(task, recipe=recipe, seed=3, out=tmp_path, resume=True)
    assert equal(complete.model, resumed.model)
    other = adding_problem(9, seed=3) if task.name == "adding" else copy_memory(3, seed=3)
    with pytest.raises(OptionError, match=r"state\.pt: data\.length: expected .* as in the run to resume, got"):
        train_sequence_model(other, recipe=recipe, seed=3, out=tmp_path, resume=True)


def test_micro_batches_sum_to_the_gradient_of_the_whole_batch() -> None:
    task, plain = TASKS["adding"], {"name": "sgd", "lr": 0.1}
    complete, pieces = model_for(task), model_for(task)
    fit(complete, task, recipe=recipe_for(optimizer=plain))
    fit(pieces, task, recipe=recipe_for(optimizer=plain, micro_batch=2))
    for a, b in zip(complete.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_step_context_adds_to_the_gradient() -> None:
    """A penalty ½·λ‖θ‖² as a context manager is plain weight decay of SGD: θ ← θ − η(g + λθ)."""
    task, strength = TASKS["adding"], 0.3

    @contextmanager
    def penalised(model: nn.Module) -> Iterator[None]:
        yield
        for parameter in model.parameters():
            parameter.grad.add_(parameter.detach(), alpha=strength)

    plain = {"name": "sgd", "lr": 0.1, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    ours, theirs, without = model_for(task), model_for(task), model_for(task)
    fit(ours, task, recipe=recipe_for(optimizer=plain), step_context=penalised)
    fit(
        theirs,
        task,
        recipe=recipe_for(optimizer={**plain, "weight_decay": strength, "decay_roles": ["norm", "bias", "weight"]}),
    )
    fit(without, task, recipe=recipe_for(optimizer=plain))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert not equal(ours, without)


def test_accuracy_is_beside_the_loss_that_needs_no_memory() -> None:
    class Oracle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            return (x[..., 0] * x[..., 1]).sum(1, keepdim=True) + self.bias

    task = adding_problem(10)
    perfect = measure_sequence_accuracy(Oracle(), task, n=50)
    assert (perfect.correct, perfect.loss) == (50, pytest.approx(0.0, abs=1e-10))
    off = Oracle()
    off.bias.data.fill_(0.05)  # a little more than what counts as right
    found = measure_sequence_accuracy(off, task, n=50)
    assert (found.correct, found.loss) == (0, pytest.approx(0.0025, rel=1e-3))
    assert found.baseline == 1 / 6
    copy = copy_memory(3)
    _, targets = copy.draw(5, TEST, 0)
    logits = nn.functional.one_hot(targets, 9).float()
    assert bool(copy.right(logits, targets).all())
    logits[0, -1] = logits[0, -1].roll(1)
    logits[1, 0] = logits[1, 0].roll(1)  # before the answer is due
    assert copy.right(logits, targets).tolist() == [False, True, True, True, True]


def test_a_divergence_names_step_and_layer() -> None:
    task = adding_problem(30)
    model = build_sequence_model("rnn-linear", hidden=8, **task.shape)
    with torch.no_grad():
        model.body.cell.recurrent.weight.mul_(1e3)
    with pytest.raises(DivergedError, match=r"^step 1: the loss is .*first in layer body"):
        fit(model, task, recipe=recipe_for("rnn-linear"))


REFUSED = {
    "augmentation": ({"augment": {"name": "flip-crop"}}, r"recipe small: augment\.name: expected none: adding is a"),
    "an adversary": ({"adversary": {"name": "pgd"}}, r"adversary\.name: expected none"),
    "smoothing": ({"label_smoothing": 0.1}, r"label_smoothing: expected none of it"),
    "a network for images": ({"model": "resnet20"}, r"model: expected a sequence model for the task adding: rnn, "),
    "an unknown option": ({"model_options": {"width": 3}}, r"model_options: width: expected no option of this name"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_only_images_have_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        train_sequence_model(TASKS["adding"], recipe=recipe_for(**changes))


def test_a_perturbation_of_images_is_refused() -> None:
    with pytest.raises(OptionError, match="perturb: expected None: adding is no set of images"):
        fit(model_for(TASKS["adding"]), TASKS["adding"], recipe=recipe_for(), perturb=lambda model, x, y: x)


def test_the_command_trains_tests_and_its_folder_can_be_opened_again(
    tmp_path: Path, run: Callable[..., tuple[int, str, str]]
) -> None:
    few = ["sequence.length=12", "sequence.samples=128", "sequence.test_samples=40", "epochs=1"]
    out = tmp_path / "run"
    code, said, _ = run("train", "adding", "--out", out, *(part for item in few for part in ("--set", item)))
    assert code == 0
    assert "Without memory: 0.1667 (always answering 1: MSE 1/6)" in said
    record = json.loads((out / "test.json").read_text())
    assert (record["kind"], record["n"], record["baseline"]) == ("sequence_accuracy", 40, 1 / 6)
    model, task = load_sequence_run(out)
    assert task.length == 12
    assert measure_sequence_accuracy(model, task, n=40).loss == pytest.approx(record["loss"])
    with pytest.raises(ModelError, match=r"config\.json: expected a run on images, got one on the task adding"):
        load_model(out)
    for option in (("--limit", "5"), ("--validation-fraction", "0.1"), ("--image-size", "8")):
        code, _, errors = run("train", "adding", "--out", tmp_path / "other", *option)
        assert code == 2
        assert f"{option[0]}: expected nothing: adding is drawn anew at every step" in errors
    assert not (tmp_path / "other").exists()


def test_another_sequence_model_keeps_the_way_of_reading(run: Callable[..., tuple[int, str, str]]) -> None:
    shown = run("train", "--recipe", "digits-pixels-lstm", "--model", "gru", "--show")[1]
    assert 'model = "gru"' in shown
    assert 'by = "pixel"' in shown
    assert 'by = "pixel"' not in run("train", "--recipe", "digits-pixels-lstm", "--model", "mlp", "--show")[1]


def test_a_folder_that_is_no_such_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssayError, match=r"config\.json: expected the configuration of a run"):
        load_sequence_run(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"recipe": {"name": "x"}, "data": {"name": "digits"}, "seed": 0}))
    with pytest.raises(ModelError, match="expected a run on one of the tasks adding, copy, got one on digits"):
        load_sequence_run(tmp_path)
