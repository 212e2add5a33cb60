"""Fixes work on copies, are measured again on the same samples, and refuse what they cannot do honestly."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from assay.check import Budget, run_check
from assay.check.stages import CheckContext
from assay.compression import Compressed, CompressionPlan, save_compressed
from assay.data.dataset import ImageDataset
from assay.evaluate import measure_clean_accuracy, predict
from assay.fixes import Fixed, apply_fixes
from assay.fixes.fix import Change, Fix, FixContext, RefusedError
from assay.fixes.model_fixes import COMPRESSION, EVALUATION_MODE, STATISTICS, TEMPERATURE, fit_temperature
from assay.fixes.recurrent import CLIPPING, FORGET_BIAS
from assay.fixes.run import FIXES, _combine, _Done, leave_out_tested
from assay.models.sequence import ImageReader, ReaderOptions, build_sequence_model
from assay.models.sources import open_model
from assay.models.speednet import build_speednet
from assay.models.wrappers import Normalize, choose_normalization
from assay.records.checkup import Checkup
from assay.records.comparison import AppliedFix
from assay.records.recurrence import TimeTrace
from assay.records.training import DecayGroups
from assay.report.check_page import render_page
from assay.training.param_groups import audit_optimizer
from assay.verdict import RULES

SMALL = Budget(name="quick", clean=None, attacked=24, probed=48, steps=2, restarts=1, gallery=2)


def stripes(n: int, *, seed: int, split: str) -> ImageDataset:
    """Pictures of three classes: a bright stripe at the top, in the middle or at the bottom, in noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    images = torch.randint(0, 90, (n, 1, 12, 12), dtype=torch.uint8, generator=random)
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 4 * label : 4 * label + 4] += 70
    return ImageDataset(images, labels, ("top", "middle", "bottom"), name="stripes", split=split)


TRAIN, TEST = stripes(240, seed=1, split="train"), stripes(90, seed=2, split="test")


@pytest.fixture(scope="module")
def good() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(600, 3)
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(TRAIN.images.float() / 255), TRAIN.labels).backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="module")
def stale(good: nn.Module) -> nn.Module:
    """Statistics of other data, and handed over in training mode."""
    broken = copy.deepcopy(good)
    broken[1].running_mean += torch.linspace(-3, 3, 6)
    broken[1].running_var *= 9
    return broken.train()


@pytest.fixture(scope="module")
def checkup(stale: nn.Module) -> Checkup:
    return run_check(stale, TEST, budget=SMALL, name="stale")


@pytest.fixture(scope="module")
def fixed(stale: nn.Module, checkup: Checkup) -> Fixed:
    before = copy.deepcopy(stale.state_dict())
    fixed = apply_fixes(stale, TEST, checkup, train=TRAIN, budget=SMALL)
    assert stale.training
    assert all(torch.equal(before[key], value) for key, value in stale.state_dict().items())
    return fixed


@pytest.fixture(scope="module")
def fixes(fixed: Fixed) -> dict[str, AppliedFix]:
    return {record.rule: record for record in fixed.checkup.each(AppliedFix)}


def test_every_declared_remedy_is_a_fix_and_every_fix_is_declared() -> None:
    assert {rule.remedy for rule in RULES if rule.remedy} == set(FIXES)


def test_stale_statistics_are_measured_anew_and_the_accuracy_comes_back(
    fixes: dict[str, AppliedFix], good: nn.Module, checkup: Checkup
) -> None:
    fix = fixes["A511"]
    assert (fix.before, fix.after, fix.refused) == ("error", "pass", "")
    assert "240 images of stripes, train, none of them tested" in fix.applied
    clean = next(effect for effect in fix.effects if effect.measure == "clean accuracy")
    was = next(v for v in checkup.records if v.kind == "clean_accuracy")
    assert clean.reference == was.accuracy
    assert clean.candidate == pytest.approx(measure_clean_accuracy(good, TEST).accuracy, abs=0.05)
    assert clean.change == "better"
    assert clean.paired
    assert any(effect.measure.startswith("after pgd") for effect in fix.effects)


def test_evaluation_mode_is_judged_by_the_answers_as_handed_over(fixes: dict[str, AppliedFix]) -> None:
    fix = fixes["A501"]
    assert (fix.before, fix.after, fix.changes) == ("warn", "pass", "mode")
    (effect,) = fix.effects
    assert effect.measure == "accuracy as handed over"
    assert effect.paired


def test_groups_are_audited_and_nothing_is_trained(fixes: dict[str, AppliedFix], stale: nn.Module) -> None:
    fix = fixes["A505"]  # no parameter here has "bn" in its name
    assert fix.after == "pass"
    assert fix.changes == "training"
    decayed, faults = fix.readings
    assert (decayed.before, decayed.after) == (1, 0)  # the scale; the shift is called a bias
    assert faults.after == 0
    by_name = [p for n, p in stale.named_parameters() if "bn" not in n and "bias" not in n]
    held = [{"params": by_name, "weight_decay": 1e-3}]
    assert audit_optimizer(stale, torch.optim.SGD(held, lr=0.1)).decayed_norms == ("1.weight",)
    assert not fix.effects


