"""Every attack and norm at the edges: no epsilon and a huge one, one image, few and many classes, awkward models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from assay.attacks.engine import attack
from assay.attacks.losses import cross_entropy
from assay.attacks.measure import measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods import find_attack
from assay.attacks.methods.apgd import APGDT
from assay.attacks.methods.external import External
from assay.attacks.methods.gradient import PGD
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.methods.square import Square
from assay.attacks.methods.transforms import Transforms
from assay.attacks.network import open_network
from assay.attacks.sanity import measure_attack_sanity
from assay.attacks.threat import Threat
from assay.data.dataset import ImageDataset
from assay.errors import InputError, ModelError, OptionError
from assay.models.calls import differentiate

SHORT: dict[str, dict[str, Any]] = {
    "fgsm": {},
    "pgd": {"steps": 3, "restarts": 2},
    "signed-steps": {"steps": 2},
    "noise": {"draws": 3},
    "apgd-ce": {"steps": 4},
    "apgd-t": {"steps": 3},
    "fab-t": {"steps": 4, "n_target_classes": 2},
    "square": {"queries": 4},
    "standard": {"steps": 3, "queries": 3, "n_target_classes": 2},
    "adaptive": {"steps": 3, "queries": 3, "boundary_steps": 3, "short_queries": 2},
    "min-norm": {"steps": 4},
    "transforms": {},
    "transfer": {"steps": 2},
}
NORMS = ("linf", "l2", "l1")
EVERY = [(name, norm) for name in SHORT for norm in NORMS]


class Flattening(nn.Module):
    """It flattens by ``view`` with a computed size, which has no answer for an empty batch."""

    def __init__(self, classes: int = 4, pixels: int = 16) -> None:
        super().__init__()
        torch.manual_seed(classes)
        self.linear = nn.Linear(pixels, classes)
        self.sizes: set[int] = set()

    def forward(self, x):
        if x.shape[0] == 0:
            raise AssertionError("an empty batch")
        return self.linear(x.contiguous().view(x.size(0), -1))


def images_of(n: int = 6, *shape: int) -> Tensor:
    return torch.rand(n, *(shape or (1, 4, 4)), generator=torch.Generator().manual_seed(n))


def predicted(model, images):
    with torch.no_grad():
        return model(images.to(next((p.dtype for p in model.parameters()), images.dtype))).argmax(dim=1)


def run(model, images, labels, name, norm, epsilon, **more):
    return attack(model, images, labels, attack=find_attack(name, SHORT[name]), norm=norm, epsilon=epsilon, **more)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_without_epsilon_the_clean_accuracy_stays_and_nobody_is_moved(name: str, norm: str) -> None:
    model, images = Flattening(), images_of()
    model.linear.weight.data *= 1e6  # whatever is near the boundary would be broken by the rounding of a pixel
    labels = predicted(model, images)
    labels[0] = (labels[0] + 1) % 4
    for epsilon in (0.0, 1e-45):
        result = run(model, images, labels, name, norm, epsilon)
        assert result.adversarial.isfinite().all()
        if name != "transforms":  # which has no epsilon
            assert result.robust.tolist() == [False] + [True] * 5
            assert torch.equal(result.adversarial, images)


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_an_epsilon_beyond_the_pixel_range_allows_what_the_whole_range_does(name: str, norm: str) -> None:
    model, images = Flattening(), images_of(3)
    labels = predicted(model, images)
    widest = Threat(norm=norm).diameter(16)  # type: ignore[arg-type]
    whole = run(model, images, labels, name, norm, widest)
    for epsilon in (3 * widest, 1e25, 1e300):
        if name == "signed-steps":  # its epsilon is the size of a step that nothing bounds
            with pytest.raises(OptionError, match="epsilon: expected a step of at most"):
                run(model, images, labels, name, norm, 1e300)
            break
        result = run(model, images, labels, name, norm, epsilon)
        assert torch.equal(result.adversarial, whole.adversarial)
        assert torch.equal(result.distances, whole.distances)
        if name != "transforms":
            assert result.threat.epsilon == epsilon
            assert any("allows every image" in note for note in result.notes)


@pytest.mark.parametrize(
    ("name", "norm", "classes"),
    [(*each, 2) for each in EVERY] + [(name, norm, k) for name in SHORT for norm, k in (("linf", 3), ("l2", 1000))],
)
def test_any_number_of_classes_and_one_image(name, norm, classes):
    model, images = Flattening(classes), images_of(1)
    labels = predicted(model, images)
    epsilon = {"linf": 0.5, "l2": 2.0, "l1": 8.0}[norm]
    for wrong, size in ((0, 1), (1, 256)):
        result = run(model, images, (labels + wrong) % classes, name, norm, epsilon, batch_size=size)
        assert result.clean_correct.tolist() == [wrong == 0]
        assert torch.equal(result.robust, predicted(model, result.adversarial) == result.labels)
        assert not (result.broken & (result.logits.argmax(dim=1) == result.labels)).any()
    targets = (labels + 1) % classes
    few = {option: value for option, value in SHORT[name].items() if option != "n_target_classes"}
    options = find_attack(name, few)
    towards = attack(model, images, labels, attack=options, norm=norm, epsilon=epsilon, target_classes=targets)
    assert not (towards.broken & (predicted(model, towards.adversarial) != targets)).any()


@pytest.mark.parametrize(("name", "norm"), EVERY)
def test_pictures_of_one_pixel_at_the_bounds(name: str, norm: str) -> None:
    images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
    model = Flattening(2, pixels=1)
    labels = predicted(model, images)
    result = run(model, images, labels, name, norm, 0.25)
    assert float(result.adversarial.min()) >= 0 and float(result.adversarial.max()) <= 1
    assert torch.equal(result.robust, predicted(model, result.adversarial) == labels)


@pytest.mark.parametrize("attack_name", ["fgsm", "noise", "square", "min-norm"])
def test_an_attack_that_breaks_nobody_asks_for_no_empty_batch(attack_name: str) -> None:
    model = Flattening()
    bytes_ = (images_of(5) * 255).to(torch.uint8)
    right = predicted(model, bytes_.float() / 255)
    for labels in (right, (right + 1) % 4):
        data = ImageDataset(bytes_, labels, ("a", "b", "c", "d"), name="random", split="test")
        options = find_attack(attack_name, SHORT[attack_name])
        measured = measure_robust_accuracy(model, data, attack=options, epsilon=1e-6)
        assert measured.correct == measured.record.correct_after_rounding == measured.record.clean_correct
    measure_attack_sanity(model, data, epsilon=1e-6, queries=3, n=1)
    curve = measure_epsilon_curve(model, data, epsilons=[1e-6], attack=find_attack(attack_name, SHORT[attack_name]))
    assert [point.correct for point in curve.points] == [0, 0]


class Overwriting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()

    def forward(self, x):
        x.sub_(0.5)
        return self.inner(x + 0.5)


class Undefined(nn.Module):
    """The first logit of dark images is ``value``."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.inner, self.value = Flattening(), value

    def forward(self, x):
        dark = x.flatten(1).mean(dim=1) < 0.5
        first = torch.tensor([True, False, False, False])
        return torch.where(dark[:, None] & first, self.value, self.inner(x))


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(x), 4)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()

    def forward(self, x):
        return self.inner(x).detach()


