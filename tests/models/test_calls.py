"""How a model is called: its dtype, its batches, the shape of its output, its failures, and how it is left."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from assay.errors import InterruptedRunError, ModelError
from assay.models.calls import ModelCall, calling, check_logits, copied, refusing, rows_that_fit

IMAGES = torch.rand(11, 3, 4, 4)


class Net(nn.Module):
    """A linear classifier; ``before`` does something awkward with the images, ``after`` with the logits."""

    def __init__(
        self,
        before: Callable[[nn.Module, Tensor], Tensor | None] | None = None,
        after: Callable[[nn.Module, Tensor], object] | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(48, 5)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> object:
        changed = None if self.before is None else self.before(self, x)
        logits = self.fc((x if changed is None else changed).flatten(1))
        return logits if self.after is None else self.after(self, logits)


def outcome(model: nn.Module, images: Tensor = IMAGES, **options: object) -> Tensor:
    with calling(model, images, **options) as network, torch.no_grad():  # type: ignore[arg-type]
        return network(images)


def expected(images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        return Net()(images)


def refuse_unless(fits: Callable[[int], bool]) -> Callable[[nn.Module, Tensor], None]:
    def before(_: nn.Module, x: Tensor) -> None:
        if not fits(len(x)):
            raise ValueError(f"a batch of {len(x)}")

    return before


@pytest.mark.parametrize("n", [1, 2, 3, 7, 8, 9, 11])
@pytest.mark.parametrize(
    "model",
    [
        Net(),
        Net(after=lambda _, z: z.squeeze()),
        Net(refuse_unless(lambda n: n > 1)),
        Net(refuse_unless(lambda n: n >= 4)),
        Net(refuse_unless(lambda n: n == 1)),
        Net(refuse_unless(lambda n: n == 16)),
        Net(refuse_unless(lambda n: n <= 4)),
        Net(after=lambda _, z: z.t().contiguous().t()),
        Net(before=lambda _, x: x.mul_(1.0).sub_(0.25).add_(0.25)),
    ],
    ids=[
        "plain",
        "squeezes",
        "not one",
        "from four",
        "only one",
        "only sixteen",
        "at most four",
        "strided",
        "in place",
    ],
)
def test_every_batch_gets_its_own_rows(model: nn.Module, n: int) -> None:
    images = IMAGES[:n].clone()
    logits = outcome(model, images)
    torch.testing.assert_close(logits, expected(images))
    assert logits.is_contiguous()
    assert torch.equal(images, IMAGES[:n])


def test_no_model_ever_sees_an_empty_batch() -> None:
    model = Net(refuse_unless(lambda n: n > 0))
    with calling(model, IMAGES) as network:
        assert network(IMAGES[:0]).shape == (0, 5)


def test_gradients_flow_through_filled_and_split_batches() -> None:
    wanted = IMAGES.clone().requires_grad_()
    Net()(wanted).square().sum().backward()  # type: ignore[attr-defined]
    for model in (Net(refuse_unless(lambda n: n == 4)), Net(refuse_unless(lambda n: n == 16))):
        images = IMAGES.clone().requires_grad_()
        with calling(model, images) as network:
            network(images).square().sum().backward()
        torch.testing.assert_close(images.grad, wanted.grad)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_model_gets_its_own_dtype_and_at_least_float32_is_given_back(dtype: torch.dtype) -> None:
    logits = outcome(Net().to(dtype))
    assert logits.dtype == torch.promote_types(dtype, torch.float32)
    torch.testing.assert_close(logits.float(), expected(), rtol=0, atol=0.05)


def test_a_model_of_two_dtypes_runs_in_the_one_it_takes() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Identity()).double()
    model.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    model._parameters.move_to_end("unused", last=False) if hasattr(model._parameters, "move_to_end") else None
    assert outcome(model).dtype == torch.float64


def test_memory_that_runs_out_halves_the_batch() -> None:
    sizes = []

    def before(_: nn.Module, x: Tensor) -> None:
        sizes.append(len(x))
        if len(x) > 3:
            raise MemoryError("no memory for so many")

    torch.testing.assert_close(outcome(Net(before)), expected())
    assert max(sizes) == 11
    assert sizes[-1] <= 3


ERRORS = [
    AssertionError, AttributeError, IndexError, KeyError, MemoryError, NotImplementedError, OSError, OverflowError,
    RecursionError, RuntimeError, StopIteration, TypeError, UnicodeError, ValueError, ZeroDivisionError, Exception,
]  # fmt: skip


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_a_model_raises_is_one_line(kind: type[Exception]) -> None:
    def before(_: nn.Module, x: Tensor) -> None:
        raise kind("first line\nsecond line")

    with pytest.raises(ModelError) as refused:
        outcome(Net(before))
    text = str(refused.value)
    assert text.startswith("model(images): expected a model that takes images of shape (N, 3, 4, 4), got ")
    assert kind.__name__ in text
    assert "first line" in text
    assert text.endswith("(in Net)")
    assert "\n" not in text


@pytest.mark.parametrize("kind", ERRORS)
def test_whatever_a_backward_pass_raises_is_one_line(kind: type[Exception]) -> None:
    with (
        pytest.raises(ModelError, match=rf"^model: expected a gradient, got {kind.__name__}"),
        refusing(Net(), expected="a gradient", where="model"),
    ):
        raise kind("why")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_error_without_a_text_is_named() -> None:
    for error in (Unprintable(), ExceptionGroup("several", [KeyError("a"), OSError("b")]), StopIteration()):
        with pytest.raises(ModelError, match=f"got {type(error).__name__}.* \\(in Net\\)$"), refusing(Net()):
            raise error


def test_a_model_without_values_is_refused() -> None:
    with pytest.raises(ModelError, match="model: expected a model with weights, got one on the device meta"):
        outcome(Net().to("meta"))


def test_an_interruption_passes() -> None:
    with pytest.raises(InterruptedRunError), refusing(Net()):
        raise InterruptedRunError("stopped")
    with pytest.raises(KeyboardInterrupt), refusing(Net()):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("after", "got"),
    [
        (lambda _, z: (z[:, :2], z), "tuple, of which 1 would fit: let forward return that alone"),
        (lambda _, z: {"out": z, "h": z[:, :2]}, "dict, of which 'out' would fit: let forward return that alone"),
        (lambda _, z: "x", "str"),
        (lambda _, z: None, "NoneType"),
        (lambda _, z: z[:, :3], r"torch.float32 \(2, 3\) for 2 images"),
        (lambda _, z: z[:, 0], r"torch.float32 \(2,\) for 2 images"),
        (lambda _, z: z[:, :, None, None], r"torch.float32 \(2, 5, 1, 1\) for 2 images"),
        (lambda _, z: z.argmax(1), r"torch.int64 \(2,\) for 2 images"),
        (lambda _, z: z.long(), r"torch.int64 \(2, 5\) for 2 images"),
    ],
)
def test_an_output_that_is_no_row_of_logits_a_sample_is_refused(after: Callable[..., object], got: str) -> None:
    match = rf"model output: expected one tensor of logits \(N, 5\), a column for each class of the data, got {got}$"
    with pytest.raises(ModelError, match=match):
        outcome(Net(after=after), classes=5)


def test_logits_of_any_width_are_counted() -> None:
    assert check_logits(torch.zeros(2, 7), n=2) == 7


class Keeps(nn.Module):
    """Changes, in every call, all that a module can."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(1))
        self.hidden: Tensor | None = None
        self.sum = torch.zeros(5)
        self.array = np.zeros(3)
        self.log: list[int] = []
        self.by_shape: dict[int, list[int]] = {3: [1]}
        self.seen: set[int] = {1}
        self.recent: deque[int] = deque([1, 2], maxlen=2)
        self.options = type("Options", (), {})()
        self.options.scale = 1.0
        torch.manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(x.flatten(1))
        scale = 1.0 + len(self.log) + float(self.calls) + self.options.scale
        result = logits * scale + (0 if self.hidden is None else self.hidden) + torch.rand(1) * 0
        self.hidden = logits.mean()
        self.calls += 1  # type: ignore[operator]
        self.last = logits.detach()[:1]
        self.sum += logits.detach().sum(0)
        self.array += 1
        self.log.append(len(x))
        self.by_shape.setdefault(len(x), []).append(1)
        self.by_shape[3].append(2)
        self.seen.add(len(x))
        self.recent.append(9)
        self.options.scale += 1.0
        self.new = logits
        self.training = True
        np.random.rand()
        random.random()
        return result


