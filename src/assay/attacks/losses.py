"""What an attack maximises: each loss is larger the more wrong the model is.

A loss takes ``logits`` (B, K), ``labels`` (B,) and ``target_classes`` (B,), which untargeted losses ignore, and returns
one number a sample, (B,).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import OptionError

AttackLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
_TINY = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """−log softmax(z)_y, in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """max_{k≠y} z_k − z_y: positive exactly when the sample is misclassified (Carlini & Wagner 2017, f₆)."""
    others = logits.masked_fill(F.one_hot(labels, logits.shape[1]).bool(), -torch.inf)
    return others.amax(dim=1) - _of(logits, labels)


def probability_margin(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """The margin of the softmax probabilities (Li et al. 2022): its gradient weights both classes by their own odds."""
    return margin(logits.softmax(dim=1), labels, target_classes)


def dlr(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """Difference of logits ratio, −(z_y − max_{k≠y} z_k) / (z_π1 − z_π3): invariant to shift and scale of the logits.

    Croce & Hein 2020, eq. 6. Needs three classes.
    """
    ordered = logits.topk(3, dim=1).values
    return margin(logits, labels, target_classes) / (ordered[:, 0] - ordered[:, 2] + _TINY)


def targeted_dlr(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """−(z_y − z_t) / (z_π1 − (z_π3 + z_π4)/2), towards class t (Croce & Hein 2020, eq. 7). Needs four classes."""
    ordered = logits.topk(4, dim=1).values
    scale = ordered[:, 0] - 0.5 * (ordered[:, 2] + ordered[:, 3]) + _TINY
    return targeted_margin(logits, labels, target_classes) / scale


def targeted_margin(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """z_t − z_y: positive when the target class outranks the label."""
    return _of(logits, target_classes) - _of(logits, labels)


def target_lead(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """z_t − max_{k≠t} z_k: positive exactly when the target class is predicted."""
    return -margin(logits, target_classes, target_classes)


def targeted_cross_entropy(logits: Tensor, labels: Tensor, target_classes: Tensor) -> Tensor:
    """log softmax(z)_t: rises as the model becomes sure of the target."""
    return -F.cross_entropy(logits, target_classes, reduction="none")


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


LOSSES: Mapping[str, AttackLoss] = MappingProxyType(
    {
        "ce": cross_entropy,
        "margin": margin,
        "dlr": dlr,
        "probability-margin": probability_margin,
        "targeted-ce": targeted_cross_entropy,
        "targeted-margin": targeted_margin,
        "target-lead": target_lead,
        "targeted-dlr": targeted_dlr,
    }
)
_TARGETED: Mapping[AttackLoss, AttackLoss] = MappingProxyType(
    {cross_entropy: targeted_cross_entropy, margin: target_lead, probability_margin: target_lead, dlr: targeted_dlr}
)
_CLASSES_NEEDED: Mapping[AttackLoss, tuple[int, AttackLoss]] = MappingProxyType(
    {dlr: (3, margin), targeted_dlr: (4, targeted_margin)}
)


def targeted_loss(loss: AttackLoss) -> AttackLoss:
    """The loss that raises the target class, where ``loss`` only lowers the label."""
    return _TARGETED.get(loss, loss)


def find_loss(name: str) -> AttackLoss:
    """The loss of that name; :class:`OptionError` names all of them otherwise."""
    if name not in LOSSES:
        raise OptionError("loss", expected=f"one of {', '.join(LOSSES)}", got=repr(name))
    return LOSSES[name]


def fit_to_classes(loss: AttackLoss, classes: int) -> tuple[AttackLoss, tuple[str, ...]]:
    """``loss``, or the margin where a ratio of logits needs more classes than there are; and the notes about it."""
    needed, instead = _CLASSES_NEEDED.get(loss, (2, loss))
    if classes >= needed:
        return loss, ()
    return instead, (f"{loss.__name__} needs {needed} classes, the data have {classes}: {instead.__name__} instead",)
