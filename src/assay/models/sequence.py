"""Sequence models (recurrences, GRU, LSTM, a causal transformer), also as classifiers that read an image in steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from assay.errors import OptionError
from assay.models.wrappers import Normalize
from assay.options import Options
from assay.runtime import generator

Reads = Literal["last", "every"]
CELLS: Mapping[str, str] = MappingProxyType(
    {
        "rnn": "tanh, torch's own initialisation U(±1/√H)",
        "rnn-linear": "no nonlinearity, orthogonal recurrent matrix",
        "rnn-relu": "relu, torch's own initialisation",
        "irnn": "relu, identity recurrent matrix, zero biases (Le, Jaitly & Hinton 2015)",
        "ornn": "tanh, orthogonal recurrent matrix (Saxe, McClelland & Ganguli 2014)",
        "gru": "gated recurrent unit (Cho et al. 2014)",
        "lstm": "forget bias 1 (Gers, Schmidhuber & Cummins 2000)",
        "lstm-chrono": "forget bias ln U(1, T−1), input bias its negative (Tallec & Ollivier 2018)",
        "transformer": "causal self-attention, pre-norm (Vaswani et al. 2017; Xiong et al. 2020)",
    }
)
Activation = Callable[[Tensor], Tensor]


class SequenceModelOptions(Options):
    """The size of a sequence model; ``forget_bias`` is an LSTM's, ``layers`` of a transformer are at least two."""

    hidden: int = Field(64, ge=1)
    layers: int = Field(1, ge=1)
    forget_bias: float = 1.0


def identity(z: Tensor) -> Tensor:
    return z