def test_a_model_that_keeps_a_state_is_called_from_the_same_state_each_time_and_left_as_found() -> None:
    model = Keeps().eval()
    draws = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    state = vars(model)["_buffers"] | {k: v for k, v in vars(model).items() if not k.startswith("_")}
    with calling(model, IMAGES) as network, torch.no_grad():
        first, second = network(IMAGES), network(IMAGES)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, 2 * model.fc(IMAGES.flatten(1)).detach())
    assert not hasattr(model, "new")
    assert not model.training
    assert (model.log, model.by_shape, model.seen, list(model.recent)) == ([], {3: [1]}, {1}, [1, 2])
    assert (model.hidden, model.options.scale) == (None, 1.0)
    assert float(model.calls) == 0
    assert float(model.sum.abs().sum()) == 0
    assert model.array.tolist() == [0, 0, 0]
    assert all(getattr(model, name) is value for name, value in state.items() if name not in {"training"})
    assert torch.equal(torch.get_rng_state(), draws[0])
    assert np.array_equal(np.random.get_state()[1], draws[1])
    assert random.getstate() == draws[2]


def test_a_gradient_through_a_model_that_keeps_a_state_is_that_of_its_first_call() -> None:
    model = Keeps().eval()
    for _ in range(2):
        images = IMAGES.clone().requires_grad_()
        with calling(model, IMAGES) as network:
            network(IMAGES)
            network(images).sum().backward()
        torch.testing.assert_close(images.grad.flatten(1), (2 * model.fc.weight.detach().sum(0)).expand(11, 48))


