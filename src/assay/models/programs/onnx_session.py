"""An ONNX file in its own runtime: the oracle of a conversion, and the model where there is none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from assay.errors import DependencyError, ModelError, one_line

DTYPES = {
    "tensor(float)": torch.float32,
    "tensor(float16)": torch.float16,
    "tensor(double)": torch.float64,
    "tensor(uint8)": torch.uint8,
    "tensor(int32)": torch.int32,
}


class Port(NamedTuple):
    """An input or output of a program: its name, sizes (None: any) and dtype (None: none that images have)."""

    name: str
    sizes: tuple[int | None, ...]
    dtype: torch.dtype | None


class Session(NamedTuple):
    """``run`` on one array gives all outputs; ``metadata`` are the texts of the file."""

    run: Callable[[Any], Sequence[Any]]
    image: Port
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def open_session(path: Path) -> Session:
    """The program in onnxruntime, on the CPU. Raises :class:`ModelError`, :class:`DependencyError`."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise DependencyError("onnxruntime", extra="onnx", purpose=str(path)) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads wait asleep: spinning between calls they would slow a torch network that is timed in turn with them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        got = one_line(str(error).removeprefix("[ONNXRuntimeError] : "))
        raise ModelError(str(path), expected="an ONNX file that onnxruntime can run", got=got) from None
    ports = [_port(each) for each in session.get_inputs()]
    if len(ports) != 1:
        got = f"{len(ports)}: {', '.join(port.name for port in ports)}" if ports else "none"
        raise ModelError(str(path), expected="a program of one input, the images", got=got)
    name = ports[0].name
    outputs = tuple(each.name for each in session.get_outputs())
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return Session(lambda array: session.run(None, {name: array}), ports[0], outputs, metadata)


def _port(value: Any) -> Port:
    sizes = tuple(size if isinstance(size, int) and size > 0 else None for size in value.shape)
    return Port(value.name, sizes, DTYPES.get(value.type))


class ForwardOnly(nn.Module):
    """A session as a module: whatever asks it for a gradient gets a :class:`ModelError` with the reason ``why``."""

    def __init__(self, session: Session, *, where: str, why: str = "") -> None:
        super().__init__()
        self.run = session.run
        self.dtype = session.image.dtype
        self.where = where
        self.why = why

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        results: tuple[Tensor, ...] = _WithoutBackward.apply(images, self)
        return results

    def refusal(self) -> ModelError:
        reason = f": {self.why}" if self.why else ""
        got = f"a program that runs forward only, in onnxruntime{reason}"
        return ModelError(self.where, expected="a model with gradients", got=got)


class _WithoutBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, module: ForwardOnly) -> tuple[Tensor, ...]:
        ctx.module = module
        arrays = module.run(images.detach().to("cpu", module.dtype).contiguous().numpy())
        return tuple(torch.as_tensor(each, device=images.device) for each in arrays if hasattr(each, "dtype"))

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise ctx.module.refusal()


def check_gradients(model: nn.Module) -> None:
    """Raise :class:`ModelError` for a model of which a part runs forward only, before a gradient is asked of it."""
    for module in model.modules():
        if isinstance(module, ForwardOnly):
            raise module.refusal()
