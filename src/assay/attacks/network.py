"""The model under attack: in evaluation mode, its parameters frozen, its every call counted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from assay.attacks.batch import ActiveBatch, ModelOutput, succeeds, success_margin
from assay.attacks.losses import AttackLoss
from assay.attacks.surrogate import fold_batch_norm, make_bf16_surrogate
from assay.attacks.threat import Threat
from assay.errors import ModelError
from assay.models.calls import ModelCall, calling, differentiate, refusing
from assay.records.attack import Precision
from assay.runtime import preserved
from assay.runtime.sharing import once


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

    original: ModelCall  # the user's own model, which verifies every success
    search: ModelCall  # BatchNorm is folded away where possible
    classes: int
    surrogate: ModelCall | None = None  # ``search`` in bfloat16, None for a search in float32
    resolution: float = 0.0  # of margins that the surrogate can tell apart
    # Passes averaged for one gradient: expectation over transformation of a randomised model (EOT, Athalye et al. 2018)
    eot_samples: int = 1
    counts: QueryCounts = field(default_factory=QueryCounts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know about how the model was called."""
        return self.original.notes or self.search.notes

    def verify(self, images: Tensor) -> Tensor:
        """Logits of the original model, (B, K) float32."""
        self.counts.forwards += len(images)
        with torch.no_grad():
            return _logits(self.original, images)

    @property
    def precision(self) -> Literal["float32", "bfloat16"]:
        """Of the search."""
        return "float32" if self.surrogate is None else "bfloat16"

    def evaluate(self, batch: ActiveBatch, loss: AttackLoss, threat: Threat, *, exact: bool = True) -> ModelOutput:
        """Logits of every iterate, and the gradient of the loss where a row wants it.

        Unless ``exact``, the copy in bfloat16 is used if there is one; a margin below its resolution counts as broken,
        and the original model decides.
        """
        surrogate = None if exact else self.surrogate
        network = self.search if surrogate is None else surrogate
        gradient = torch.zeros_like(batch.iterate)
        wanted = batch.wants_gradient
        if bool(wanted.all()):
            logits, losses, gradient = self._gradients(network, batch, loss)
        elif not bool(wanted.any()):
            logits, losses = self._losses(network, batch, loss)
        else:
            some_logits, some_losses, gradient[wanted] = self._gradients(network, batch.take(wanted), loss)
            logits, losses = some_logits.new_empty((len(batch), self.classes)), some_losses.new_empty(len(batch))
            logits[wanted], losses[wanted] = some_logits, some_losses
            logits[~wanted], losses[~wanted] = self._losses(network, batch.take(~wanted), loss)
        broken = succeeds(logits, batch)
        if surrogate is not None:
            broken |= success_margin(logits, batch) > -self.resolution
        if bool(broken.any()):
            rows = broken.nonzero()[:, 0]
            broken[rows] = threat.contains(batch.iterate[rows], batch.images[rows], batch.epsilon[rows])
        return ModelOutput(logits=logits, losses=losses, gradient=gradient, broken=broken)

    def _losses(self, network: ModelCall, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor]:
        self.counts.forwards += len(batch)
        with torch.no_grad():
            logits = _logits(network, batch.iterate)
            return logits, loss(logits, batch.labels, batch.loss_class)

    def _gradients(self, network: ModelCall, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor, Tensor]:
        self.counts.forwards += self.eot_samples * len(batch)
        self.counts.backwards += self.eot_samples * len(batch)
        self.counts.gradients += len(batch)
        one_pass = partial(self._pass, network, batch, loss)
        passes = [differentiate(network.model, one_pass) for _ in range(self.eot_samples)]
        logits, losses, gradient = passes[0]
        if self.eot_samples > 1:
            logits, losses, gradient = (torch.stack(parts).mean(dim=0) for parts in zip(*passes, strict=True))
        finite = gradient.flatten(1).isfinite().all(dim=1)
        if not bool(finite.all()):
            self.counts.non_finite_gradients += int((~finite).sum())
            gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        self.counts.zero_gradients += int((gradient.flatten(1).abs().amax(dim=1) == 0).sum())
        return logits, losses, gradient

    def _pass(self, network: ModelCall, batch: ActiveBatch, loss: AttackLoss) -> tuple[Tensor, Tensor, Tensor]:
        """One forward and one backward pass; the gradient is zero where the output is detached from the input."""
        iterate = batch.iterate.detach().requires_grad_()
        with torch.enable_grad():
            logits = _logits(network, iterate)
            losses = loss(logits, batch.labels, batch.loss_class)
        gradient = _gradient_of(losses, iterate, network)
        if gradient is None:
            self.counts.differentiable = False
            gradient = torch.zeros_like(iterate)
        return logits.detach(), losses.detach(), gradient

    def gradient(self, images: Tensor, labels: Tensor, loss: AttackLoss) -> Tensor | None:
        """Of the original model's loss at the images; None where it does not depend on them through the graph."""

        def run() -> Tensor | None:
            x = images.detach().requires_grad_()
            with torch.enable_grad():
                losses = loss(_logits(self.original, x), labels, labels)
            return _gradient_of(losses, x, self.original)

        return differentiate(self.original.model, run)