class PlainRecurrence(nn.Module):
    """z_t = φ(W z_{t−1} + U x_t + b), the recurrence of the theory, one call of ``cell`` a step; linear by default.

    ``activation`` is φ, such as ``torch.sigmoid``, which torch's own recurrences do not have. W starts orthogonal.
    """

    def __init__(self, features: int, hidden: int, *, activation: Activation = identity) -> None:
        super().__init__()
        self.cell = PlainCell(features, hidden, activation=activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, F) -> (N, T, H) and the last state (1, N, H)."""
        z = x.new_zeros(x.shape[0], self.cell.recurrent.out_features)
        states = []
        for step in x.unbind(1):
            states.append(z := self.cell(step, z))
        return torch.stack(states, dim=1), z[None]


class PlainCell(nn.RNNCellBase):
    def __init__(self, features: int, hidden: int, *, activation: Activation = identity) -> None:
        nn.Module.__init__(self)
        self.activation = activation
        self.inward = nn.Linear(features, hidden)
        self.recurrent = nn.Linear(hidden, hidden, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.activation(self.inward(x) + self.recurrent(z))


class Recurrent(nn.Module):
    """A recurrence and a linear readout: (N, T, F) -> (N, K) of the last step, or (N, T, K) of every step."""

    def __init__(self, body: nn.Module, *, hidden: int, outputs: int, reads: Reads) -> None:
        super().__init__()
        self.body, self.readout, self.reads = body, nn.Linear(hidden, outputs), reads

    def forward(self, x: Tensor) -> Tensor:
        states = self.body(x)[0]
        return self.readout(states[:, -1] if self.reads == "last" else states)  # type: ignore[no-any-return]


class CausalTransformer(nn.Module):
    """Pre-norm blocks of causal self-attention over learned positions; the same interface as :class:`Recurrent`."""

    def __init__(
        self, features: int, *, hidden: int, outputs: int, length: int, reads: Reads, layers: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        if hidden % heads:
            raise OptionError("hidden", expected=f"a multiple of {heads} heads", got=hidden)
        self.embed, self.readout, self.reads = nn.Linear(features, hidden), nn.Linear(hidden, outputs), reads
        self.positions = nn.Parameter(torch.randn(length, hidden) * 0.02)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                hidden, heads, 2 * hidden, dropout=0.0, batch_first=True, norm_first=True, activation="gelu"
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.shape[1]
        mask = torch.ones(steps, steps, dtype=torch.bool, device=x.device).triu(1)
        z = self.embed(x) + self.positions[:steps]
        for block in self.blocks:
            z = block(z, src_mask=mask)
        z = self.norm(z)
        return self.readout(z[:, -1] if self.reads == "last" else z)  # type: ignore[no-any-return]


def build_sequence_model(
    name: str,
    *,
    features: int,
    outputs: int,
    length: int,
    reads: Reads = "last",
    hidden: int = 64,
    layers: int = 1,
    forget_bias: float = 1.0,
    seed: int = 0,
) -> nn.Module:
    """One of :data:`CELLS`, (N, T, F) -> (N, K) or (N, T, K), its weights following from ``seed`` alone.

    Raises :class:`OptionError` for an unknown name and for sizes below 1.
    """
    if name not in CELLS:
        raise OptionError("cell", expected=f"one of {', '.join(CELLS)}", got=name)
    sizes = {"features": features, "outputs": outputs, "length": length, "hidden": hidden, "layers": layers}
    for field, value in sizes.items():
        if value < 1:
            raise OptionError(field, expected="at least 1", got=value)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name == "transformer":
            layers = max(2, layers)
            return CausalTransformer(
                features, hidden=hidden, outputs=outputs, length=length, reads=reads, layers=layers
            )
        body = _body(name, features, hidden, layers, length=length, forget_bias=forget_bias)
        return Recurrent(body, hidden=hidden, outputs=outputs, reads=reads)


def _body(name: str, features: int, hidden: int, layers: int, *, length: int, forget_bias: float) -> nn.Module:
    if name == "rnn-linear":
        return PlainRecurrence(features, hidden)
    if name == "gru":
        return nn.GRU(features, hidden, layers, batch_first=True)
    if name in {"lstm", "lstm-chrono"}:
        lstm = nn.LSTM(features, hidden, layers, batch_first=True)
        set_forget_bias(lstm, _chrono(hidden, length) if name == "lstm-chrono" else forget_bias)
        return lstm
    nonlinearity = "relu" if name in {"irnn", "rnn-relu"} else "tanh"
    rnn = nn.RNN(features, hidden, layers, batch_first=True, nonlinearity=nonlinearity)
    if name in {"irnn", "ornn"}:
        set_recurrent(rnn, "identity" if name == "irnn" else "orthogonal")
    return rnn


@torch.no_grad()
def set_recurrent(rnn: nn.RNN, to: Tensor | Literal["identity", "orthogonal"]) -> None:
    """Give every W_hh this matrix (H, H), the identity or a random orthogonal one, and zero biases, in place."""
    for key, parameter in rnn.named_parameters():
        if key.startswith("weight_hh"):
            if isinstance(to, Tensor):
                parameter.copy_(to)
            else:
                nn.init.eye_(parameter) if to == "identity" else nn.init.orthogonal_(parameter)
        elif key.startswith("bias"):
            nn.init.zeros_(parameter)


def shape_recurrence(model: nn.Module, W: Tensor) -> None:
    """Give the plain recurrence of a :class:`Recurrent` this matrix (H, H), and zero biases, in place.

    Raises :class:`OptionError` for models with gates, with attention, or of several layers: they have no one W.
    """
    body = model.body if isinstance(model, Recurrent) else model
    with torch.no_grad():
        if isinstance(body, PlainRecurrence):
            body.cell.recurrent.weight.copy_(W)
            body.cell.inward.bias.zero_()
        elif isinstance(body, nn.RNN) and body.num_layers == 1 and not body.bidirectional:
            set_recurrent(body, W)
        else:
            raise OptionError("cell", expected="a plain recurrence of one layer", got=type(body).__name__)


@torch.no_grad()
def set_forget_bias(lstm: nn.LSTM, bias: float | Tensor) -> None:
    """Make the forget bias ``bias`` exactly (torch adds two biases: the second becomes 0), in place.

    A tensor (H,) also sets the input bias to its negative, as the chrono initialisation does.
    """
    for key, parameter in lstm.named_parameters():
        if key.startswith("bias"):
            i, f, _, _ = parameter.chunk(4)
            own = key.startswith("bias_ih")
            f.copy_(torch.as_tensor(bias, dtype=f.dtype).expand_as(f)) if own else f.zero_()
            if isinstance(bias, Tensor):
                i.copy_(-bias) if own else i.zero_()


def _chrono(hidden: int, length: int) -> Tensor:
    """b_f = ln u, u uniform on [1, T−1]: forget-gate time constants spread over the sequence."""
    return (1 + torch.rand(hidden) * max(1e-3, length - 2)).log()


def half_life(forget_bias: float) -> float:
    """ln 2/−ln σ(b) steps: how long the additive path of an LSTM holds half of its gradient with bias b alone."""
    return math.log(2) / math.log1p(math.exp(-forget_bias))


_STREAM = 0x3A7


def make_recurrent_matrix(size: int, *, radius: float, norm: float, seed: int = 0) -> Tensor:
    """W (H, H), float64, with spectral radius ρ = ``radius`` and ‖W‖₂ = ``norm``: W = Q·diag(J, J, …)·Qᵀ.

    J = [[ρ, c], [0, ρ]] with c = ‖W‖ − ρ²/‖W‖, whose singular values are ‖W‖ and ρ²/‖W‖; an odd size ends with a
    single ρ. Q is orthogonal and follows from ``seed``, so that W has no visible structure. c = 0 is a normal matrix;
    the larger c, the further ‖W^k‖ rises before it follows ρ^k. (Longer Jordan blocks would rise further, but rounding
    moves their eigenvalues so far that ρ could not be measured.)

    Raises :class:`OptionError` for a size below 1, a negative radius, a norm below the radius (no matrix has one), or
    one above it for a single unit.
    """
    if size < 1:
        raise OptionError("hidden", expected="at least 1", got=size)
    if not 0 <= radius < math.inf:
        raise OptionError("radius", expected="a finite number of at least 0", got=radius)
    if not radius <= norm < math.inf:
        raise OptionError("norm", expected=f"at least the spectral radius, {radius:g}: ρ(W) ≤ ‖W‖", got=norm)
    if size == 1 and norm > radius:
        raise OptionError("norm", expected=f"{radius:g}, the radius, for a single unit", got=norm)
    W = radius * torch.eye(size, dtype=torch.float64)
    pairs = torch.arange(0, size - 1, 2)
    W[pairs, pairs + 1] = norm - radius**2 / norm if norm > 0 else 0.0
    Q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator(seed, _STREAM), dtype=torch.float64))
    return Q @ W @ Q.T  # type: ignore[no-any-return]


class ReaderOptions(SequenceModelOptions):
    """``by`` row: H steps of W·C numbers; by pixel: H·W steps of C, after averaging down to ``side`` where given."""

    by: Literal["row", "pixel"] = "row"
    hidden: int = Field(128, ge=1)
    side: int | None = Field(None, ge=1)


class ImageReader(nn.Module):
    """Images (N, C, H, W) in [0, 1] to logits (N, K) through a sequence model; normalisation inside."""

    def __init__(self, sequence: nn.Module, *, normalize: Normalize, options: ReaderOptions) -> None:
        super().__init__()
        self.normalize, self.sequence, self.by, self.side = normalize, sequence, options.by, options.side

    def forward(self, images: Tensor) -> Tensor:
        x = self.normalize(images)
        if self.side is not None:
            x = nn.functional.interpolate(x, size=(self.side, self.side), mode="area")
        x = x.permute(0, 2, 3, 1)  # (N, H, W, C)
        return self.sequence(x.flatten(2) if self.by == "row" else x.flatten(1, 2))  # type: ignore[no-any-return]


def build_image_reader(
    *, classes: int, image_shape: tuple[int, int, int], normalize: Normalize, options: Mapping[str, object], name: str
) -> nn.Module:
    """A classifier of images over the sequence model ``name``; see :class:`ReaderOptions`."""
    chosen = ReaderOptions.parse(dict(options), where="model_options")
    channels, height, width = image_shape
    if chosen.side is not None:
        height = width = chosen.side
    length, features = (height, width * channels) if chosen.by == "row" else (height * width, channels)
    sizes = chosen.model_dump(include={"hidden", "layers", "forget_bias"})
    seed = torch.initial_seed()
    sequence = build_sequence_model(name, features=features, outputs=classes, length=length, seed=seed, **sizes)
    return ImageReader(sequence, normalize=normalize, options=chosen)
