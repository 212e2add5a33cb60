"""From a recipe's options to torch optimizers over the three parameter groups, and to gradient clipping."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from torch.optim import SGD, AdamW, Optimizer

from assay.errors import ModelError
from assay.training.param_groups import DecayRole, split_parameters
from assay.training.sections import AdamWOptions, ClipOptions, GradientClip, MuonOptions, OptimizerOptions, SGDOptions

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
STEPS = 5


def orthogonalize(matrix: Tensor, *, steps: int = STEPS) -> Tensor:
    """Nearly U Vᵀ for ``matrix`` (m, n) = U Σ Vᵀ: in five steps every singular value moves into about [0.7, 1.2].

    In three the small ones stay below, which training hardly notices and pays less for.

    The quintic Newton–Schulz iteration X ← aX + (bA + cA²)X with A = XXᵀ, after division by ‖X‖_F, with the
    coefficients that are steepest at zero instead of exact at one (Jordan et al., *Muon*, 2024). A zero matrix stays.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix  # A is then the smaller of the two products
    x = wide / (wide.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result


class Muon(Optimizer):
    """W ← W − η·s·orthogonalize(update), the update being (Nesterov) momentum of the gradient as (c_out, c_in·k²).

    s = √max(1, c_out/(c_in·k²)). Weight decay is decoupled: W ← (1 − ηλ)W first. With ``unit_norm`` every weight is
    scaled to ‖W‖_F = √c_out before its step, which is only right where a normalisation layer follows.
    For parameters of two dimensions or more; biases, norms, first and last layers want another rule.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        unit_norm: bool = False,
        newton_schulz_steps: int = STEPS,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "unit_norm": unit_norm,
            "newton_schulz_steps": newton_schulz_steps,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            if any(parameter.ndim < 2 for parameter in group["params"]):
                raise ValueError("Muon is for parameters of two dimensions or more")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer = state["momentum_buffer"]
        buffer.mul_(group["momentum"]).add_(gradient)
        update = gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        matrix = update.reshape(len(update), -1)  # (c_out, c_in, k, k) -> (c_out, c_in·k²)
        rows, columns = matrix.shape
        direction = orthogonalize(matrix, steps=group["newton_schulz_steps"]).view(update.shape)
        if group["unit_norm"]:
            parameter.mul_(rows**0.5 / parameter.norm().clamp_min(1e-12))
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(direction, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def build_optimizers(
    model: nn.Module, options: OptimizerOptions, *, rates: Mapping[str, float] | None = None
) -> tuple[Optimizer, ...]:
    """One optimizer, or two for Muon: every trainable parameter in exactly one group of one of them.

    Each group carries ``peak_lr``, which :func:`set_learning_rate` scales, and its ``role``. ``rates`` are further
    factors on the learning rate, by name of the parameter, for those that have one; weight decay is not changed.
    Raises :class:`ModelError` when nothing is trainable.
    """
    factors = {id(parameter): (rates or {}).get(name, 1.0) for name, parameter in model.named_parameters()}
    groups = split_parameters(model).decay_groups()
    members = {role: [parameter for _, parameter in named] for role, named in groups.items()}
    if not any(members.values()):
        raise ModelError("model", expected="at least one trainable parameter", got="none")
    if isinstance(options, AdamWOptions):
        parts = _groups(members, options, rate=options.lr, factors=factors)
        return (AdamW(parts, options.lr, options.betas, weight_decay=0.0),)
    if isinstance(options, SGDOptions):
        return (_sgd(members, options, rate=options.lr, momentum=options.momentum, factors=factors),)
    matrices = hidden_matrices(model)
    own = {id(parameter) for parameter in matrices}
    members["weight"] = [parameter for parameter in members["weight"] if id(parameter) not in own]
    optimizers: list[Optimizer] = []
    if matrices:
        muon = Muon(
            [
                {"params": those, "lr": options.lr * factor, "peak_lr": options.lr * factor, "role": "weight"}
                for factor, those in _by_factor(matrices, factors).items()
            ],
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.nesterov and options.momentum > 0,
            weight_decay=0.0 if options.unit_norm else _decay("weight", options),
            unit_norm=options.unit_norm,
            newton_schulz_steps=options.newton_schulz_steps,
        )
        optimizers.append(muon)
    if any(members.values()):
        sgd = _sgd(members, options, rate=options.side_lr, momentum=options.side_momentum, factors=factors)
        optimizers.append(sgd)
    return tuple(optimizers)


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trainable weights of convolutions and linear layers but the first and the last of them all.

    The first layer's inputs are pixels and the last one's outputs logits, so neither is an operator between hidden
    spaces, which is what Muon's norm is for.
    """
    layers = [module for module in model.modules() if isinstance(module, nn.modules.conv._ConvNd | nn.Linear)]
    inner = {id(layer.weight): layer.weight for layer in layers[1:-1] if layer.weight.requires_grad}
    ends = {id(layer.weight) for layer in (*layers[:1], *layers[-1:])}
    return [weight for key, weight in inner.items() if key not in ends and isinstance(weight, nn.Parameter)]


def set_learning_rate(optimizers: tuple[Optimizer, ...], factor: float) -> None:
    """Every group's learning rate becomes ``factor`` times its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor


def _sgd(
    members: dict[DecayRole, list[nn.Parameter]],
    options: SGDOptions | MuonOptions,
    *,
    rate: float,
    momentum: float,
    factors: Mapping[int, float],
) -> SGD:
    groups = _groups(members, options, rate=rate, factors=factors)
    return SGD(groups, lr=rate, momentum=momentum, nesterov=options.nesterov and momentum > 0)


def _groups(
    members: dict[DecayRole, list[nn.Parameter]],
    options: OptimizerOptions,
    *,
    rate: float,
    factors: Mapping[int, float],
) -> list[dict[str, Any]]:
    """A group for every role that has parameters, and for every one of their ``factors`` on the learning rate."""
    groups = []
    for role, parameters in members.items():
        of_role = options.norm_lr_factor if role == "norm" else 1.0
        for factor, those in _by_factor(parameters, factors).items():
            peak = rate * of_role * factor
            # lr · decay must not change with the factor of norms on lr
            decay = _decay(role, options) / of_role
            groups.append({"params": those, "lr": peak, "peak_lr": peak, "weight_decay": decay, "role": role})
    return groups


def _by_factor(parameters: Iterable[nn.Parameter], factors: Mapping[int, float]) -> dict[float, list[nn.Parameter]]:
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(factors[id(parameter)], []).append(parameter)
    return groups


def _decay(role: DecayRole, options: OptimizerOptions) -> float:
    return options.weight_decay if role in options.decay_roles else 0.0


def build_clip(model: nn.Module, options: ClipOptions) -> Callable[[], Tensor]:
    """A function that clips the model's gradients in place and returns their global L2 norm before that.

    ``norm``      g ← g·min(1, limit/‖g‖₂) over all parameters together (Pascanu et al. 2013)
    ``value``     every entry into [−limit, limit]
    ``adaptive``  every output unit's gradient to at most limit·max(‖w‖₂, 10⁻³) (Brock et al. 2021, eq. 3), the last
                  layer's and all vectors left alone as the paper does
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for _, parameter in split_parameters(model).weight if parameter.ndim >= 2][:-1]

    def clip() -> Tensor:
        norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        match options:
            case GradientClip(name="norm"):
                clip_grad_norm_(parameters, options.limit)
            case GradientClip(name="value"):
                clip_grad_value_(parameters, options.limit)
            case GradientClip(name="adaptive"):
                clip_adaptively(matrices, options.limit)
        return norm

    return clip


@torch.no_grad()
def clip_adaptively(parameters: list[nn.Parameter], limit: float, *, epsilon: float = 1e-3) -> None:
    """Scale the gradient of every unit i (a row of (c_out, …)) with ‖G_i‖ > limit·max(‖W_i‖, ε) down to that."""
    for parameter in parameters:
        if parameter.grad is not None:
            weight = parameter.flatten(1).norm(dim=1).clamp_min(epsilon)
            gradient = parameter.grad.flatten(1).norm(dim=1).clamp_min(1e-12)
            parameter.grad.mul_((limit * weight / gradient).clamp_max(1.0).view(-1, *[1] * (parameter.ndim - 1)))