class Caching(nn.Module):
    """It keeps a tensor of its first call, which autograd would refuse had that been in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()
        self.scale: Tensor | None = None

    def forward(self, x):
        if self.scale is None:
            self.scale = torch.ones(4, 4) * 1.0
        return self.inner(x * self.scale)


class Transposed(nn.Module):
    """Its output is a view whose rows are not contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()

    def forward(self, x):
        return self.inner(x).t().contiguous().t()


def normed(kind: Callable[..., nn.Module]) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), kind(nn.Linear(32, 4)))
    model(images_of())
    return model.eval()


AWKWARD: dict[str, Callable[[], nn.Module]] = {
    "overwrites its input": Overwriting,
    "nan": lambda: Undefined(float("nan")),
    "inf": lambda: Undefined(float("inf")),
    "minus inf": lambda: Undefined(-float("inf")),
    "constant": Constant,
    "detached": Detached,
    "caching": Caching,
    "transposed": Transposed,
    "half": lambda: Flattening().half(),
    "bfloat16": lambda: Flattening().bfloat16(),
    "float64": lambda: Flattening().double(),
    "weight norm": lambda: normed(torch.nn.utils.weight_norm),
    "spectral norm": lambda: normed(torch.nn.utils.spectral_norm),
    "parametrized": lambda: normed(torch.nn.utils.parametrizations.weight_norm),
    "scripted": lambda: torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).eval()),
    "parallel": lambda: nn.DataParallel(Flattening()),
    "traced by fx": lambda: torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Flatten(), nn.Linear(16, 4))),
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in {"pgd", "square"} else pytest.mark.full) for name in SHORT]
)
@pytest.mark.parametrize("kind", list(AWKWARD))
def test_awkward_models_give_right_numbers(kind: str, name: str) -> None:
    torch.manual_seed(1)
    model = AWKWARD[kind]()
    images = images_of()
    before = images.clone()
    labels = predicted(model, before.clone())
    result = run(model, images, labels, name, "linf", 0.2)
    assert torch.equal(images, before)
    assert result.adversarial.isfinite().all()
    seen = result.adversarial.to(model_dtype(model))
    with torch.no_grad():
        logits = torch.cat([model(image[None].clone()) for image in seen])
    fine = logits.isfinite().all(dim=1) & (logits.argmax(dim=1) == labels)
    assert torch.equal(result.robust, fine)
    assert float((result.adversarial - images).abs().max()) <= 0.2 + 1e-6 or name in ("transforms", "signed-steps")


