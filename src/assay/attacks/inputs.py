"""What an attack is handed, checked before any work is done."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.errors import DataError, OptionError


def check_epsilons(epsilon: float | Tensor, *, n: int) -> Tensor:
    """float64 (N,), each at least 0 and finite."""
    values = torch.as_tensor(epsilon, dtype=torch.float64).detach().cpu()
    if values.ndim > 1 or (values.ndim == 1 and len(values) != n):
        raise OptionError("epsilon", expected=f"one number, or one for each of {n} samples", got=tuple(values.shape))
    bad = ~(values.isfinite() & (values >= 0)).reshape(-1)
    if bool(bad.any()):
        raise OptionError(
            "epsilon",
            expected="a finite number of at least 0, in pixel units",
            got=float(values.reshape(-1)[bad][0]),
        )
    return values.expand(n)


def check_images(
    images: Tensor, labels: Tensor, bounds: tuple[float, float], *, batch_size: int, eot_samples: int
) -> None:
    """Raise :class:`DataError` or :class:`OptionError` unless an attack can start on these."""
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise DataError(
            "images", expected="at least one image, float (N, C, H, W)", got=f"{images.dtype} {tuple(images.shape)}"
        )
    low, high = float(images.min()), float(images.max())
    if not (bounds[0] <= low and high <= bounds[1]):
        raise DataError("images", expected=f"pixels in {list(bounds)}", got=f"{low:.4g}..{high:.4g}")
    if not isinstance(labels, Tensor) or labels.shape != (len(images),) or labels.dtype != torch.int64:
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise DataError("labels", expected=f"int64 ({len(images)},), one for each image", got=got)
    if eot_samples < 1:
        raise OptionError("eot_samples", expected="at least 1", got=eot_samples)
    if batch_size < 1:
        raise OptionError("batch_size", expected="at least 1", got=batch_size)


def check_labels(labels: Tensor, classes: int) -> Tensor:
    """The labels, or :class:`DataError` naming the first that is out of range."""
    wrong = (labels < 0) | (labels >= classes)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        raise DataError(f"labels[{first}]", expected=f"0..{classes - 1}", got=int(labels[first]))
    return labels


def check_target_classes(target_classes: Tensor | None, labels: Tensor, classes: int) -> Tensor:
    """int64 (N,): the targets, −1 for none; :class:`DataError` for one that is no class, or the label itself."""
    if target_classes is None:
        return torch.full_like(labels, -1)
    if target_classes.shape != labels.shape or target_classes.dtype != torch.int64:
        raise DataError(
            "target_classes",
            expected=f"int64 ({len(labels)},)",
            got=f"{target_classes.dtype} {tuple(target_classes.shape)}",
        )
    wrong = (target_classes < 0) | (target_classes >= classes) | (target_classes == labels)
    if bool(wrong.any()):
        first = int(wrong.nonzero()[0])
        expected = f"a class of 0..{classes - 1} other than the label {int(labels[first])}"
        raise DataError(f"target_classes[{first}]", expected=expected, got=int(target_classes[first]))
    return target_classes
