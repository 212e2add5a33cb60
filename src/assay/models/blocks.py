"""Residual blocks, found by what is added to what.

A block is an addition of two values that both come from one earlier value, the fork: one branch from the fork goes
through weight layers (the body), the other (the skip) through none or through one. What does not fit is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from os.path import commonprefix
from typing import Literal

from torch import nn

from assay.models.forward_pass import ForwardPass, Operation
from assay.records.anatomy import BlockAnatomy

Shape = Literal["basic", "bottleneck", "inverted", "other"]
Skip = Literal["identity", "pad", "projection", "none"]
Placement = Literal["post-activation", "pre-activation", "pre-norm", "post-norm", "none", "unknown"]


@dataclass(frozen=True)
class _Candidate:
    block: BlockAnatomy
    body: tuple[Operation, ...]


def find_blocks(run: ForwardPass, model: nn.Module, *, image_shape: tuple[int, ...]) -> tuple[BlockAnatomy, ...]:
    """The residual blocks of a forward pass, and blocks of the same kinds without a skip, in forward order."""
    graph = _Graph(run.operations, image_shape)
    residual, in_residuals = [], set()
    for operation in run.operations:
        if operation.kind == "sum" and len(operation.inputs) == 2:
            fork, branches = graph.branches(operation)
            in_residuals |= {step.index for branch in branches for step in branch}
            block = _residual_block(graph, operation, fork, branches)
            residual += [block] if block else []
    candidates = (*_name_distinctly(residual), *_plain_blocks(graph, run, model, in_residuals))
    return tuple(each.block for each in sorted(candidates, key=lambda each: each.body[0].index))


class _Graph:
    """The operations and, for each, the set of all it depends on, itself included, as the bits of a number."""

    def __init__(self, operations: Sequence[Operation], image_shape: tuple[int, ...]) -> None:
        self.operations = operations
        self.image_shape = image_shape
        self.readers: dict[int, list[Operation]] = {}
        self.sources = [1]  # bit 0 stands for the images, bit i + 1 for operation i
        for operation in operations:
            bits = 1 << (operation.index + 1)
            for source in operation.inputs:
                bits |= self.sources[source + 1]
                self.readers.setdefault(source, []).append(operation)
            self.sources.append(bits)

    def branches(self, addition: Operation) -> tuple[int, tuple[list[Operation], list[Operation]]]:
        """The fork (the last value that both operands come from), and the operations from it to each of them."""
        first, second = (self.sources[source + 1] for source in addition.inputs)
        fork = (first & second).bit_length() - 2
        before = self.sources[fork + 1]
        return fork, (self._operations_of(first & ~before), self._operations_of(second & ~before))

    def _operations_of(self, bits: int) -> list[Operation]:
        digits = reversed(f"{bits >> 1:b}")
        return [operation for operation, bit in zip(self.operations, digits, strict=False) if bit == "1"]

    def shape_of(self, index: int) -> tuple[int, ...]:
        return self.image_shape if index < 0 else self.operations[index].shape

    def reader(self, index: int) -> Operation | None:
        """The first operation that reads a value, not counting views and copies."""
        for operation in self.readers.get(index, []):
            if reader := operation if operation.kind != "move" else self.reader(operation.index):
                return reader
        return None


def _weights(branch: Sequence[Operation]) -> list[Operation]:
    """Its weight layers; those on a pooled side branch (squeeze and excitation) count only where all are such."""
    layers = [operation for operation in branch if operation.kind == "weight"]
    return [layer for layer in layers if layer.positions > 1] or layers


def _is_chain(branch: Sequence[Operation], layers: Sequence[Operation]) -> bool:
    """Whether the layers are in series rather than in parallel."""
    counted = {layer.index for layer in layers}
    longest: dict[int, int] = {}
    for operation in branch:
        before = max((longest.get(source, 0) for source in operation.inputs), default=0)
        longest[operation.index] = before + (operation.index in counted)
    return max(longest.values(), default=0) == len(layers)


def _shape(branch: Sequence[Operation]) -> Shape:
    layers = _weights(branch)
    spatial = ["wide" if max(layer.kernel, default=0) > 1 else "point" for layer in layers if layer.kernel]
    if len(spatial) != len(layers) or not _is_chain(branch, layers):
        return "other"
    if spatial == ["wide", "wide"]:
        return "basic"
    if spatial == ["point", "wide", "point"]:
        return "bottleneck" if layers[1].channels <= layers[2].channels else "inverted"
    return "other"


def _skip(graph: _Graph, branch: Sequence[Operation], fork: int, addition: Operation) -> Skip | None:
    kinds = Counter(operation.kind for operation in branch)
    if kinds["weight"] == 1 and not kinds.keys() & {"sum", "product", "resample"}:
        return "projection"
    if kinds.keys() <= {"move", "pad", "reduce"} and kinds["pad"]:
        return "pad"
    if kinds.keys() <= {"move"} and graph.shape_of(fork) == addition.shape:
        return "identity"
    return None


def _residual_block(
    graph: _Graph, addition: Operation, fork: int, branches: tuple[list[Operation], list[Operation]]
) -> _Candidate | None:
    skip_branch, body = sorted(branches, key=lambda branch: len(_weights(branch)))
    skip = _skip(graph, skip_branch, fork, addition)
    if skip is None or len(_weights(body)) <= len(_weights(skip_branch)):
        return None
    module = _common_module([*skip_branch, *body, addition])
    lead: list[Operation] = []
    while fork >= 0 and module and _within((before_fork := graph.operations[fork]).module, module):
        if before_fork.kind not in {"norm", "activation", "move"}:
            break
        lead += [before_fork] if before_fork.kind != "move" else []
        fork = before_fork.inputs[0]
    before = graph.shape_of(fork)
    downsamples = len(before) == len(addition.shape) > 2 and _area(addition.shape) < _area(before)
    reader = graph.reader(addition.index)
    if reader is not None and reader.kind == "norm" and not _within(reader.module, module):
        reader = None  # the next block's own
    placement = _placement(lead, body, reader)
    block = BlockAnatomy(name=module, shape=_shape(body), skip=skip, downsamples=downsamples, norm_placement=placement)
    return _Candidate(block, tuple(body))


def _area(shape: tuple[int, ...]) -> int:
    return prod(shape[2:])


def _placement(lead: Sequence[Operation], body: Sequence[Operation], reader: Operation | None) -> Placement:
    """Where normalisation stands: ``lead`` comes before the skip branches off, ``reader`` after the addition."""
    first_weight = next(operation.index for operation in body if operation.kind == "weight")
    early = {operation.kind for operation in (*lead, *body) if operation.index < first_weight}
    if not any(operation.kind == "norm" for operation in (*lead, *body)):
        return "post-norm" if reader is not None and reader.kind == "norm" else "none"
    if "norm" in early:
        return "pre-activation" if "activation" in early else "pre-norm"
    after = None if reader is None or "activation" in early else reader.kind
    return "post-activation" if after == "activation" else "post-norm" if after == "norm" else "unknown"


def _plain_blocks(graph: _Graph, run: ForwardPass, model: nn.Module, in_residuals: set[int]) -> list[_Candidate]:
    """Modules that are only a residual body: two or three convolutions in series, of a class used repeatedly."""
    candidates: list[tuple[str, _Candidate]] = []
    for name, module in model.named_modules():
        if not name or run.calls.get(name) != 1 or isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        body = [operation for operation in graph.operations if _within(operation.module, name)]
        if not body or any(operation.index in in_residuals for operation in body):
            continue
        shape = _shape(body)
        if shape == "other" or {operation.kind for operation in body} - {"weight", "norm", "activation", "move"}:
            continue
        before, after = graph.shape_of(body[0].inputs[0]), body[-1].shape
        placement = _placement([], body, body[-1] if body[-1].kind == "activation" else None)
        block = BlockAnatomy(
            name=name, shape=shape, skip="none", downsamples=_area(after) < _area(before), norm_placement=placement
        )
        candidates.append((type(module).__qualname__, _Candidate(block, tuple(body))))
    counts = Counter(kind for kind, _ in candidates)
    chosen: list[_Candidate] = []
    for kind, candidate in candidates:  # outer modules first, of which the inner ones are a part
        inner = any(_within(candidate.block.name, outer.block.name) for outer in chosen)
        chosen += [candidate] if counts[kind] > 1 and not inner else []
    return chosen


def _name_distinctly(blocks: list[_Candidate]) -> list[_Candidate]:
    """Where one module holds several blocks (attention and MLP), name each after the part that holds its weights."""
    counts = Counter(each.block.name for each in blocks)

    def rename(each: _Candidate) -> _Candidate:
        weights = _weights(each.body)
        own = _common_module(weights)
        name = own if own != each.block.name else f"{weights[0].module} … {weights[-1].module}"
        return replace(each, block=each.block.model_copy(update={"name": name}))

    return [rename(each) if counts[each.block.name] > 1 else each for each in blocks]


def _common_module(operations: Sequence[Operation]) -> str:
    """The innermost module that all of them ran in; "" is the model itself."""
    paths = [operation.module.split(".") if operation.module else [] for operation in operations]
    return ".".join(commonprefix(paths))  # noqa: RUF071 - of lists, name by name


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")
