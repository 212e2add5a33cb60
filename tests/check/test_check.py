"""The whole job on small models: complete, repeatable, resumable, and gentle with the model."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from assay.check import BUDGETS, Budget, run_check
from assay.check.run import PARTIAL
from assay.check.stages import STAGES, CheckContext
from assay.data.dataset import ImageDataset
from assay.errors import InterruptedRunError, ModelError, OptionError
from assay.evaluate import predict
from assay.records.accuracy import CleanAccuracy
from assay.records.attack import AdversarialGallery, AttackSanity, EpsilonCurve, RobustAccuracy, SampleGallery
from assay.records.checkup import Checkup
from assay.records.configuration import ModeAudit
from assay.records.failure import FailedMeasurement
from assay.records.gradients import GradientFlow, InputGradients
from assay.verdict import RULES

SMALL = Budget(
    name="quick", clean=None, attacked=24, probed=16, steps=3, restarts=1, gallery=3, sanity_samples=8, sanity_queries=5
)


@pytest.fixture
def data() -> ImageDataset:
    """Sixty pictures of three classes: a bright stripe at the top, in the middle or at the bottom, in noise."""
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    images = torch.randint(0, 60, (60, 1, 12, 12), dtype=torch.uint8)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 4 * label : 4 * label + 4] += 150
    return ImageDataset(images, labels, ("top", "middle", "bottom"), name="stripes")


@pytest.fixture
def model(data: ImageDataset) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(600, 3)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(data.images.float() / 255), data.labels).backward()
        optimizer.step()
    return net.eval()


def without_times(checkup: Checkup) -> str:
    text = checkup.model_copy(update={"started": "", "seconds": 0.0, "stages": ()})
    records = []
    for record in text.records:
        times = {field: 0.0 for field in ("seconds", "images_per_second") if field in type(record).model_fields}
        records.append(record.model_copy(update=times))
    return text.model_copy(update={"records": tuple(records)}).model_dump_json()


def test_a_check_measures_everything_and_judges_every_rule(model: nn.Module, data: ImageDataset) -> None:
    checkup = run_check(model, data, budget=SMALL, name="stripes net")
    assert [stage.skipped for stage in checkup.stages] == [None] * len(STAGES)
    kinds = (ModeAudit, CleanAccuracy, EpsilonCurve, AdversarialGallery, SampleGallery, AttackSanity, GradientFlow)
    for kind in (*kinds, InputGradients):
        assert checkup.first(kind) is not None, kind
    assert [attack.attack for attack in checkup.each(RobustAccuracy)] == ["fgsm", "pgd", "signed-steps", "noise"]
    assert {verdict.rule for verdict in checkup.verdicts} >= {rule.id for rule in RULES if not rule.on_request}
    sanity, samples = checkup.first(AttackSanity), checkup.first(SampleGallery)
    assert sanity is not None
    assert samples is not None
    assert (sanity.n, samples.n) == (8, 24)
    # the gallery tells of the same attack as its record
    pgd = next(attack for attack in checkup.each(RobustAccuracy) if attack.attack == "pgd")
    assert samples.held == pgd.correct
    assert samples.wrong == pgd.n - pgd.clean_correct
    assert "A214" in {verdict.rule for verdict in checkup.verdicts}
    clean = checkup.first(CleanAccuracy)
    assert clean is not None
    with torch.no_grad():
        assert clean.correct == int((model(data.images.float() / 255).argmax(1) == data.labels).sum())
    assert all(attack.n == 24 for attack in checkup.each(RobustAccuracy))


def test_a_check_survives_json(model: nn.Module, data: ImageDataset) -> None:
    checkup = run_check(model, data, budget=SMALL)
    again = Checkup.model_validate_json(checkup.model_dump_json())
    assert again.model_dump_json() == checkup.model_dump_json()


def test_the_same_seed_gives_the_same_records_and_the_model_stays_as_it_was(
    model: nn.Module, data: ImageDataset
) -> None:
    model.train()
    model[0].weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    one = run_check(model, data, budget=SMALL, seed=5)
    torch.rand(10)
    two = run_check(model, data, budget=SMALL, seed=5)
    assert without_times(one) == without_times(two)
    assert model.training
    assert not model[0].weight.requires_grad
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) or model[5].weight.grad is not None
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_limit_bounds_the_attacks_and_not_the_clean_accuracy(model: nn.Module, data: ImageDataset) -> None:
    checkup = run_check(model, data, budget=BUDGETS["quick"], limit=7)
    clean = checkup.first(CleanAccuracy)
    assert clean is not None
    assert clean.n == 60
    assert {attack.n for attack in checkup.each(RobustAccuracy)} == {7}


def stop_at(number: int) -> Callable[[str, int, int], None]:
    """An ``on_stage`` that interrupts the check before the stage of this number."""

    def stop(name: str, at: int, total: int) -> None:
        if at == number:
            raise KeyboardInterrupt

    return stop


def test_a_check_that_stopped_goes_on_where_it_was(model: nn.Module, data: ImageDataset, tmp_path: Path) -> None:
    whole = run_check(model, data, budget=SMALL)
    with pytest.raises(KeyboardInterrupt):
        run_check(model, data, budget=SMALL, folder=tmp_path, on_stage=stop_at(4))
    pieces = sorted(path.name for path in (tmp_path / PARTIAL).iterdir())
    assert pieces == [
        "anatomy.json",
        "clean-accuracy.json",
        "identity.json",
        "mode-audit.json",
        "normalisation-audit.json",
    ]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / PARTIAL).iterdir()}
    torch.manual_seed(99)
    with pytest.raises(KeyboardInterrupt):
        run_check(model, data, budget=SMALL, folder=tmp_path, resume=True, on_stage=stop_at(6))
    assert {path: path.stat().st_mtime_ns for path in times} == times, "finished stages are not measured again"
    resumed = run_check(model, data, budget=SMALL, folder=tmp_path, resume=True)
    assert without_times(resumed) == without_times(whole)
    assert not list(tmp_path.iterdir())


def test_stages_of_another_check_are_refused_with_resume_and_replaced_without(
    model: nn.Module, data: ImageDataset, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_check(model, data, budget=SMALL, folder=tmp_path, on_stage=stop_at(4))
    with pytest.raises(OptionError, match=r"identity.json: seed: expected 0 as in the run to resume, got 1"):
        run_check(model, data, budget=SMALL, folder=tmp_path, resume=True, seed=1)
    with pytest.raises(OptionError, match=r"identity.json: budget.steps: expected 3 as in the run to resume, got 4"):
        run_check(model, data, budget=SMALL.model_copy(update={"steps": 4}), folder=tmp_path, resume=True)
    with torch.no_grad():
        model[5].weight.neg_()
    with pytest.raises(OptionError, match=r"identity.json: model: expected '\w{64}' as in the run to resume, got"):
        run_check(model, data, budget=SMALL, folder=tmp_path, resume=True)
    anew = run_check(model, data, budget=SMALL, folder=tmp_path)
    assert without_times(anew) == without_times(run_check(model, data, budget=SMALL))


@pytest.mark.parametrize("rest", [b"", b"{", b'{"stage": 1}', b"\xff\xfe"])
def test_a_damaged_stage_costs_only_time(model: nn.Module, data: ImageDataset, tmp_path: Path, rest: bytes) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_check(model, data, budget=SMALL, folder=tmp_path, on_stage=stop_at(2))
    (tmp_path / PARTIAL / "mode-audit.json").write_bytes(rest)
    checkup = run_check(model, data, budget=SMALL, folder=tmp_path, resume=True)
    assert without_times(checkup) == without_times(run_check(model, data, budget=SMALL))


def test_a_budget_has_a_name_that_is_known(model: nn.Module, data: ImageDataset) -> None:
    with pytest.raises(OptionError, match="budget: expected one of: quick, standard, full, got 'fast'"):
        run_check(model, data, budget="fast")


def test_nan_weights_are_refused(model: nn.Module, data: ImageDataset) -> None:
    with torch.no_grad():
        model[5].weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"5\.weight: expected finite weights, got NaN or infinity"):
        run_check(model, data, budget=SMALL)


class NoBackward(nn.Module):
    """Right on every image as long as nobody asks for a gradient."""

    def __init__(self, inner: nn.Module, error: BaseException) -> None:
        super().__init__()
        self.inner, self.error = inner, error

    def forward(self, images: Tensor) -> Tensor:
        if images.requires_grad:
            raise self.error
        return self.inner(images)


ERRORS = (
    KeyError("k"), ZeroDivisionError("z"), NotImplementedError(), StopIteration("s"), MemoryError(),
    AssertionError("a"), OverflowError("o"), UnicodeDecodeError("utf-8", b"x", 0, 1, "u"), RecursionError("r"),
    OSError(5, "e"), TypeError("t"), RuntimeError("r"), LookupError("l"),
)  # fmt: skip


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_needs_no_gradient_is_measured_whatever_the_backward_pass_raises(
    model: nn.Module, data: ImageDataset, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"mode audit", "clean accuracy", "attacks"}
    monkeypatch.setattr("assay.check.run.STAGES", tuple(stage for stage in STAGES if stage.name in wanted))
    checkup = run_check(NoBackward(model, error), data, budget=SMALL)
    assert [attack.attack for attack in checkup.each(RobustAccuracy)] == ["noise"]
    failures = list(checkup.each(FailedMeasurement))
    assert [failure.place for failure in failures] == ["attacks (fgsm)", "attacks (pgd)", "attacks (signed-steps)"]
    assert all(type(error).__name__ in failure.reason and failure.way_out for failure in failures)
    statuses = {verdict.rule: verdict.status for verdict in checkup.verdicts}
    assert [statuses[rule] for rule in ("A101", "A202", "A204", "A206")] == [
        "pass",
        "could not run",
        "could not run",
        "pass",
    ]
    assert Checkup.model_validate_json(checkup.model_dump_json()).model_dump_json() == checkup.model_dump_json()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InterruptedRunError("stopped"), SystemExit(1)], ids=repr)
def test_an_interrupt_is_no_failed_measurement(
    model: nn.Module, data: ImageDataset, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assay.check.run.STAGES", tuple(stage for stage in STAGES if stage.name == "attacks"))
    with pytest.raises((type(error), ModelError)):
        run_check(NoBackward(model, error), data, budget=SMALL)


def test_what_failed_is_measured_again_when_a_check_is_resumed(
    model: nn.Module, data: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("assay.check.stages.measure_anatomy", lambda *_, **__: {}["gone"])  # memory ran out, say
        run_check(model, data, budget=SMALL, folder=tmp_path, on_stage=stop_at(4))
    assert not (tmp_path / PARTIAL / "anatomy.json").exists()
    assert (tmp_path / PARTIAL / "mode-audit.json").exists()
    wanted = {"mode audit", "anatomy", "clean accuracy"}
    monkeypatch.setattr("assay.check.run.STAGES", tuple(stage for stage in STAGES if stage.name in wanted))
    assert run_check(model, data, budget=SMALL, folder=tmp_path, resume=True).complete


class Rounded(nn.Module):
    """No gradient can pass: attacks must be skipped with a reason, the rest measured."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.inner(images)


