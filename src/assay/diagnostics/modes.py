"""Training and evaluation mode: which modules are in which, and what that changes in the logits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from assay.arguments import checked
from assay.data.dataset import ImageDataset, to_unit_range
from assay.data.selection import evenly_spaced
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling, refusing
from assay.models.probes import gap_alone, in_mode, output_kind, probe_modes, relative_gap
from assay.records.configuration import ModeAudit
from assay.runtime import uncompiled


@checked
def audit_modes(model: nn.Module, dataset: ImageDataset, *, n: int = 16) -> ModeAudit:
    """Compare the logits of both modes, of two runs in one mode, and of a sample alone and in its batch.

    Which modules depend on their mode is measured: each is run again on its own input with nothing but its own
    ``training`` flag flipped, so an ``F.dropout(x, training=self.training)`` inside any module is found.

    Args:
        model: takes images (N, C, H, W) in [0, 1], returns logits (N, K); left as it was found.
        dataset: images and labels of K classes.
        n: most samples, evenly spaced over the set, in one batch.

    Returns:
        The record: the modules in each mode, and the gaps between training and evaluation, between two runs, and
        between batch sizes (each max |a − b| over the logits, divided by max − min of the evaluation logits); whether
        outputs look like logits or probabilities; parameters that are frozen or not finite.

    Raises:
        ModelError: the model cannot take the images, or does not return logits (N, K).

    Example:
        >>> import assay
        >>> data = assay.load_dataset("digits", limit=16)
        >>> model = assay.load_model("resnet8", classes=10, image_shape=data.shape)
        >>> audit = assay.audit_modes(model.eval(), data)
        >>> audit.modules_in_train_mode, audit.repeat_gap, audit.train_eval_gap > 0.01
        ((), 0.0, True)
    """
    data = evenly_spaced(dataset, n)
    training = {name: module.training for name, module in model.named_modules()}
    images = to_unit_range(data.images)
    with (
        torch.no_grad(),
        uncompiled(),
        calling(model, images, classes=data.classes) as network,
    ):
        with in_mode(model, training=False), probe_modes(model) as probe:
            network(images)
        with in_mode(model, training=False):
            logits = network(images)
            again = network(images)
            batch_gap, batch_error = gap_alone(partial(_as_it_is, network), images, logits)
        train_gap, train_error = _in_training(network, model, images, logits)
    depends = probe.dependent(model)
    return ModeAudit(
        training_flag=model.training,
        modules_in_train_mode=tuple(name or "(model)" for name in training if name in depends and training[name]),
        modules_in_eval_mode=tuple(name or "(model)" for name in training if name in depends and not training[name]),
        frozen_parameters=sum(p.numel() for p in model.parameters() if not p.requires_grad),
        train_eval_gap=train_gap,
        repeat_gap=relative_gap(again, logits, logits),
        batch_gap=batch_gap,
        outputs_look_like=output_kind(logits),
        non_finite_parameters=_non_finite(model),
        idle_dropout=tuple(
            name for name, m in model.named_modules() if isinstance(m, _DropoutNd) and name not in probe.depends
        ),
        train_mode_error=train_error,
        batch_error=batch_error,
    )


def _as_it_is(network: ModelCall, images: Tensor) -> Tensor:
    """The logits of exactly these rows, or the output of whatever shape where it is none."""
    if network.state is not None:
        network.state.restore()
    with refusing(network.model, images.shape):
        outputs = network.model(images.to(network.device, network.dtype, copy=True))
    try:
        return network.read(outputs, n=len(images))
    except ModelError:
        return outputs


def _in_training(
    network: ModelCall, model: nn.Module, images: Tensor, logits: Tensor
) -> tuple[float | None, str | None]:
    training = replace(network, state=None)
    call = training if network.largest else training._once  # one image alone is the user's, and not to be repeated
    with in_mode(model, training=True):
        try:
            return relative_gap(call(images), logits, logits), None
        except ModelError as error:
            return None, error.got


def _non_finite(model: nn.Module) -> tuple[str, ...]:
    return tuple(
        name
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if tensor.is_floating_point() and not bool(_dense(tensor).isfinite().all())
    )


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
