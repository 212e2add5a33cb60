from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from assay.errors import OptionError
from assay.models.architectures import build
from assay.models.sequence import CELLS, PlainRecurrence, build_sequence_model, set_forget_bias, set_recurrent


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize("name", CELLS)
def test_shapes_and_seeds(name: str, reads: str) -> None:
    def make(seed: int) -> nn.Module:
        return build_sequence_model(name, features=3, outputs=5, length=7, reads=reads, hidden=8, seed=seed)

    x = torch.rand(4, 7, 3)
    state = torch.get_rng_state()
    first, again, other = make(0)(x), make(0)(x), make(1)(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == ((4, 5) if reads == "last" else (4, 7, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", CELLS)
def test_no_step_sees_the_future(name: str) -> None:
    model = build_sequence_model(name, features=3, outputs=5, length=7, reads="every", hidden=8)
    x = torch.rand(4, 7, 3)
    changed = x.clone()
    changed[:, 4:] += 1
    torch.testing.assert_close(model(x)[:, :4], model(changed)[:, :4])
    assert not torch.allclose(model(x)[:, 4:], model(changed)[:, 4:])


def test_initialisations_are_those_of_their_names() -> None:
    sizes = {"features": 3, "outputs": 2, "length": 50, "hidden": 16}
    identity = build_sequence_model("irnn", **sizes).body
    assert torch.equal(identity.weight_hh_l0, torch.eye(16))
    assert not identity.bias_hh_l0.any()
    orthogonal = build_sequence_model("ornn", **sizes).body.weight_hh_l0
    torch.testing.assert_close(orthogonal @ orthogonal.T, torch.eye(16), atol=1e-5, rtol=0)
    lstm = build_sequence_model("lstm", **sizes).body
    assert torch.equal((lstm.bias_ih_l0 + lstm.bias_hh_l0)[16:32], torch.ones(16))
    chrono = build_sequence_model("lstm-chrono", **sizes).body
    i, f, _, _ = (chrono.bias_ih_l0 + chrono.bias_hh_l0).chunk(4)
    assert torch.equal(i, -f)
    assert bool((f >= 0).all()) and bool((f <= math.log(49)).all())


def test_setters_reach_every_layer_and_direction() -> None:
    lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    set_forget_bias(lstm, 2.5)
    for key in ("l0", "l1", "l0_reverse", "l1_reverse"):
        total = getattr(lstm, f"bias_ih_{key}") + getattr(lstm, f"bias_hh_{key}")
        assert torch.equal(total[4:8], torch.full((4,), 2.5))
    rnn = nn.RNN(3, 4, num_layers=2)
    set_recurrent(rnn, "identity")
    assert torch.equal(rnn.weight_hh_l1, torch.eye(4))


@pytest.mark.parametrize(
    ("options", "length"), [({"by": "row"}, 8), ({"by": "pixel"}, 64), ({"by": "pixel", "side": 4}, 16)]
)
def test_images_are_read_as_sequences(options: dict, length: int) -> None:
    model = build("lstm", classes=4, image_shape=(3, 8, 8), options={"hidden": 8, **options})
    seen = []
    model.sequence.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    assert model(torch.rand(5, 3, 8, 8)).shape == (5, 4)
    assert seen[0][:2] == (5, length)


def test_rows_keep_their_order() -> None:
    model = build("rnn", classes=4, image_shape=(1, 3, 2), normalization="none", options={"hidden": 8})
    seen = []
    model.sequence.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    image = torch.arange(6.0).view(1, 1, 3, 2) / 6
    model(image)
    torch.testing.assert_close(seen[0], image[:, 0])


def test_bad_options_are_one_line() -> None:
    sizes = {"features": 3, "outputs": 2, "length": 5}
    with pytest.raises(OptionError, match="cell: expected one of rnn, .* got rnnn"):
        build_sequence_model("rnnn", **sizes)
    with pytest.raises(OptionError, match="hidden: expected at least 1, got 0"):
        build_sequence_model("rnn", hidden=0, **sizes)
    with pytest.raises(OptionError, match="hidden: expected a multiple of 4 heads, got 6"):
        build_sequence_model("transformer", hidden=6, **sizes)
    with pytest.raises(OptionError, match=r"model_options: by"):
        build("lstm", classes=4, image_shape=(3, 8, 8), options={"by": "diagonal"})


def test_a_plain_recurrence_with_an_activation_is_the_textbook_formula() -> None:
    torch.manual_seed(0)
    net = PlainRecurrence(3, 5, activation=torch.sigmoid)
    x = torch.rand(2, 4, 3)
    states, last = net(x)
    z = torch.zeros(2, 5)
    for t in range(4):
        z = torch.sigmoid(x[:, t] @ net.cell.inward.weight.T + net.cell.inward.bias + z @ net.cell.recurrent.weight.T)
        torch.testing.assert_close(states[:, t], z)
    assert torch.equal(last[0], states[:, -1])