def test_a_stage_that_cannot_run_is_skipped_with_its_reason(model: nn.Module, data: ImageDataset) -> None:
    checkup = run_check(Rounded(model), data, budget=SMALL)
    skipped = {stage.name: stage.skipped for stage in checkup.stages if stage.skipped}
    assert "gradient flow" in skipped
    assert "differentiated" in str(skipped["gradient flow"])
    assert checkup.first(CleanAccuracy) is not None
    statuses = {verdict.rule: verdict.status for verdict in checkup.verdicts}
    assert statuses["A401"] == "could not run"
    assert not checkup.complete
    assert statuses["A101"] == "pass"


def test_a_check_imports_no_compiler() -> None:
    """Where nothing was compiled: importing torch's compiler takes as long as several stages."""
    script = """
import sys, assay
data = assay.load_dataset("digits", limit=32)
model = assay.load_model("resnet8", classes=10, image_shape=data.shape)
budget = assay.check.Budget(name="tiny", clean=32, attacked=4, probed=4, steps=1, sanity_samples=2)
assert assay.run_check(model, data, budget=budget).complete
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=300)


def test_the_clean_accuracy_tells_the_predictions_on_every_sample_it_saw(model: nn.Module, data: ImageDataset) -> None:
    whole = replace(data, ids=torch.arange(60).flip(0) * 3)
    budget = SMALL.model_copy(update={"clean": 50})
    context = CheckContext.of(model, whole, budget=budget, limit=None, seed=0, name="model")
    part = context.clean.subset(torch.tensor([7, 3, 49]))
    assert context.known_predictions(part) is None  # nothing was evaluated yet
    outputs = context.share_outputs()
    known = context.known_predictions(part)
    assert known is not None
    assert torch.equal(known.logits, outputs.logits[[7, 3, 49]])
    assert torch.equal(known.labels, part.labels)
    assert torch.allclose(known.logits, predict(model, part).logits, atol=1e-5)
    unseen = ~torch.isin(whole.ids, context.clean.ids)
    assert int(unseen.sum()) == 10
    assert context.known_predictions(whole.subset(unseen)) is None
    assert context.known_predictions(whole) is None