def test_the_fixed_copy_holds_the_fixes_of_weights_and_loads(fixed: Fixed, good: nn.Module, tmp_path: Path) -> None:
    assert fixed.model is not None
    save_compressed(
        tmp_path, fixed.model, fixed.factorization, spec="net.py:make", classes=TEST.classes, image_shape=TEST.shape
    )
    again = copy.deepcopy(good)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert measure_clean_accuracy(again, TEST).correct == measure_clean_accuracy(fixed.model, TEST).correct
    verdict = next(v for v in fixed.checkup.verdicts if v.rule == "A511")
    assert verdict.remedy is not None
    assert verdict.status == "error"  # the model was not touched: its verdict stands
    text = fixed.checkup.model_dump_json()
    assert Checkup.model_validate_json(text).model_dump_json() == text
    page = render_page(fixed.checkup)
    assert "Fixed and measured again" in page
    assert "measured again after the fix" in page


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("spoils", "together A511 would be error, alone pass"), ("fails", "KeyError"), ("refuses", "nothing to do")],
)
def test_a_fix_that_spoils_another_or_fails_after_it_is_left_out_of_the_combined_weights(
    fixed: Fixed, stale: nn.Module, checkup: Checkup, fixes: dict[str, AppliedFix], fault: str, reason: str
) -> None:
    def second(context: FixContext) -> Change:
        if fault == "fails":
            raise KeyError("layer")
        if fault == "refuses":
            raise RefusedError("nothing to do")
        spoilt = copy.deepcopy(context.model)
        spoilt[1].running_var.mul_(100)
        return Change("a change of its own", model=spoilt, status="pass")

    verdict = next(v for v in checkup.verdicts if v.rule == "A511")
    other = next(v for v in checkup.verdicts if v.rule == "A505")
    first = _Done(FIXES["statistics"], verdict, fixes["A511"], Change("statistics", model=fixed.model))
    change = Change("a change of its own", model=fixed.model, status="pass")
    record = fixes["A511"].model_copy(update={"rule": "A505", "fix": "second", "applied": "a change of its own"})
    done = _Done(Fix("second", "weights", second), other, record, change)
    combination = _combine([first, done], fix_context(stale, TEST), checkup)
    assert combination.rules == ("A511",)
    assert combination.model is fixed.model
    assert combination.done[0] is first
    assert f"; left out of the combined weights: {reason}" in combination.done[1].record.applied


@pytest.mark.parametrize("n", [1, 250, 251, 252])
def test_statistics_are_measured_on_any_number_of_images(stale: nn.Module, n: int) -> None:
    check = CheckContext.of(stale, TEST, budget=SMALL, limit=None, seed=0, name="net")
    context = FixContext(model=stale, check=check, train=stripes(n, seed=4, split="train"), train_note="")
    change = STATISTICS.apply(context)
    assert f"measured anew on {n} images" in change.applied
    free = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), nn.Flatten(), nn.Linear(144, 3))
    with pytest.raises(RefusedError, match="no normalisation layer whose running statistics"):
        STATISTICS.apply(replace(context, model=free))


