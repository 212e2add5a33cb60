"""Weights drawn anew from the output down, and how far a map still resembles that of the trained network."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.runtime import generator


def cascade(layers: list[tuple[str, nn.Module]], *, depths: int, seed: int) -> Iterator[tuple[str, int]]:
    """Draw the weights of ``layers``, in the order of the computation, anew from the last down to the first.

    Stops at ``depths`` places, the last layer alone and all of them among these, and yields the layer reached and how
    many are random by then. Each tensor gets a permutation of its own values: their distribution stays, so that
    activations keep their size, and nothing that was learned does.
    """
    last = len(layers)
    stops = {1, last} if depths > 1 else {last}
    stops |= {round(1 + (last - 1) * k / (depths - 1)) for k in range(1, depths - 1)} if depths > 2 else set()
    done: set[int] = set()
    for count, (name, module) in enumerate(reversed(layers), 1):
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in done and not is_lazy(parameter):
                done.add(id(parameter))
                _shuffle(parameter, seed=seed, stream=len(done))
        if count in stops:
            yield name or type(module).__name__, count


@torch.no_grad()
def _shuffle(parameter: Tensor, *, seed: int, stream: int) -> None:
    order = torch.randperm(parameter.numel(), generator=generator(seed, stream, 41)).to(parameter.device)
    parameter.copy_(parameter.flatten()[order].view_as(parameter))


def rank_correlations(maps: Tensor, others: Tensor) -> list[float]:
    """Spearman's correlation of each of ``maps`` (N, H, W) with its other; 0 where one has no differences.

    NaN where one is not finite. Ties take their mean rank.
    """
    from scipy.stats import rankdata

    results = []
    for a, b in zip(maps.flatten(1), others.flatten(1), strict=True):
        if not bool(a.isfinite().all() and b.isfinite().all()):
            results.append(float("nan"))
            continue
        x, y = (torch.from_numpy(rankdata(each.double().numpy())) for each in (a, b))
        x, y = x - x.mean(), y - y.mean()
        size = float(x.norm() * y.norm())
        results.append(float(x @ y) / size if size else 0.0)
    return results
