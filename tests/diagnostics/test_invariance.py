"""The probe of invariance: counts that a brightness-reading model makes predictable."""

import pytest
import torch
from torch import nn

from assay.augment.operations import OPERATIONS, TWELVE, find_operation, levels_of
from assay.augment.plan import apply_operation
from assay.augment.randomness import draw_integers
from assay.data.dataset import ImageDataset
from assay.diagnostics.invariance import measure_invariance
from assay.errors import OptionError
from assay.evaluate import predict


class IsBright(nn.Module):
    """Class 1 where the mean of the picture exceeds one half."""

    def forward(self, images):
        mean = images.mean(dim=(1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def flat_pictures(channels=3, size=8):
    levels = torch.tensor([10, 60, 110, 125, 130, 145, 200, 250], dtype=torch.uint8)
    images = levels[:, None, None, None].expand(8, channels, size, size).contiguous()
    return ImageDataset(images, (levels > 127).long(), ("dark", "bright"))


def test_accuracy_under_brightness_is_what_arithmetic_says():
    dataset = flat_pictures()
    record = measure_invariance(IsBright(), dataset, operations=("Brightness", "Equalize"))
    assert record.clean.accuracy == 1.0
    brightness, equalize = record.operations
    up = draw_integers(dataset.ids, 2, seed=0, epoch=0, slot=find_operation("Brightness").code)
    for point in brightness.points:
        factors = [point.magnitude_high if u else point.magnitude_low for u in up]
        values = [min(255, int(v * f)) for v, f in zip(dataset.images[:, 0, 0, 0].tolist(), factors, strict=True)]
        right = sum((value > 127.5) == bool(label) for value, label in zip(values, dataset.labels, strict=True))
        assert (point.correct, point.lost, point.gained) == (right, 8 - right, 0)
    assert brightness.points[-1].correct < brightness.points[0].correct
    assert [point.level for point in brightness.points] == [1, 2, 3, 4, 5]
    assert [point.accuracy for point in equalize.points] == [1.0]  # a flat picture has nothing to equalise
    assert record.worst_operation == "Brightness"
    assert record.mean_accuracy == pytest.approx((brightness.mean_accuracy + 1.0) / 2)


def test_each_operation_is_the_batch_function_on_the_same_samples():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8, generator=generator)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(320, 2))
    dataset = ImageDataset(images, torch.arange(40) % 2, ("a", "b"), ids=torch.arange(40) * 3)
    record = measure_invariance(model, dataset, seed=5, batch_size=7)
    assert tuple(each.operation for each in record.operations) == TWELVE
    for each in record.operations:
        up = torch.from_numpy(draw_integers(dataset.ids, 2, seed=5, epoch=0, slot=find_operation(each.operation).code))
        point = each.points[-1]
        magnitudes = torch.where(up.bool(), point.magnitude_high, point.magnitude_low).double()
        changed = ImageDataset(apply_operation(images, each.operation, magnitudes), dataset.labels, dataset.classes)
        assert point.correct == int(predict(model, changed).correct.sum())


def test_the_model_is_left_as_found_and_two_runs_agree():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(192, 2)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = measure_invariance(model, flat_pictures(), seed=1)
    again = measure_invariance(model, flat_pictures(), seed=1)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert first.model_copy(update={"seconds": 0.0}) == again.model_copy(update={"seconds": 0.0})


def test_grey_pictures_have_no_colour_to_change():
    record = measure_invariance(IsBright(), flat_pictures(channels=1), operations=("Color", "Hue", "Contrast"))
    assert [each.operation for each in record.operations] == ["Contrast"]


def test_it_counts_its_passes_and_refuses_unknown_operations():
    seen = []
    measure_invariance(IsBright(), flat_pictures(), operations=("Rotate", "Equalize"), advance=lambda: seen.append(1))
    assert len(seen) == 6
    with pytest.raises(OptionError, match="operation: expected one of"):
        measure_invariance(IsBright(), flat_pictures(), operations=("Swirl",))


@pytest.mark.parametrize("size", [1, 8, 32, 224])
@pytest.mark.parametrize("name", TWELVE)
def test_strengths_rise(name, size):
    operation = find_operation(name)
    levels = levels_of(operation, height=size, width=size)
    if not operation.takes_magnitude:
        assert levels == ((0.0, 0.0),)
        return
    away = [abs(high - operation.identity) for _, high in levels]
    assert len(levels) == 5
    assert away == sorted(away)
    assert all(operation.lowest <= end <= operation.highest for pair in levels for end in pair)
    assert size < 32 or len(set(away)) == 5


def test_every_operation_but_moves_has_levels():
    for operation in OPERATIONS:
        if operation.takes_magnitude and operation.name != "Crop":
            assert len(levels_of(operation, height=32, width=32)) == 5
