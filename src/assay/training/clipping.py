"""Gradient clipping: of the global norm, of every value, or of every unit relative to its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm

from assay.training.param_groups import split_parameters
from assay.training.recipes import ClipOptions

Clip = Callable[[], Tensor]


def build_clip(model: nn.Module, options: ClipOptions) -> Clip:
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
        if options.name == "norm":
            clip_grad_norm_(parameters, options.limit)
        elif options.name == "value":
            clip_grad_value_(parameters, options.limit)
        elif options.name == "adaptive":
            clip_adaptively(matrices, options.limit)
        return norm

    return clip


@torch.no_grad()
def clip_adaptively(parameters: list[nn.Parameter], limit: float, *, epsilon: float = 1e-3) -> None:
    """Scale the gradient of every unit i (a row of (c_out, …)) with ‖G_i‖ > limit·max(‖W_i‖, ε) down to that."""
    for parameter in parameters:
        if parameter.grad is None:
            continue
        weight = parameter.flatten(1).norm(dim=1).clamp_min(epsilon)
        gradient = parameter.grad.flatten(1).norm(dim=1)
        scale = (limit * weight / gradient.clamp_min(1e-12)).clamp_max(1.0)
        parameter.grad.mul_(scale.view(-1, *[1] * (parameter.ndim - 1)))
