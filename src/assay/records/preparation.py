"""How the author of a model turns a picture into its input: size, crop, interpolation, and the scale of the numbers."""

from __future__ import annotations

import math
import re
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from assay.errors import OptionError
from assay.records.base import Frozen

Side = Annotated[int, Field(ge=1, le=100_000)]
Pair = tuple[Side, Side]  # (height, width)
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
Fit = Literal["short", "squash", "border", "cover"]
Rounding = Literal["torchvision", "transformers", "assay"]
GRAMMAR = "resize=256:bicubic (or squash=HxW, border=HxW, cover=HxW), crop=224, mean=…, std=…, bgr, scale=255"
_NUMBER = r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?"


class Preparation(Frozen):
    """How a picture becomes the input of a model.

    First ``resize``: an int is the new length of the short side; a pair (H, W) is a size to which the picture is fitted
    as ``fit`` says: ``squash`` (exactly, whatever its shape), ``border`` (the largest of its shape inside), ``cover``
    (the smallest of its shape around). Then ``crop`` (H, W) at the centre; what lies outside of the picture gets the
    colour ``fill`` (bytes, black by default). None leaves a step out. ``interpolation`` is PIL's, which is antialiased;
    without ``antialias`` it is that of torch, bilinear or bicubic, as torchvision resizes tensors.
    ``rounding`` names the library whose rules hold where a length or the place of the crop is no whole number.

    The pixels, in [0, 1] and RGB, are then multiplied by ``scale`` (1 or 255, as a rule), put into the ``channels``'
    order, and normalised: (x − ``mean``) / ``std``, in that order. ``mean`` and ``std`` are None where nothing is known
    of them; one number stands for all channels. ``source`` says where all this is stated.
    """

    resize: Side | Pair | None = None
    fit: Fit = "short"
    crop: Pair | None = None
    fill: tuple[Annotated[int, Field(ge=0, le=255)], ...] | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    rounding: Rounding = "torchvision"
    mean: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=4)
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(default=None, min_length=1, max_length=4)
    channels: Literal["rgb", "bgr"] = "rgb"
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1
    source: str = ""

    @model_validator(mode="before")
    @classmethod
    def _fit_of_pair(cls, values: object) -> object:
        """A pair without more words is a squash."""
        if isinstance(values, dict) and isinstance(values.get("resize"), tuple | list) and "fit" not in values:
            return {**values, "fit": "squash"}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if isinstance(self.resize, tuple) == (self.fit == "short"):
            raise ValueError("a length to resize the short side to, or a pair (height, width) to fit to")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together, or neither")
        if not all(math.isfinite(value) for value in (*(self.mean or ()), *(self.std or ()))):
            raise ValueError("a finite mean and std")
        if not self.antialias and self.interpolation not in {"bilinear", "bicubic"}:
            raise ValueError("bilinear or bicubic without antialiasing")
        if self.fill is not None and len(self.fill) not in {1, 3}:
            raise ValueError("a fill of one or three numbers")
        return self

    @classmethod
    def square(cls, size: int, *, source: str = "--image-size") -> Preparation:
        """The short side resized to ``size`` (bilinear), then the square at the centre."""
        return cls(resize=size, crop=(size, size), rounding="assay", source=source)

    @classmethod
    def parse(cls, text: str, *, where: str = "--prepare") -> Preparation:
        """A preparation as it is written on a command line; the reverse of :attr:`spelled`.

        Raises :class:`OptionError` for what the grammar does not know, what is said twice, and what is out of range.

        Example:
            >>> prepared = Preparation.parse("resize=256:bicubic,crop=224,mean=0.5,std=0.5")
            >>> prepared.resize, prepared.crop, prepared.interpolation
            (256, (224, 224), 'bicubic')
        """
        fields: dict[str, object] = {}
        for part in re.split(r",\s*(?=[A-Za-z])", text.strip()):
            key, equals, value = (each.strip() for each in part.partition("="))
            new = _parts(key, value) if equals else {"channels": "bgr"} if key == "bgr" else {}
            if not new:
                raise OptionError(where, expected=GRAMMAR, got=repr(part))
            if repeated := fields.keys() & new.keys():
                raise OptionError(where, expected=f"{min(repeated)} once", got=repr(text))
            fields |= new
        try:
            return cls.model_validate({**fields, "source": where})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"][:1])
            message = first["msg"].removeprefix("Value error, ")
            got = f"{message} ({place} of {text!r})" if place else f"{text!r}"
            expected = GRAMMAR if place else message
            raise OptionError(where, expected=expected, got=got) from None

    @property
    def spelled(self) -> str:
        """The same as ``--prepare`` takes it."""
        by = "" if self.interpolation == "bilinear" else f":{self.interpolation}"
        fit = "resize" if self.fit == "short" else self.fit
        size = _size(self.resize) if isinstance(self.resize, tuple) else self.resize
        parts = [] if self.resize is None else [f"{fit}={size}{by}"]
        parts += [] if self.crop is None else [f"crop={_size(self.crop)}"]
        parts += [] if self.fill is None else [f"fill={','.join(map(str, self.fill))}"]
        parts += [] if self.antialias else ["antialias=false"]
        parts += [] if self.rounding == "torchvision" else [f"rounding={self.rounding}"]
        parts += [] if self.mean is None else [f"mean={_numbers(self.mean)}"]
        parts += [] if self.std is None else [f"std={_numbers(self.std)}"]
        parts += ["bgr"] if self.channels == "bgr" else []
        parts += [] if self.scale == 1 else [f"scale={_number(self.scale)}"]
        return ",".join(parts)

    @property
    def is_geometric(self) -> bool:
        """Whether it changes the size of pictures."""
        return self.resize is not None or self.crop is not None

    @property
    def size(self) -> Pair | None:
        """(H, W) of every prepared picture; None where it depends on the picture."""
        if self.crop is not None:
            return self.crop
        return self.resize if self.fit == "squash" and isinstance(self.resize, tuple) else None

    @property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of pixels in [0, 1], in the order of ``channels``; None where none is known."""
        if self.mean is None or self.std is None:
            return None if self.scale == 1 else ((0.0,), (1 / self.scale,))
        return tuple(each / self.scale for each in self.mean), tuple(each / self.scale for each in self.std)

    def over(self, own: Preparation | None) -> Preparation:
        """This one, with what it says nothing of (how to size pictures, or the numbers) taken from ``own``."""
        if own is None:
            return self
        sized, scaled = (
            ("resize", "fit", "crop", "fill", "interpolation", "antialias", "rounding"),
            ("mean", "std", "scale"),
        )
        inherited: dict[str, object] = {} if self.is_geometric else {name: getattr(own, name) for name in sized}
        if self.mean is None and self.scale == 1:
            inherited |= {name: getattr(own, name) for name in scaled}
            inherited |= {"channels": own.channels} if self.channels == "rgb" else {}
        source = " and ".join(dict.fromkeys(filter(None, (self.source, own.source)))) if inherited else self.source
        return self.model_copy(update={**inherited, "source": source})


def _parts(key: str, value: str) -> dict[str, object]:
    """The fields that ``key=value`` states; none where it is not understood."""
    sizes, _, interpolation = (each.strip() for each in value.partition(":"))
    by = {"interpolation": interpolation.lower()} if interpolation else {}
    pair = re.fullmatch(r"(\d+)(?:[x×](\d+))?", sizes)
    if pair is not None and (":" not in value or by):
        height, width = int(pair[1]), int(pair[2] or pair[1])
        if key == "resize" and pair[2] is None:
            return {"resize": height, "fit": "short", **by}
        if key in {"resize", "squash", "border", "cover"}:
            return {"resize": (height, width), "fit": "squash" if key == "resize" else key, **by}
        if key == "crop" and not by:
            return {"crop": (height, width)}
    return _number_parts(key, value)


def _number_parts(key: str, value: str) -> dict[str, object]:
    if key in {"mean", "std", "fill"} and re.fullmatch(rf"{_NUMBER}(\s*,\s*{_NUMBER})*", value):
        return {key: tuple(float(each) for each in value.split(","))}
    if key == "scale" and re.fullmatch(_NUMBER, value):
        return {key: float(value)}
    if key == "antialias" and value.lower() in {"true", "false"}:
        return {key: value.lower() == "true"}
    return {key: value} if key == "rounding" else {}


def _size(pair: Pair) -> str:
    return str(pair[0]) if pair[0] == pair[1] else f"{pair[0]}x{pair[1]}"


def _numbers(values: tuple[float, ...]) -> str:
    distinct = values[:1] if len(set(values)) == 1 else values
    return ",".join(_number(value) for value in distinct)


def _number(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