def _gradient_of(losses: Tensor, images: Tensor, network: ModelCall) -> Tensor | None:
    if not losses.requires_grad:
        return None
    with refusing(network.model, expected="a model that can be differentiated", where="backward pass"):
        return torch.autograd.grad(losses.sum(), images, allow_unused=True)[0]


def _logits(network: ModelCall, images: Tensor) -> Tensor:
    """(B, K) float32 on the device of the images."""
    return network(images).to(images.device, torch.float32)


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
        searched = model if source is None else source
        for module in dict.fromkeys((model, searched)):
            stack.enter_context(preserved(module, training=False))
            for parameter in module.parameters():
                if not is_lazy(parameter):
                    parameter.requires_grad_(False)
        original = stack.enter_context(calling(model, example))
        classes = original.classes or 0
        if classes < 2:
            raise ModelError("model output", expected="logits of two classes or more", got=f"(N, {classes})")
        search = original if source is None else stack.enter_context(calling(source, example))
        if search.classes != classes:
            got = f"(N, {search.classes})"
            raise ModelError("source", expected=f"logits (N, {classes}) as the model has", got=got)
        example = example.to(search.device, search.dtype).contiguous(memory_format=search.layout)
        folded = searched
        if fold:
            key = ("folded", searched, example.shape[1:], example.dtype)
            folded, called = once(key, partial(_fold, searched, search, example))
            search = search if folded is searched else copy.copy(called)
        surrogate = make_bf16_surrogate(folded, example, precision=precision, classes=classes, single=search.single)
        in_bfloat16 = None
        if surrogate is not None:
            fast = replace(surrogate, model=_compile(surrogate.model)) if compiled else surrogate
            in_bfloat16 = replace(search, model=fast)
        if compiled:
            search = replace(search, model=_compile(folded))
        resolution = 0.0 if surrogate is None else surrogate.resolution
        yield Network(original, search, classes, in_bfloat16, resolution, eot_samples=eot_samples)


def _fold(model: nn.Module, search: ModelCall, example: Tensor) -> tuple[nn.Module, ModelCall]:
    """A copy of ``model`` with BatchNorm folded away, and how it is called; both as they are where that cannot be."""
    folded, layers = fold_batch_norm(model, example, observed=max(2, search.smallest))
    if layers == 0:
        return model, search
    called = replace(search, model=folded.to(memory_format=search.layout), state=None)
    if called.need is not None:  # less than before
        called.measure_need(folded, example)
    return folded, called


def _compile(model: nn.Module) -> nn.Module:
    return cast(nn.Module, torch.compile(model))
