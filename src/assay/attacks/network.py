"""The model under attack: in evaluation mode, its parameters frozen, its every call counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from assay.attacks.batch import ActiveBatch, ModelOutput, succeeds, success_margin
from assay.attacks.losses import AttackLoss
from assay.attacks.surrogate import Bf16Surrogate, fold_batch_norm, make_bf16_surrogate
from assay.attacks.threat import Threat
from assay.errors import ModelError
from assay.evaluate import call, check_logits, layout_for
from assay.records.attack import Precision
from assay.runtime import dtype_of, preserved

Forward = Callable[[Tensor], Tensor]  # images (B, C, H, W) to logits (B, K)
PADDED = 8  # images in a batch for a model that cannot take fewer


@dataclass(eq=False)
class QueryCounts:
    """What an attack cost and the faults it met, in samples."""

    forwards: int = 0  # images through the network
    backwards: int = 0  # images of which a gradient was taken (about the cost of one forward pass each)
    gradients: int = 0  # rows that wanted a gradient
    zero_gradients: int = 0  # rows whose gradient was zero
    non_finite_gradients: int = 0  # rows whose gradient was not finite
    outside_ball: int = 0  # successes outside the ball or the bounds, which do not count
    unconfirmed: int = 0  # successes that the original model did not confirm, which do not count
    differentiable: bool = True  # False when the logits do not depend on the input through the graph


@dataclass(eq=False)
class Network:
    """The model in the two or three forms that an attack evaluates."""

    original: nn.Module  # the user's own, which verifies every success
    folded: nn.Module  # for the search: BatchNorm is folded away where possible
    classes: int
    layout: torch.memory_format = torch.contiguous_format
    bf16_surrogate: Bf16Surrogate | None = None  # ``folded`` in bfloat16, None for a search in float32
    # Passes averaged for one gradient: expectation over transformation of a randomised model (EOT, Athalye et al. 2018)
    eot_samples: int = 1
    smallest: int = 1  # batch below which rows are repeated; larger once a model turns out to need it
    counts: QueryCounts = field(default_factory=QueryCounts)

    @property
    def note(self) -> str | None:
        """What a reader should know about how the model was called."""
        return None if self.smallest == 1 else f"the model fails on small batches: rows were repeated up to {PADDED}"

    def verify(self, images: Tensor) -> Tensor:
        """Logits of the original model, (B, K) float32."""
        self.counts.forwards += len(images)
        with torch.no_grad():
            return self._forward(self.original, images)

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Of the search."""
        return "float32" if self.bf16_surrogate is None else "bfloat16"

    def evaluate(self, batch: ActiveBatch, loss: AttackLoss, threat: Threat, *, exact: bool = True) -> ModelOutput:
        """Logits of every iterate, and the gradient of the loss where a row wants it.

        Unless ``exact``, the copy in bfloat16 is used if there is one; a margin below its resolution counts as broken,
        and the original model decides.
        """
        surrogate = None if exact else self.bf16_surrogate
        forward_fn = self.folded if surrogate is None else surrogate
        gradient = torch.zeros_like(batch.iterate)
        wanted = batch.wants_gradient
        if bool(wanted.all()):
            logits, losses, gradient = self._gradients(forward_fn, batch, loss)
        elif not bool(wanted.any()):
            logits, losses = self._losses(forward_fn, batch, loss)
        else:
            logits = batch.iterate.new_empty((len(batch), self.classes))
            losses = batch.iterate.new_empty(len(batch))
            with_gradient = self._gradients(forward_fn, batch.take(wanted), loss)
            logits[wanted], losses[wanted], gradient[wanted] = with_gradient
            logits[~wanted], losses[~wanted] = self._losses(forward_fn, batch.take(~wanted), loss)
        broken = succeeds(logits, batch)
        if surrogate is not None:
            broken |= success_margin(logits, batch) > -surrogate.resolution
        if bool(broken.any()):
            rows = broken.nonzero()[:, 0]
            broken[rows] = threat.contains(batch.iterate[rows], batch.images[rows], batch.epsilon[rows])
        return ModelOutput(logits=logits, losses=losses, gradient=gradient, broken=broken)

    def _losses(self, forward_fn: Forward, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor]:
        self.counts.forwards += len(batch)
        with torch.no_grad():
            logits = self._forward(forward_fn, batch.iterate)
            return logits, loss(logits, batch.labels, batch.loss_class)

    def _gradients(self, forward_fn: Forward, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor, Tensor]:
        self.counts.forwards += self.eot_samples * len(batch)
        self.counts.backwards += self.eot_samples * len(batch)
        self.counts.gradients += len(batch)
        passes = [self._pass(forward_fn, batch, loss) for _ in range(self.eot_samples)]
        logits, losses, gradient = passes[0]
        if self.eot_samples > 1:
            logits, losses, gradient = (torch.stack(parts).mean(dim=0) for parts in zip(*passes, strict=True))
        finite = gradient.flatten(1).isfinite().all(dim=1)
        if not bool(finite.all()):
            self.counts.non_finite_gradients += int((~finite).sum())
            gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        self.counts.zero_gradients += int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
        return logits, losses, gradient

    def _pass(self, forward_fn: Forward, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and one backward pass; the gradient is zero where the output is detached from the input."""
        iterate = batch.iterate.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._forward(forward_fn, iterate)
            losses = loss(logits, batch.labels, batch.loss_class)
        gradient = None
        if losses.requires_grad:
            (gradient,) = torch.autograd.grad(losses.sum(), iterate, allow_unused=True)
        if gradient is None:
            self.counts.differentiable = False
            gradient = torch.zeros_like(iterate)
        return logits.detach(), losses.detach(), gradient

    def _forward(self, network: Forward, images: Tensor) -> Tensor:
        """Logits (B, K) float32; a model that fails on a small batch is given a larger one of repeated rows."""
        n = len(images)
        batch = images if n >= self.smallest else images[torch.arange(self.smallest, device=images.device) % n]
        if isinstance(network, nn.Module):  # one of half floats takes no others
            batch = batch.to(dtype_of(network))
        try:
            logits = call(network, batch.contiguous(memory_format=self.layout))
            check_logits(logits, n=len(batch), classes=self.classes)
        except ModelError:
            if len(batch) >= PADDED:
                raise
            self.smallest = PADDED
            return self._forward(network, images)
        return logits[:n].float()


@contextmanager
def open_network(
    model: nn.Module,
    example: Tensor,
    *,
    source: nn.Module | None = None,
    fold: bool = True,
    compiled: bool = False,
    eot_samples: int = 1,
    precision: Precision | str = "float32",
) -> Iterator[Network]:
    """A :class:`Network` around ``model`` for the length of a block; the model is left as it was found.

    ``example`` is a few images, on which the output is checked, and the folded copy (``fold``) against the original.
    ``source`` is searched in the place of ``model``, which still verifies: a transfer attack. ``compiled`` passes the
    copy through ``torch.compile``, which pays for long attacks only. ``precision`` is what
    :func:`assay.attacks.surrogate.make_bf16_surrogate` takes. Raises :class:`ModelError` when the model cannot take the
    images or does not return one row of logits a sample.
    """
    with ExitStack() as stack:
        for module in (model, source):
            if module is not None:
                stack.enter_context(preserved(module, training=False))
                for parameter in module.parameters():
                    parameter.requires_grad_(False)
        width = _width(model, example[:PADDED])
        forward_fn = model if source is None else source
        if _width(forward_fn, example[:PADDED]) != width:
            raise ModelError("source", expected=f"logits (N, {width}) as the model has", got="another width")
        with torch.no_grad():
            layouts = {layout_for(network, example[:PADDED]) for network in (forward_fn, model)}
        layout = layouts.pop() if len(layouts) == 1 else torch.contiguous_format
        example = example.contiguous(memory_format=layout)
        folded, layers = fold_batch_norm(forward_fn, example) if fold else (forward_fn, 0)
        if layout == torch.channels_last and layers:
            folded = folded.to(memory_format=torch.channels_last)
        surrogate = make_bf16_surrogate(folded, example, precision=precision, classes=width)
        if compiled:
            folded = cast(nn.Module, torch.compile(folded))
            surrogate = surrogate and replace(surrogate, model=cast(nn.Module, torch.compile(surrogate.model)))
        yield Network(model, folded, width, layout, bf16_surrogate=surrogate, eot_samples=eot_samples)


def _width(model: nn.Module, example: Tensor) -> int:
    """The number of classes, from the logits of a few images."""
    with torch.no_grad():
        logits = call(model, example)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        got = str(tuple(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError("model output", expected="one tensor of logits (N, K)", got=got)
    check_logits(logits, n=len(example), classes=logits.shape[1])
    if logits.shape[1] < 2:
        raise ModelError("model output", expected="logits of two classes or more", got=tuple(logits.shape))
    return int(logits.shape[1])
