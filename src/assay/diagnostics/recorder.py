"""Gradients over depth in any training loop: hooks that never synchronise with the device, gone between samples."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from assay.arguments import checked
from assay.errors import ModelError, OptionError
from assay.models.probes import first_tensor
from assay.records.gradients import DepthTrace, LayerTrace

_RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardswish)
_SQUASHERS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Tanh: lambda y: y.abs() > 0.99,
    nn.Sigmoid: lambda y: (y - 0.5).abs() > 0.49,
}

_ACTIVATIONS: tuple[type[nn.Module], ...] = (*_RECTIFIERS, *_SQUASHERS)


@dataclass(eq=False)
class _GradientSample:
    """The measurements of one sampled step: 0-dimensional tensors on the device, by quantity and layer."""

    step: int
    squares: dict[str, Tensor] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    dead: dict[str, Tensor] = field(default_factory=dict)
    saturated: dict[str, Tensor] = field(default_factory=dict)
    updates: dict[str, Tensor] = field(default_factory=dict)


class GradientRecorder:
    """Samples some steps and summarises them in a :class:`DepthTrace`; see :func:`record_gradients`."""

    def __init__(self, model: nn.Module, *, every: int, label: str) -> None:
        if every < 1:
            raise OptionError("every", expected="at least 1", got=every)
        self._model, self._every, self._label = model, every, label
        owners = {name: m for name, m in model.named_modules() if any(True for _ in m.parameters(recurse=False))}
        self._layers = {name: m for name, m in owners.items() if not isinstance(m, torch.jit.ScriptModule)}
        if not self._layers:
            got = "a TorchScript program, whose layers cannot be followed in training" if owners else "none"
            raise ModelError("model", expected="layers with parameters", got=got)
        self._order: dict[str, None] = {}  # layers by their first calls
        self._samples: list[_GradientSample] = []
        self._handles: list[RemovableHandle] = []
        self._before: dict[str, list[Tensor]] = {}
        self._times: dict[bool, list[float]] = {True: [], False: []}
        self._steps = 0
        self._last: str | None = None
        self._started = time.perf_counter()
        self._arm()

    @property
    def sampling(self) -> bool:
        """Whether the coming or running step is a sampled one."""
        return bool(self._handles)

    def step(self) -> None:
        """Count a step; call after ``optimizer.step()``. Costs nothing unless a sample begins or ends there."""
        self._steps += 1
        sampled = self.sampling
        if sampled:
            self._measure_updates(self._samples[-1])
            self._disarm()
        now = time.perf_counter()
        self._times[sampled].append(now - self._started)
        self._started = now
        if self._steps % self._every == 0:
            self._arm()  # paid for by the step that comes, which is the sampled one

    def summarize(self) -> DepthTrace:
        """The record of everything sampled so far; the only read from the device.

        Raises :class:`ModelError` when no step ended, or none had a gradient: a loop without ``backward()``.
        """
        samples = [sample for sample in self._samples if sample.step <= self._steps]
        if not samples:
            expected = "recorder.step() at the end of every step, or record_gradients(model, optimizer=…)"
            raise ModelError("record_gradients", expected=expected, got="no finished step")
        if not any(sample.gradients or sample.weights for sample in samples):
            got = f"{self._steps} steps without a gradient"
            raise ModelError("record_gradients", expected="a loop that calls loss.backward()", got=got)
        layers = tuple(self._layer(name, depth, samples) for depth, name in enumerate(self._order))
        numbers = [(i, layer.name, v) for i in range(len(samples)) for layer in layers for v in _numbers(layer, i)]
        bad = [f"{name} at step {samples[i].step}" for i, name, v in numbers if not math.isfinite(v)]
        on, off = self._times[True][1:], self._times[False]  # the first step of all also warms up
        overhead = median(on) / median(off) - 1 if len(on) >= 3 and len(off) >= 3 else None
        return DepthTrace(
            label=self._label,
            total=self._steps,
            steps=tuple(sample.step for sample in samples),
            layers=layers,
            non_finite=len(bad),
            first_non_finite=bad[0] if bad else None,
            overhead=overhead,
            average_overhead=None if overhead is None else overhead / self._every,
        )

    def _arm(self) -> None:
        """Put the hooks in for the step that comes, and keep the weights as they are before it."""
        sample = _GradientSample(self._steps + 1)
        self._samples.append(sample)
        self._last = None
        with torch.no_grad():
            self._before = {
                name: [p.detach().clone() for p in own]
                for name, module in self._layers.items()
                if (own := [p for p in module.parameters(recurse=False) if p.requires_grad and p.is_floating_point()])
            }
        for name, module in self._model.named_modules():
            if name in self._layers:
                self._handles.append(module.register_forward_hook(self._after_layer(name, sample)))
            elif isinstance(module, _ACTIVATIONS) and not isinstance(module, torch.jit.ScriptModule):
                self._handles.append(module.register_forward_hook(self._after_activation(sample)))
        for name, module in self._layers.items():
            for key, parameter in module.named_parameters(recurse=False):
                if parameter.requires_grad and parameter.is_leaf:
                    hook = self._after_gradient(f"{name}\0{key}", sample)
                    self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def _disarm(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _after_layer(self, name: str, sample: _GradientSample) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            out = first_tensor(output)
            if out is None or not torch.is_grad_enabled():  # a passing look at the model is no step of its training
                return
            self._order.setdefault(name)
            self._last = name
            _add(sample.squares, name, _norm(out.detach()).square())
            sample.sizes[name] = sample.sizes.get(name, 0) + out.numel()
            if out.requires_grad:
                out.register_hook(lambda g: _add(sample.gradients, name, _norm(g).square()))  # type: ignore[no-untyped-call]

        return hook

    def _after_activation(self, sample: _GradientSample) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: object) -> None:
            name, self._last = self._last, None
            if name is None or not isinstance(output, Tensor) or output.ndim < 2:
                return
            y = output.detach()
            squash = _SQUASHERS.get(type(module))
            if squash is not None:
                sample.saturated[name] = squash(y).float().mean()
            else:
                axis = 1 if y.ndim != 3 else 2
                sample.dead[name] = (y.amax(dim=[d for d in range(y.ndim) if d != axis]) <= 0).float().mean()

        return hook

    @staticmethod
    def _after_gradient(key: str, sample: _GradientSample) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if parameter.grad is not None:  # accumulated so far: the last call of a step sees the whole
                sample.weights[key] = _norm(parameter.grad).square()

        return hook

    @torch.no_grad()
    def _measure_updates(self, sample: _GradientSample) -> None:
        for name, before in self._before.items():
            own = [p for p in self._layers[name].parameters(recurse=False) if p.requires_grad and p.is_floating_point()]
            if len(own) != len(before):
                continue
            size = torch.stack(torch._foreach_norm(before)).norm()
            torch._foreach_sub_(before, [p.detach() for p in own])
            sample.updates[name] = torch.stack(torch._foreach_norm(before)).norm() / size
        self._before = {}

    def _layer(self, name: str, depth: int, samples: list[_GradientSample]) -> LayerTrace:
        def read(values: list[Tensor | None]) -> tuple[float, ...]:
            given = [v for v in values if v is not None]
            numbers = iter(torch.stack([v.float() for v in given]).tolist() if given else [])
            return tuple(next(numbers) if v is not None else 0.0 for v in values)

        def read_any(values: list[Tensor | None]) -> tuple[float, ...]:
            return () if all(v is None for v in values) else read(values)

        mean = [s.squares[name] / max(1, s.sizes[name]) if name in s.squares else None for s in samples]
        shares = [[v for key, v in s.weights.items() if key.startswith(f"{name}\0")] for s in samples]
        followed_dead = any(name in s.dead for s in samples)
        followed_squash = any(name in s.saturated for s in samples)
        return LayerTrace(
            name=name or "(model)",
            type=type(self._layers[name]).__name__,
            depth=depth,
            activation=tuple(_root(v) for v in read(mean)),
            gradient=tuple(_root(v) for v in read([s.gradients.get(name) for s in samples])),
            weight_gradient=tuple(_root(v) for v in read([torch.stack(v).sum() if v else None for v in shares])),
            update=read([s.updates.get(name) for s in samples]),
            dead=read([s.dead.get(name) for s in samples]) if followed_dead else (),
            saturated=read([s.saturated.get(name) for s in samples]) if followed_squash else (),
        )


@checked
@contextmanager
def record_gradients(
    model: nn.Module, *, optimizer: Optimizer | None = None, every: int = 10, label: str = "model"
) -> Iterator[GradientRecorder]:
    """Sample activations, gradients and updates of every layer while the block trains the model.

    The first step and every ``every``-th after it are sampled: forward hooks, gradient hooks and a copy of the weights
    exist for that step only, and every number stays on the device until :meth:`GradientRecorder.summarize`. Training
    itself is bit-identical with and without it, and no hook is left in the model afterwards.

    Args:
        model: any module with parameters; nothing is assumed of its inputs or of the loss.
        optimizer: its steps are counted; None: call ``recorder.step()`` at the end of each step.
        every: steps from one sample to the next, at least 1.
        label: the name in the record.

    Raises:
        ModelError: the model has no parameters.
        OptionError: ``every`` is below 1.

    Example:
        >>> import torch
        >>> from assay.diagnostics import record_gradients
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with record_gradients(model, optimizer=optimizer, every=2) as recorder:
        ...     for _ in range(5):
        ...         optimizer.zero_grad()
        ...         model(torch.rand(16, 4)).square().mean().backward()
        ...         optimizer.step()
        >>> recorder.summarize().steps
        (1, 3, 5)
    """
    recorder = GradientRecorder(model, every=every, label=label)
    counter = None if optimizer is None else optimizer.register_step_post_hook(lambda *_: recorder.step())
    try:
        yield recorder
    finally:
        recorder._disarm()
        if counter is not None:
            counter.remove()


def _add(totals: dict[str, Tensor], name: str, term: Tensor) -> None:
    totals[name] = totals[name] + term if name in totals else term


def _norm(values: Tensor) -> Tensor:
    """In float32 at least: squares of half floats overflow."""
    norm: Tensor = torch.linalg.vector_norm(values, dtype=torch.promote_types(values.dtype, torch.float32))
    return norm


def _root(value: float) -> float:
    return math.sqrt(value) if value >= 0 else value  # NaN stays NaN


def _numbers(layer: LayerTrace, s: int) -> tuple[float, ...]:
    return layer.activation[s], layer.gradient[s], layer.weight_gradient[s], layer.update[s]
