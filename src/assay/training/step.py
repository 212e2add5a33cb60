"""The gradient of one step: a micro-batch becomes a loss, and gradients are summed over micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.data.dataset import Batch, to_unit_range
from assay.errors import DivergedError
from assay.models.calls import refusing
from assay.models.outputs import Outputs, Single, read_outputs
from assay.runtime import device_of, dtype_of, generator, hooked

# (model, images in [0, 1], labels, or distributions over the classes where samples are mixed) -> images in [0, 1]
Perturb = Callable[[nn.Module, Tensor, Tensor], Tensor]
Prepare = Callable[[Batch], Tensor]  # bytes of one micro-batch to augmented bytes
Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # (images, one-hot targets) -> the same, mixed
KeepLosses = Callable[[Tensor], None]  # takes the losses (B,) of a micro-batch, one a sample
TrainingLoss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (images, logits, targets) -> sum of the samples' losses


def auxiliary_weight(outputs: int) -> float:
    """The weight in the loss of each of so many auxiliary outputs: 0.4 of one alone, 0.3 of several.

    Reference: GoogLeNet's two (Szegedy et al. 2015, section 5) and Inception v3's one (Szegedy et al. 2016), with the
    weights that their published networks were trained by.
    """
    return 0.4 if outputs == 1 else 0.3


@dataclass(frozen=True)
class Objective:
    """How a micro-batch becomes a loss: cross-entropy with ``label_smoothing`` on perturbed and mixed images.

    The losses of auxiliary outputs are added by :func:`auxiliary_weight`. ``single`` is what the one output of a model
    of two classes is. ``precision`` is that of convolutions and products, in the network, in ``perturb`` and in
    ``loss``, which takes the place of cross-entropy where it is given. ``see_outputs`` gets what the model returned.
    """

    classes: int
    label_smoothing: float = 0.0
    perturb: Perturb | None = None
    mix: Mix | None = None
    precision: str = "float32"
    loss: TrainingLoss | None = None
    single: Single = "logit"
    see_outputs: Callable[[Outputs], None] | None = None

    def __call__(
        self, model: nn.Module, images: Tensor, labels: Tensor, *, keep_losses: KeepLosses | None = None
    ) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the micro-batch, and the number of correct samples (0-dimensional tensors).

        ``keep_losses`` gets the cross-entropy of every sample.
        """
        targets = labels
        if self.mix is not None:
            images, targets = self.mix(images, F.one_hot(labels, self.classes).to(images.dtype))
        with autocast(images.device, self.precision):
            if self.perturb is not None:
                images = self.perturb(model, images, targets)
            with refusing(model, expected=f"a model that takes images {tuple(images.shape)} alone in training mode"):
                outputs = model(images)
            parts = read_outputs(outputs, n=len(images), classes=self.classes, single=self.single)
            if self.see_outputs is not None:
                self.see_outputs(parts)
            logits, weight = parts.logits, auxiliary_weight(len(parts.auxiliary))
            if self.loss is not None:
                losses = self.loss(images, logits.float(), targets)
                for other in parts.auxiliary:
                    losses = losses + weight * self.loss(images, other.float(), targets)
        if self.loss is None:
            cross_entropy = partial(F.cross_entropy, target=targets, label_smoothing=self.label_smoothing)
            losses = cross_entropy(logits.float(), reduction="sum")
            for other in parts.auxiliary:
                losses = losses + weight * cross_entropy(other.float(), reduction="sum")
            if keep_losses is not None:
                with torch.no_grad():
                    keep_losses(cross_entropy(logits.float(), reduction="none"))
        correct = logits.detach().argmax(dim=1) == (targets if targets.ndim == 1 else targets.argmax(dim=1))
        return losses, correct.sum()


def image_losses(
    model: nn.Module,
    batch: Batch,
    *,
    objective: Objective,
    prepare: Prepare,
    layout: torch.memory_format,
    keep_losses: KeepLosses | None = None,
) -> tuple[Tensor, Tensor]:
    """Prepare the bytes of one micro-batch, then the ``objective``: the sum of the losses, and the correct samples."""
    device, dtype = device_of(model), dtype_of(model)
    images = to_unit_range(prepare(batch).to(device), dtype).contiguous(memory_format=layout)
    return objective(model, images, batch.labels.to(device), keep_losses=keep_losses)


