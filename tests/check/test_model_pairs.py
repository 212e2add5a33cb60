"""Models on the same images: every number against a naive twin, and what cannot be measured is told."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from assay.attacks import PGD, attack
from assay.check import compare_models
from assay.check.pair_layers import MOST_LAYERS, compare_layers, pair_modules
from assay.data.dataset import ImageDataset
from assay.errors import DataError, ModelError, OptionError
from assay.models.programs.onnx_session import ForwardOnly, Port, Session
from assay.records.accuracy import wilson_interval
from assay.records.model_comparison import ModelComparison, ModelPair


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList([nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)])
        self.head = nn.Linear(384, 4)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for block in self.blocks:
            x = x + block(x).relu()
        logits: Tensor = self.head(x.flatten(1))
        return logits


class Changed(nn.Module):
    """A network with something done to its logits."""

    def __init__(self, net: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.net(images), images)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(3)
    return Net().eval()


@pytest.fixture
def data(net: Net) -> ImageDataset:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 3, 8, 8), generator=draws, dtype=torch.uint8)
    images[::2] = images[::2] // 3
    labels = net(images / 255).argmax(dim=1)
    labels[::5] = (labels[::5] + 1) % 4
    files = tuple(f"{i}.png" for i in range(60))
    return ImageDataset(images, labels, classes=("a", "b", "c", "d"), ids=torch.arange(60) * 7, filenames=files)


def shaken(net: Net, size: float = 0.1) -> Net:
    other = copy.deepcopy(net)
    draws = torch.Generator().manual_seed(5)
    with torch.no_grad():
        other.blocks[1].weight += size * torch.randn(other.blocks[1].weight.shape, generator=draws)
    return other


def only(comparison: ModelComparison) -> ModelPair:
    (pair,) = comparison.pairs
    return pair


def test_counts_are_those_of_a_loop_over_the_images(net: Net, data: ImageDataset) -> None:
    other = shaken(net)
    compared = compare_models([net, other], data, names=("net", "shaken"), attacked=0)
    pair = only(compared)
    lost = gained = unchanged = 0
    flips = {}
    for image, label, identity in zip(data.images, data.labels, data.ids, strict=True):
        with torch.no_grad():
            a, b = (each(image[None] / 255)[0] for each in (net, other))
        before, after = int(a.argmax()), int(b.argmax())
        lost += before == label and after != label
        gained += before != label and after == label
        unchanged += before == after
        if before != after:
            sure = float(a.softmax(0).max()), float(b.softmax(0).max())
            flips[int(identity)] = (data.classes[label], data.classes[before], data.classes[after], *sure)
    assert 0 < len(flips) < 60
    assert (pair.difference.lost, pair.difference.gained, pair.agreement.correct) == (lost, gained, unchanged)
    assert pair.difference.p == pytest.approx(binomtest(lost, lost + gained).pvalue)
    reference, candidate = compared.reference.accuracy, compared.candidates[0].accuracy
    assert candidate.correct == reference.correct - lost + gained
    assert (reference.low, reference.high) == wilson_interval(reference.correct, 60)
    for flip in pair.flips:
        label, before, after, *sure = flips.pop(flip.id)
        assert (flip.label, flip.before, flip.after, flip.name) == (label, before, after, f"{flip.id // 7}.png")
        assert [flip.confidence_before, flip.confidence_after] == pytest.approx(sure, abs=1e-5)
        kinds = {(True, False): "right to wrong", (False, True): "wrong to right"}
        assert flip.change == kinds.get((label == before, label == after), "wrong to another")
    assert not flips
    assert sum(pair.flipped.values()) == len(pair.flips)
    sure_first = [min(flip.confidence_before, flip.confidence_after) for flip in pair.flips]
    assert sure_first == sorted(sure_first, reverse=True)


def test_differences_of_outputs_are_numpys(net: Net, data: ImageDataset) -> None:
    other = shaken(net)
    pair = only(compare_models([net, other], data, attacked=0))
    with torch.no_grad():
        a, b = (each(data.images / 255).double().numpy() for each in (net, other))
    softmax = [np.exp(x - x.max(1, keepdims=True)) for x in (a, b)]
    p, q = (x / x.sum(1, keepdims=True) for x in softmax)
    for measured, one, two in zip(pair.outputs, (a, p), (b, q), strict=True):
        apart = np.abs(one - two)
        assert measured.largest == pytest.approx(apart.max(), rel=1e-4)
        assert measured.mean == pytest.approx(apart.mean(), rel=1e-4)
        for share, value in measured.quantiles:
            assert value == pytest.approx(np.quantile(apart.max(1), share, method="inverted_cdf"), rel=1e-4)
    logits, probabilities = pair.outputs
    assert logits.largest_relative == pytest.approx(np.abs(a - b).max() / (a.max() - a.min()), rel=1e-4)
    assert probabilities.scale == 1.0


def test_an_equal_copy_is_equal_bit_by_bit_and_not_yet_the_same(net: Net, data: ImageDataset) -> None:
    compared = compare_models([net, copy.deepcopy(net)], data)
    pair = only(compared)
    assert pair.identical
    assert (pair.equivalence.verdict, pair.equivalence.needed) == ("cannot tell", 299)
    assert {layer.relative_error for layer in pair.layers} == {0.0}
    assert all(transfer.share == 1.0 for transfer in pair.transfers if transfer.n)
    assert ModelComparison.model_validate_json(compared.model_dump_json()) == compared
    assert compare_models([net, net], data, margin=0.1, attacked=0).pairs[0].equivalence.verdict == "same"


def test_a_last_bit_is_not_equal(net: Net, data: ImageDataset) -> None:
    other = Changed(net, lambda logits, _: torch.nextafter(logits, torch.tensor(torch.inf)))
    pair = only(compare_models([net, other], data, attacked=0))
    assert not pair.identical
    assert sum(pair.flipped.values()) == 0


def test_layers_are_those_of_two_plain_passes(net: Net, data: ImageDataset) -> None:
    other = shaken(net)
    layers, n = compare_layers(net, other, data)
    assert n == 60
    errors = {layer.name: layer.relative_error for layer in layers}
    kept: list[dict[str, Tensor]] = []
    for each in (net, other):
        outputs: dict[str, Tensor] = {}
        names = ("stem.0", "stem.1", "stem.2", "blocks.0", "blocks.1", "head")
        handles = [
            dict(each.named_modules())[name].register_forward_hook(
                lambda _m, _i, output, name=name, outputs=outputs: outputs.__setitem__(name, output.clone())
            )
            for name in names
        ]
        with torch.no_grad():
            each(data.images / 255)
        for handle in handles:
            handle.remove()
        kept.append(outputs)
    assert list(errors) == list(names)
    for name in names:
        a, b = (outputs[name].double() for outputs in kept)
        assert errors[name] == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-3, abs=1e-9)
    assert errors["blocks.0"] == 0 < errors["blocks.1"]


def test_an_activation_that_works_in_place_does_not_change_what_came_before_it(data: ImageDataset) -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 4)) for _ in "ab"]
    errors = {layer.name: layer.relative_error for layer in compare_layers(nets[0], nets[1], data)[0]}
    with torch.no_grad():
        a, b = (net[0](data.images / 255).double() for net in nets)
    assert errors["0"] == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-4)
    assert errors["1"] == pytest.approx(float((a.relu() - b.relu()).norm() / a.relu().norm()), rel=1e-4)
    assert errors["0"] != pytest.approx(errors["1"], rel=1e-2)


def test_layers_are_found_behind_wrappers_and_in_another_precision(net: Net, data: ImageDataset) -> None:
    other = Changed(copy.deepcopy(net).bfloat16(), lambda logits, _: logits.float())
    names = [layer.name for layer in compare_layers(net, other, data)[0]]
    assert names[0] == "stem.0"
    assert names[-1] == "head"


def test_many_layers_are_put_into_groups() -> None:
    deep = nn.Sequential(*(nn.Sequential(*(nn.ReLU() for _ in range(9))) for _ in range(6)))
    assert list(pair_modules(deep, copy.deepcopy(deep))) == [str(i) for i in range(6)]
    wide = nn.Sequential(*(nn.ReLU() for _ in range(MOST_LAYERS + 5)))
    assert len(pair_modules(wide, wide)) == MOST_LAYERS + 5  # the outermost are never too many


def test_only_a_batch_of_activations_is_held(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.zeros(500, 3, 8, 8, dtype=torch.uint8)
    data = ImageDataset(images, torch.zeros(500, dtype=torch.int64), classes=("a", "b", "c", "d"))
    rows: list[int] = []
    net.head.register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    compare_layers(net, copy.deepcopy(net), data)
    assert max(rows) <= 32


def test_networks_without_common_modules_are_told(net: Net, data: ImageDataset) -> None:
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    failed = only(compare_models([net, other], data, attacked=0)).failures
    assert [each.measurement for each in failed] == ["layers"]
    assert "modules of the same names" in failed[0].reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(net, torch.rand(2, 3, 8, 8))
    with pytest.raises(ModelError, match="TorchScript"):
        compare_layers(net, traced, data)


def test_adversarial_images_are_given_to_the_other_model(net: Net, data: ImageDataset) -> None:
    other = shaken(net, 0.5)
    forth, back = only(compare_models([net, other], data, names=("net", "shaken"), seed=4)).transfers
    for transfer, source, target in ((forth, net, other), (back, other, net)):
        result = attack(
            source, data.images / 255, data.labels, attack=PGD(steps=10), epsilon=8 / 255, ids=data.ids, seed=4
        )
        with torch.no_grad():
            right = target(data.images / 255).argmax(1) == data.labels
            fooled = target(result.adversarial).argmax(1) != data.labels
        chosen = result.broken & right
        assert (transfer.n, transfer.broken) == (int(chosen.sum()), int((chosen & fooled).sum()))
        assert transfer.robust == int(result.robust.sum())
    assert forth.n > 0
    assert [(each.source, each.target) for each in (forth, back)] == [("net", "shaken"), ("shaken", "net")]


def forward_only(net: nn.Module) -> nn.Module:
    def run(array: object) -> list[object]:
        with torch.no_grad():
            return [net(torch.as_tensor(array)).numpy()]

    return ForwardOnly(Session(run, Port("x", (None, 3, 8, 8), torch.float32), ("y",), {}), where="net.onnx")


def test_a_program_without_gradients_is_attacked_by_transfer_alone(net: Net, data: ImageDataset) -> None:
    program = Changed(forward_only(net), lambda outputs, _: outputs[0])
    pair = only(compare_models([net, program], data, names=("net", "program")))
    assert [(each.source, each.target) for each in pair.transfers] == [("net", "program")]
    failed = {each.measurement: each for each in pair.failures}
    assert "runs forward only" in failed["attack on program"].reason
    assert "square" in failed["attack on program"].way_out
    assert "layers" in failed


def test_a_fault_is_told_from_what_cannot_be_measured_of_such_a_model(net: Net, data: ImageDataset) -> None:
    def fail(outputs: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad:
            raise ZeroDivisionError("in the model")
        return outputs

    program = Changed(forward_only(net), lambda outputs, _: outputs[0])
    refused = compare_models([net, program], data)
    assert refused.complete and refused.pairs[0].failures
    broken = compare_models([net, Changed(net, fail)], data)
    faults = [each for each in only(broken).failures if not each.refused]
    assert not broken.complete and "ZeroDivisionError: in the model" in faults[0].reason


def test_zero_gradients_are_no_attack(net: Net, data: ImageDataset) -> None:
    rounded = Changed(net, lambda logits, _: (logits * 10).round() / 10)
    pair = only(compare_models([net, rounded], data, names=("net", "rounded")))
    assert [each.source for each in pair.transfers] == ["net"]
    assert "gradients that are zero" in next(each.reason for each in pair.failures if "attack" in each.measurement)


def test_outputs_that_are_no_numbers_count_as_wrong(net: Net, data: ImageDataset) -> None:
    def spoil(logits: Tensor, images: Tensor) -> Tensor:
        dark = images.mean((1, 2, 3)) < 0.3
        return torch.where(dark[:, None], torch.full_like(logits, torch.nan), logits)

    compared = compare_models([net, Changed(net, spoil)], data, attacked=0)
    pair = only(compared)
    assert compared.candidates[0].non_finite == 30
    assert pair.outputs[0].n == 30
    assert any("30 images" in note for note in pair.notes)
    assert {flip.after for flip in pair.flips} == {"not finite"}
    assert pair.equivalence.verdict == "different"
    again = ModelComparison.model_validate_json(compared.model_dump_json())
    assert again.model_dump_json() == compared.model_dump_json()


def test_a_softmax_at_the_end_is_seen_and_taken_back(net: Net, data: ImageDataset) -> None:
    compared = compare_models([net, Changed(net, lambda logits, _: logits.softmax(1))], data, attacked=0)
    pair = only(compared)
    assert "probabilities" in " ".join(compared.candidates[0].notes)
    assert sum(pair.flipped.values()) == 0
    assert pair.outputs[0].largest < 1e-3
    assert pair.outputs[1].largest < 1e-6


def test_other_samples_labels_or_classes(net: Net, data: ImageDataset) -> None:
    from assay.check.model_pairs import compare_prepared
    from assay.check.pair_samples import PreparedModel

    def compare(other: ImageDataset) -> ModelComparison:
        return compare_prepared([PreparedModel(net, "one", data), PreparedModel(net, "two", other)], attacked=0)

    fewer = compare(data.subset(torch.arange(59, 9, -1)))
    assert fewer.n == 50
    assert "50 samples that all were given, of 60" in " ".join(fewer.reference.notes)
    assert only(fewer).identical
    with pytest.raises(DataError, match="two: classes"):
        compare(replace(data, classes=("b", "a", "c", "d")))
    with pytest.raises(DataError, match="other labels for two"):
        compare(replace(data, labels=(data.labels + 1) % 4))
    with pytest.raises(DataError, match="none that all have in common"):
        compare(replace(data, ids=data.ids + 1))


def test_each_model_is_given_its_own_preparation(net: Net, data: ImageDataset) -> None:
    from assay.records.preparation import Preparation

    def read(preparation: Preparation, ids: Tensor) -> ImageDataset:
        assert torch.equal(ids, data.ids)
        return replace(data, images=data.images.flip(3), preparation=preparation, read_again=None)

    other = Preparation.parse("resize=8")
    stored = replace(data, read_again=read)
    flipped = Changed(net, lambda _, images: net(images.flip(3)))
    compared = compare_models([net, flipped], stored, preparations=(None, other))
    pair = only(compared)
    assert sum(pair.flipped.values()) == 0
    assert compared.candidates[0].prepared == other.spelled
    assert {each.measurement for each in pair.failures} == {"layers", "adversarial images"}
    assert all("the same pixels" in each.reason for each in pair.failures)
    with pytest.raises(DataError, match="read again"):
        compare_models([net, net], data, preparations=(None, other))


def test_latency_is_measured_in_turn_at_one_image_and_a_batch(net: Net, data: ImageDataset) -> None:
    seen: list[tuple[str, int]] = []

    class Noted(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.net, self.name = copy.deepcopy(net), name

        def forward(self, images: Tensor) -> Tensor:
            seen.append((self.name, len(images)))
            return self.net(images)

    pair = only(compare_models([Noted("a"), Noted("b")], data, attacked=0))
    assert [each.batch for each in pair.latencies] == [1, 32]
    for each in pair.latencies:
        assert 0 < each.reference_low <= each.reference <= each.reference_high
        assert 0 < each.candidate_low <= each.candidate <= each.candidate_high
    singles = [name for name, rows in seen if rows == 1]
    assert "abababab" in "".join(singles)


def test_models_are_left_as_they_were(net: Net, data: ImageDataset) -> None:
    other = shaken(net).train()
    before = copy.deepcopy(other.state_dict())
    compare_models([net, other], data)
    assert other.training
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())
    assert all(not module._forward_hooks for module in (*net.modules(), *other.modules()))


def test_one_image_and_two_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    one = ImageDataset(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), classes=("no", "yes"))
    pair = only(compare_models([model, model], one))
    assert (pair.equivalence.verdict, pair.agreement.n) == ("cannot tell", 1)


def test_what_cannot_be_compared_is_one_line(net: Net, data: ImageDataset) -> None:
    with pytest.raises(OptionError, match="two models or more"):
        compare_models([net], data)
    with pytest.raises(OptionError, match="margin"):
        compare_models([net, net], data, margin=0.0)
    with pytest.raises(OptionError, match="names: expected one for each of 2 models, got 1"):
        compare_models([net, net], data, names=("one",))
    with pytest.raises(ModelError, match="model 2: model"):
        compare_models([net, Changed(net, lambda logits, _: logits[:, :3])], data)


def test_functions_and_other_objects_are_models_too(net: Net, data: ImageDataset) -> None:
    pair = only(compare_models([net, lambda images: net(images) * 1], data, attacked=0))
    assert pair.identical