def test_halves_and_batches_of_an_ordered_set_have_all_classes(
    good: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Classes by turns: every other image would be of one class, and a batch of an ordered set as well."""
    clear = stripes(240, seed=5, split="test")
    two = clear.subset((clear.labels < 2).nonzero()[:, 0])
    seen: list[torch.Tensor] = []
    fitting = fit_temperature
    monkeypatch.setattr(
        "assay.fixes.model_fixes.fit_temperature",
        lambda logits, labels: (seen.append(labels), fitting(logits, labels))[1],
    )
    TEMPERATURE.apply(fix_context(good, two))
    assert seen[0].bincount().min() > 20
    ordered = two.subset(two.labels.argsort(stable=True))
    monkeypatch.setattr("assay.fixes.model_fixes.BATCH", 20)
    trained = copy.deepcopy(good).train()
    trained[4].eval()  # no dropout
    (effect,) = EVALUATION_MODE.apply(fix_context(trained, ordered)).effects
    assert effect.reference > 0.9


def test_without_training_images_statistics_are_left_alone(stale: nn.Module, checkup: Checkup) -> None:
    fixed = apply_fixes(stale, TEST, checkup, train=None, train_note="no training split", budget=SMALL)
    fix = next(record for record in fixed.checkup.each(AppliedFix) if record.rule == "A511")
    assert (fix.refused, fix.after, fix.applied) == ("no training split", fix.before, "nothing")
    assert all(v.remedy is None for v in fixed.checkup.verdicts if v.rule == "A511")


def test_tested_images_are_never_used_to_fix() -> None:
    both = ImageDataset(
        torch.cat([TRAIN.images, TEST.images[:7]]), torch.cat([TRAIN.labels, TEST.labels[:7]]), TRAIN.classes
    )
    apart, _ = leave_out_tested(both, TEST, "")
    assert apart is not None
    assert torch.equal(apart.images, TRAIN.images)
    assert leave_out_tested(TEST, TEST, "") == (None, "every training image is also tested")


def test_a_model_without_findings_gets_no_fix(good: nn.Module) -> None:
    checkup = run_check(good, TEST, budget=SMALL)
    healthy = checkup.model_copy(
        update={"verdicts": tuple(v.model_copy(update={"status": "pass"}) for v in checkup.verdicts)}
    )
    assert checkup.first(DecayGroups) is not None
    fixed = apply_fixes(good, TEST, healthy, train=TRAIN, budget=SMALL)
    assert fixed.checkup == healthy
    assert fixed.model is None


def test_a_temperature_is_folded_in_and_changes_no_answer(good: nn.Module) -> None:
    sure = copy.deepcopy(good)
    with torch.no_grad():
        sure[5].weight.mul_(40)
        sure[5].bias.mul_(40)
    clear = stripes(600, seed=5, split="test")
    wrong = torch.where(torch.arange(600) % 7 == 0, (clear.labels + 1) % 3, clear.labels)
    context = fix_context(sure, ImageDataset(clear.images, wrong, clear.classes))
    change = TEMPERATURE.apply(context)
    assert change.model is not None
    logits, cooled = predict(sure, context.check.clean).logits, predict(change.model, context.check.clean).logits
    assert torch.equal(logits.argmax(dim=1), cooled.argmax(dim=1))
    ratio = (logits / cooled).median()
    assert f"divided by {ratio:.2f}" in change.applied
    assert change.readings[1].after < 0.5 * change.readings[1].before
    half, labels = logits[0::2].double(), context.check.clean.labels[0::2]
    grid = torch.linspace(-3, 3, 2001).exp()
    losses = torch.stack([nn.functional.cross_entropy(half / t, labels) for t in grid])
    assert fit_temperature(half, labels) == pytest.approx(float(grid[losses.argmin()]), rel=0.01)


def test_a_temperature_that_cannot_be_folded_in_is_refused(good: nn.Module) -> None:
    class Bounded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = copy.deepcopy(good)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.inner(images).tanh()

    with pytest.raises(RefusedError, match="does not scale the logits"):
        TEMPERATURE.apply(fix_context(Bounded(), TEST))


def test_layers_are_compressed_on_images_that_are_not_tested(good: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[ImageDataset] = []

    def nothing_is_faster(
        model: nn.Module, train: ImageDataset, test: ImageDataset, plan: CompressionPlan, *, name: str
    ) -> object:
        assert (plan.max_drop, plan.epochs) == (1.0, 0.0)
        seen.extend((train, test))
        return Compressed(model, (), report=None)

    monkeypatch.setattr("assay.fixes.model_fixes.compress", nothing_is_faster)
    with pytest.raises(RefusedError, match="no layer became both thinner and faster"):
        COMPRESSION.apply(fix_context(good, TEST))
    assert leave_out_tested(seen[0], TEST, "")[0] is seen[0]
    assert seen[1].split == "test"


def test_a_forget_bias_and_clipping_are_shown_by_two_short_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.fixes.recurrent.STEPS", 8)
    options = ReaderOptions(hidden=12)
    torch.manual_seed(3)
    reader = ImageReader(
        build_sequence_model("lstm", features=12, outputs=3, length=12, hidden=12),
        normalize=Normalize(choose_normalization("none", channels=1)),
        options=options,
    ).eval()
    before = copy.deepcopy(reader.state_dict())
    context = fix_context(reader, TEST)
    change = FORGET_BIAS.apply(context)
    assert "forget bias of 2.40 = ln(T − 1) at T = 12 steps" in change.applied
    horizon = change.readings[0]
    assert horizon.after > horizon.before
    assert change.model is None
    reaching = CLIPPING.apply(context).readings[0]
    assert reaching.after <= 1.0
    assert reaching.after <= reaching.before
    assert all(torch.equal(before[key], value) for key, value in reader.state_dict().items())
    checkup = run_check(reader, TEST, budget=SMALL)
    assert checkup.first(TimeTrace) is not None
    with pytest.raises(RefusedError, match="no LSTM"):
        FORGET_BIAS.apply(fix_context(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)), TEST))


def test_the_fixed_copy_of_a_named_architecture_loads_by_its_folder(tmp_path: Path) -> None:
    options = {"widths": [4, 4, 4]}
    torch.manual_seed(0)
    net = build_speednet(
        classes=3,
        image_shape=(1, 32, 32),
        normalize=Normalize(choose_normalization("none", channels=1)),
        options=options,
    )
    save_compressed(tmp_path, net, (), spec="speednet", classes=TEST.classes, image_shape=(1, 32, 32), options=options)
    images = torch.rand(4, 1, 32, 32)
    opened = open_model(str(tmp_path), classes=3, image_shape=(1, 32, 32)).model
    with torch.no_grad():
        assert torch.equal(opened.eval()(images), net.eval()(images))


def fix_context(model: nn.Module, data: ImageDataset) -> FixContext:
    check = CheckContext.of(model, data, budget=SMALL, limit=None, seed=0, name="net")
    return FixContext(model=model, check=check, train=TRAIN, train_note="")