@dataclass(frozen=True, eq=False)
class Distillation:
    """Σ over the batch of T²·KL(softmax(t/T) ‖ softmax(z/T)), t the ``teacher``'s logits on the same images.

    The teacher runs in the mode it is in and gets no gradients: put it into evaluation mode first. It is evaluated on
    the images as augmented and mixed.
    Reference: Hinton, Vinyals & Dean, *Distilling the knowledge in a neural network* (2015); on the same images for
    both, Beyer et al., *Knowledge distillation: a good teacher is patient and consistent*, CVPR 2022.
    """

    teacher: nn.Module
    temperature: float = 4.0

    def __call__(self, images: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        """Images (B, C, H, W) and logits (B, K); ``targets`` are not used."""
        with torch.no_grad():
            teacher_logits = read_outputs(self.teacher(images), n=len(images), classes=logits.shape[1]).logits.float()
        t = self.temperature
        log_p, log_q = F.log_softmax(teacher_logits / t, dim=1), F.log_softmax(logits / t, dim=1)
        return F.kl_div(log_q, log_p, reduction="sum", log_target=True) * t * t


MicroBatch = Callable[[nn.Module], tuple[Tensor, Tensor]]
"""Called with the model: the sum of its losses on one micro-batch, and the correct samples (0-dimensional tensors)."""

StepContext = Callable[[nn.Module], AbstractContextManager[object]]
"""What the forward and backward pass of every micro-batch runs inside of: a regulariser, hooks."""

RANDOM_STREAM = 0x5E9


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """A context manager: convolutions and products in ``precision``, a recipe's; ``float32`` is that of the weights."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def accumulate_gradient(
    model: nn.Module,
    micro_batches: Sequence[tuple[int, MicroBatch]],
    batch_size: int,
    *,
    key: Sequence[int],
    step_context: StepContext = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Add ∇ (1/B) Σ losses over this process's ``micro_batches`` to every ``.grad``; B is the global batch size.

    Each micro-batch comes with its number in the global batch. All that is random in it (dropout, mixing, random
    starts) is drawn from torch's global generator seeded by ``key`` and that number, so the gradient depends neither
    on the number of processes nor on what ran before. Returns the sums of losses and of correct samples.
    """
    device = next(model.parameters()).device
    loss_sum, correct_sum = torch.zeros((), device=device), torch.zeros((), dtype=torch.int64, device=device)
    for number, micro_batch in micro_batches:
        torch.manual_seed(generator(*key, RANDOM_STREAM, number).initial_seed())
        with step_context(model):
            losses, correct = micro_batch(model)
            with refusing(model, where="model", expected="a backward pass through it"):
                (losses / batch_size).backward()  # type: ignore[no-untyped-call]
        loss_sum += losses.detach()
        correct_sum += correct
    return loss_sum, correct_sum


def explain_divergence(
    model: nn.Module,
    micro_batches: Sequence[tuple[int, MicroBatch]],
    step: int,
    loss: float,
    gradient_norm: float,
    *,
    checkpoint: str | None,
) -> DivergedError:
    """The error to raise: the step, the layer where it shows first, and where the last good checkpoint is."""
    layer = next(filter(None, (first_bad_layer(model, micro_batch) for _, micro_batch in micro_batches)), None)
    where = f", first in {layer}" if layer else ""
    way_back = f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was kept"
    return DivergedError(
        f"step {step}: the loss is {loss:.4g} and the gradient norm {gradient_norm:.4g}{where}; {way_back}; "
        "a lower learning rate or clipping may help"
    )


def first_bad_layer(model: nn.Module, micro_batch: MicroBatch) -> str | None:
    """The first module, in the order of the forward pass, whose parameters, output or gradient are not finite.

    Parameters come first (they spoil everything after them), then outputs, then gradients from the output backwards.
    """

    def describe(name: str, what: str) -> str:
        return f"layer {name or '(model)'} ({type(model.get_submodule(name)).__name__}, {what})"

    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            return describe(name.rpartition(".")[0], f"parameter {name}")
    bad: list[str] = []
    names = {module: name for name, module in model.named_modules()}

    def record_non_finite(module: nn.Module, _: object, output: object) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        if any(isinstance(part, Tensor) and not bool(part.detach().isfinite().all()) for part in parts):
            bad.append(describe(names[module], "output"))

    leaves = [m for m in names if not list(m.children()) and not isinstance(m, torch.jit.ScriptModule)]  # no hooks
    hooks = [module.register_forward_hook(record_non_finite) for module in leaves]
    with hooked(*hooks):
        micro_batch(model)
    if bad:
        return bad[0]
    for name, parameter in reversed(list(model.named_parameters())):
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all()):
            return describe(name.rpartition(".")[0], f"gradient of {name}")
    return None