def model_dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)


class InPlace(nn.Module):
    """It overwrites what its own backward pass needs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Flattening()

    def forward(self, x):
        y = x.exp()
        z = y * y
        y.add_(1)
        return self.inner(z)


def test_a_backward_pass_that_fails_is_one_line() -> None:
    model, images = InPlace(), images_of()
    with pytest.raises(ModelError, match=r"^backward pass: .*modified by an inplace operation.*\(in InPlace\)$"):
        attack(model, images, predicted(model, images), attack="fgsm")


class OnlyInTraining(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, training: bool, allows: bool) -> Tensor:
        ctx.fine = training or (allows and not torch.backends.cudnn.enabled)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if not ctx.fine:
            raise RuntimeError("cudnn RNN backward can only be called in training mode")
        return gradients[0], None, None


class Strict(nn.LSTM):
    """Its backward pass needs training mode, or, where it ``allows`` that, to run without cuDNN."""

    allows = False

    def forward(self, x, hx=None):
        outputs, state = super().forward(x, hx)
        return OnlyInTraining.apply(outputs, self.training, self.allows), state


class Reader(nn.Module):
    def __init__(self, kind: type[nn.LSTM]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = kind(4, 6, num_layers=2, dropout=0.5, batch_first=True)
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(self.lstm(x[:, 0])[0][:, -1])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("allows", [False, True])
def test_recurrent_layers_whose_backward_pass_needs_training_mode(allows: bool) -> None:
    plain, strict = Reader(nn.LSTM).eval(), Reader(type("Layer", (Strict,), {"allows": allows})).eval()
    images = images_of()
    labels = predicted(plain, images)
    for name in ("pgd", "min-norm"):
        expected, result = (run(model, images, labels, name, "l2", 0.5) for model in (plain, strict))
        assert torch.allclose(result.adversarial, expected.adversarial, atol=1e-5)
    with open_network(strict, images) as network:
        gradient = network.gradient(images, labels, cross_entropy)
    assert gradient is not None and bool((gradient.flatten(1).abs().amax(dim=1) > 0).all())
    assert strict.lstm.dropout == 0.5 and not strict.lstm.training


def test_other_failures_of_a_backward_pass_are_not_tried_again() -> None:
    calls = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        differentiate(Reader(nn.LSTM), fail)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        (PGD(random_start=False, restarts=2), {}, "restarts: pgd ignores it without random_start=true"),
        (PGD(steps=1, momentum=0.5), {}, "momentum: pgd ignores it without steps=2 or more"),
        (PGD(loss="targeted-ce"), {}, "loss: expected one that lowers the label, or target classes"),
        (Transforms(draws=5), {}, "draws: transforms ignores it without search=random"),
        (Square(), {"eot_samples": 2}, "eot_samples: square takes no gradients"),
        (APGDT(n_target_classes=3), {"target_classes": True}, "n_target_classes: each sample's target class is given"),
        (
            External(perturb=lambda x, y: 1 / 0),
            {},
            r"external\(images, labels\): expected images, got ZeroDivisionError",
        ),
    ],
)
def test_options_without_effect_and_attacks_that_fail_are_one_line(
    options: Any, more: dict[str, Any], message: str
) -> None:
    model, images = Flattening(), images_of()
    labels = predicted(model, images)
    if "target_classes" in more:
        more = {"target_classes": (labels + 1) % 4}
    with pytest.raises(InputError, match=f"^{message}"):
        attack(model, images, labels, attack=options, **more)


def set_of(images: Tensor, labels: Tensor) -> ImageDataset:
    return ImageDataset((images * 255).byte(), labels, ("a", "b", "c", "d"), name="random", split="test")


def test_a_curve_takes_steps_beside_a_name_only_and_an_attack_with_an_epsilon() -> None:
    data = set_of(images_of(), torch.zeros(6, dtype=torch.int64))
    with pytest.raises(OptionError, match="steps: the options of min-norm are given as an object"):
        measure_epsilon_curve(Flattening(), data, attack=MinimumNorm(), steps=3)
    with pytest.raises(OptionError, match="attack: expected an attack that depends on epsilon, got 'transforms'"):
        measure_epsilon_curve(Flattening(), data, attack="transforms")


def test_the_curve_of_nearest_images_begins_at_the_clean_accuracy() -> None:
    model, images = Flattening(), images_of(12)
    bytes_ = (images * 255).byte()
    labels = predicted(model, bytes_.float() / 255)
    model.linear.weight.data *= 1e4  # every image is within float32 rounding of a boundary
    model.linear.bias.data = -(model.linear.weight.data * (bytes_.float() / 255).flatten(1).mean(dim=0)).sum(dim=1)
    labels = predicted(model, bytes_.float() / 255)
    data = ImageDataset(bytes_, labels, ("a", "b", "c", "d"), name="random", split="test")
    curve = measure_epsilon_curve(model, data, epsilons=[1e-3], attack=MinimumNorm(steps=10), norm="l1")
    assert curve.points[0].accuracy == 1.0


def test_a_targeted_ratio_of_logits_falls_back_where_classes_are_few() -> None:
    model, images = Flattening(3), images_of()
    labels = predicted(model, images)
    targets = (labels + 1) % 3
    result = attack(model, images, labels, attack=PGD(loss="dlr", steps=3), epsilon=0.5, target_classes=targets)
    assert any("targeted_dlr needs 4 classes" in note for note in result.notes)


def test_sanity_takes_samples_of_every_class() -> None:
    model, images = Flattening(), images_of(40)
    labels, order = predicted(model, (images * 255).byte().float() / 255).sort()
    data = set_of(images[order], labels)
    seen: set[int] = set()
    known = {
        tuple(image.flatten().tolist()): int(y) for image, y in zip(data.images.float() / 255, labels, strict=True)
    }
    handle = model.register_forward_pre_hook(
        lambda module, inputs: seen.update(
            known.get(tuple(image.flatten().tolist()), -1) for image in inputs[0].detach()
        )
    )
    assert measure_attack_sanity(model, data, n=8, queries=2).n == 8
    handle.remove()
    assert seen - {-1} == set(labels.tolist())
    with pytest.raises(OptionError, match="n: expected at least 1, got 0"):
        measure_attack_sanity(model, data, n=0)