class Flattens(nn.Module):
    """A convolution whose output is flattened by ``view`` (which refuses strides), or misread from memory."""

    def __init__(self, *, misread: bool) -> None:
        super().__init__()
        self.conv, self.fc, self.misread = nn.Conv2d(3, 2, 3), nn.Linear(8, 5), misread

    def forward(self, x: Tensor) -> Tensor:
        z = self.conv(x)
        flat = torch.as_strided(z, (len(z), 8), (8, 1)) if self.misread else z.view(len(z), -1)
        out: Tensor = self.fc(flat)
        return out


@pytest.mark.parametrize("misread", [False, True])
def test_channels_last_is_only_for_models_that_give_the_same_from_it(misread: bool) -> None:
    with calling(Flattens(misread=misread), IMAGES) as network:
        assert network.layout == torch.contiguous_format
    with calling(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(8, 5)), IMAGES) as network:
        assert network.layout == torch.channels_last


@pytest.mark.parametrize(
    ("model", "n", "size", "times"),
    [
        (Net(), 130, 64, 1),
        (Net(), 1, 64, 1),
        (Net(refuse_unless(lambda n: n > 1)), 130, 64, 1),
        (Net(refuse_unless(lambda n: n > 1)), 65, 64, 1),
        (Net(refuse_unless(lambda n: n > 1)), 3, 64, 3),
        (Net(refuse_unless(lambda n: n == 4)), 10, 64, 2),
        (Net(refuse_unless(lambda n: n == 1)), 10, 64, 1),
    ],
)
def test_batches_for_hooks_hold_each_sample_equally_often(model: nn.Module, n: int, size: int, times: int) -> None:
    with calling(model, IMAGES) as network:
        batches, often = network.batches(n, size=size)
        assert often == times
        assert torch.equal(torch.bincount(torch.cat(batches), minlength=n), torch.full((n,), times))
        with torch.no_grad():
            assert all(len(network._once(torch.rand(len(rows), 3, 4, 4))) == len(rows) <= size for rows in batches)


def test_batches_of_large_images_are_small() -> None:
    assert rows_that_fit((3, 32, 32), most=250) == 250
    assert rows_that_fit((3, 224, 224), most=250) == 55
    assert rows_that_fit((3, 4096, 4096), most=250) == 8
    assert rows_that_fit((3, 224, 224), most=5) == 5


def test_copies_of_models_that_hold_results_of_computations() -> None:
    with pytest.warns(FutureWarning):
        model = nn.Sequential(nn.Flatten(), nn.utils.weight_norm(nn.Linear(48, 5)))
    model(IMAGES)
    model.cache = {"z": 1}
    copy = copied(model)
    torch.testing.assert_close(copy(IMAGES), model(IMAGES))
    with torch.no_grad():
        copy[1].weight_g.zero_()
    assert not torch.equal(copy(IMAGES), model(IMAGES))
    model.lock = (i for i in range(3))
    with pytest.raises(ModelError, match="model: expected a model that can be copied, got TypeError"):
        copied(model)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:FutureWarning", "ignore:.*torch.jit.*:DeprecationWarning")
def test_a_program_in_torchscript_is_called_like_any_other() -> None:
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5)
    model = torch.jit.script(nn.Sequential(*layers))
    model.train()
    with calling(model, IMAGES) as network, torch.no_grad():
        assert network(IMAGES).shape == (11, 5)
        assert isinstance(network, ModelCall)
    assert model.training


class Wide(nn.Module):
    """Keeps tensors of known sizes for its backward pass."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).sigmoid().flatten(1)[:, :2]


def test_the_need_of_memory_is_what_the_graph_keeps() -> None:
    model, images = Wide(32), torch.rand(1, 3, 128, 128)
    with calling(model, images) as network:
        need = network.need
    # The image and the result of the sigmoid, in float32; the weights are there anyway.
    assert need is not None and need.graph == 4 * (3 + 32) * 128**2 and need.largest == 4 * 32 * 128**2
    with calling(model, images[..., :16, :16]) as network:
        assert network.need is None  # of small images batches are as before


def test_large_batches_are_split_as_the_need_of_memory_says() -> None:
    model, images = Wide(64), torch.rand(1, 3, 256, 256)
    rows = 2**28 // (4 * 4 * 64 * 256**2)  # four times the largest tensor in a quarter of a gigabyte
    seen: list[int] = []
    with calling(model, images) as network:
        model.conv.register_forward_hook(lambda _, args, __: seen.append(len(args[0])))
        with torch.no_grad():
            logits = network(images.expand(rows + 3, 3, 256, 256))
        assert seen == [rows, 3] and len(logits) == rows + 3
        with_gradients = network.rows_that_fit((3, 256, 256), most=64, gradients=True)
        assert with_gradients == 2**29 // (4 * 256**2 * (3 + 64 + 2 * 64))
        assert network.rows_that_fit((3, 256, 256), most=2, gradients=True) == 2


def test_a_model_that_shows_no_graph_has_batches_by_the_size_of_the_images() -> None:
    class Detached(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().flatten(1)[:, :2]

    with calling(Detached(), torch.rand(1, 3, 224, 224)) as network:
        assert network.need is None and network.rows_that_fit((3, 224, 224), most=250) == 55
