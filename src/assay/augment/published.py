"""The published policies: RandAugment, TrivialAugment and AutoAugment, with torchvision's magnitude tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import torch
from torch import Tensor

from assay.augment.operations import CODES
from assay.augment.plan import AugmentPlan
from assay.augment.policies import Policy, RandomStreams, check_integer
from assay.errors import OptionError

Space = Literal["randaugment", "autoaugment", "trivialaugment"]
PolicyName = Literal["cifar10", "imagenet", "svhn"]
_BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
_SHARE = 150.0 / 331.0  # the largest shift, as a share of the image: 150 of ImageNet's 331 pixels


@dataclass(frozen=True, eq=False)
class MagnitudeTable:
    """K operations: ``codes`` uint8 (K,); ``signed_magnitudes`` float64 (2, K, bins), first the plus side."""

    names: tuple[str, ...]
    codes: Tensor
    signed_magnitudes: Tensor

    def look_up(self, which: Tensor, bins: Tensor | int, negative: Tensor) -> tuple[Tensor, Tensor]:
        """Codes and magnitudes of operation ``which``, at ``bins``, on the minus side where ``negative``; all (B,)."""
        return self.codes[which], self.signed_magnitudes[negative.long(), which, bins]


@lru_cache(maxsize=64)
def magnitude_table(space: Space, *, bins: int, height: int, width: int) -> MagnitudeTable:
    """The operations of a policy and their magnitude at each of ``bins`` strengths, for images of this size."""
    wide = space == "trivialaugment"
    slope, angle, blend, removed_bits = (0.99, 135.0, 0.99, 6) if wide else (0.3, 30.0, 0.9, 4)
    rows = {"Identity": _ramp(0.0, bins)} if space != "autoaugment" else {}
    rows |= {"ShearX": _ramp(slope, bins), "ShearY": _ramp(slope, bins)}
    sides = {"TranslateX": width, "TranslateY": height}
    rows |= {name: _ramp(32.0 if wide else _SHARE * side, bins) for name, side in sides.items()}
    rows |= {"Rotate": _ramp(angle, bins), **{name: _ramp(blend, bins) for name in _BLENDS}}
    rows["Posterize"] = 8 - (torch.arange(bins) / ((bins - 1) / removed_bits)).round().double()
    rows["Solarize"] = torch.linspace(255.0, 0.0, bins).double()
    rows |= {"AutoContrast": _ramp(0.0, bins), "Equalize": _ramp(0.0, bins)}
    rows |= {"Invert": _ramp(0.0, bins)} if space == "autoaugment" else {}
    names = tuple(rows)
    one_sided = ("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
    tabled = torch.stack(list(rows.values()))
    signs = torch.tensor([[1.0 if name in one_sided else -1.0] for name in names], dtype=torch.float64)
    ones = torch.tensor([[1.0 if name in _BLENDS else 0.0] for name in names], dtype=torch.float64)
    codes = torch.tensor([CODES[name] for name in names], dtype=torch.uint8)
    return MagnitudeTable(names, codes, torch.stack([ones + tabled, ones + signs * tabled]))


def _ramp(highest: float, bins: int) -> Tensor:
    return torch.linspace(0.0, highest, bins).double()  # in single precision first, as torchvision's tables are


@dataclass(frozen=True, eq=False)
class SubPolicies:
    """AutoAugment's pairs, each (P, 2): the operation's row in the table, its probability, its magnitude's bin."""

    which: Tensor
    probability: Tensor
    bins: Tensor


@lru_cache(maxsize=8)
def sub_policies(name: PolicyName) -> SubPolicies:
    names = magnitude_table("autoaugment", bins=10, height=1, width=1).names
    pairs = [pair.split(",") for line in _AUTOAUGMENT[name].strip().splitlines() for pair in line.split(";")]
    steps = [[step.split() for step in pair] for pair in pairs]
    return SubPolicies(
        which=torch.tensor([[names.index(step[0]) for step in pair] for pair in steps]),
        probability=torch.tensor([[float(step[1]) for step in pair] for pair in steps], dtype=torch.float64),
        bins=torch.tensor([[int(step[2]) if len(step) > 2 else 0 for step in pair] for pair in steps]),
    )


# operation, probability, magnitude of 0..9; two operations a sub-policy, two sub-policies a line
_AUTOAUGMENT = {
    "cifar10": """
        Invert 0.1, Contrast 0.2 6; Rotate 0.7 2, TranslateX 0.3 9
        Sharpness 0.8 1, Sharpness 0.9 3; ShearY 0.5 8, TranslateY 0.7 9
        AutoContrast 0.5, Equalize 0.9; ShearY 0.2 7, Posterize 0.3 7
        Color 0.4 3, Brightness 0.6 7; Sharpness 0.3 9, Brightness 0.7 9
        Equalize 0.6, Equalize 0.5; Contrast 0.6 7, Sharpness 0.6 5
        Color 0.7 7, TranslateX 0.5 8; Equalize 0.3, AutoContrast 0.4
        TranslateY 0.4 3, Sharpness 0.2 6; Brightness 0.9 6, Color 0.2 8
        Solarize 0.5 2, Invert 0; Equalize 0.2, AutoContrast 0.6
        Equalize 0.2, Equalize 0.6; Color 0.9 9, Equalize 0.6
        AutoContrast 0.8, Solarize 0.2 8; Brightness 0.1 3, Color 0.7 0
        Solarize 0.4 5, AutoContrast 0.9; TranslateY 0.9 9, TranslateY 0.7 9
        AutoContrast 0.9, Solarize 0.8 3; Equalize 0.8, Invert 0.1
        TranslateY 0.7 9, AutoContrast 0.9
    """,
    "imagenet": """
        Posterize 0.4 8, Rotate 0.6 9; Solarize 0.6 5, AutoContrast 0.6
        Equalize 0.8, Equalize 0.6; Posterize 0.6 7, Posterize 0.6 6
        Equalize 0.4, Solarize 0.2 4; Equalize 0.4, Rotate 0.8 8
        Solarize 0.6 3, Equalize 0.6; Posterize 0.8 5, Equalize 1
        Rotate 0.2 3, Solarize 0.6 8; Equalize 0.6, Posterize 0.4 6
        Rotate 0.8 8, Color 0.4 0; Rotate 0.4 9, Equalize 0.6
        Equalize 0, Equalize 0.8; Invert 0.6, Equalize 1
        Color 0.6 4, Contrast 1 8; Rotate 0.8 8, Color 1 2
        Color 0.8 8, Solarize 0.8 7; Sharpness 0.4 7, Invert 0.6
        ShearX 0.6 5, Equalize 1; Color 0.4 0, Equalize 0.6
        Equalize 0.4, Solarize 0.2 4; Solarize 0.6 5, AutoContrast 0.6
        Invert 0.6, Equalize 1; Color 0.6 4, Contrast 1 8
        Equalize 0.8, Equalize 0.6
    """,
    "svhn": """
        ShearX 0.9 4, Invert 0.2; ShearY 0.9 8, Invert 0.7
        Equalize 0.6, Solarize 0.6 6; Invert 0.9, Equalize 0.6
        Equalize 0.6, Rotate 0.9 3; ShearX 0.9 4, AutoContrast 0.8
        ShearY 0.9 8, Invert 0.4; ShearY 0.9 5, Solarize 0.2 6
        Invert 0.9, AutoContrast 0.8; Equalize 0.6, Rotate 0.9 3
        ShearX 0.9 4, Solarize 0.3 3; ShearY 0.8 8, Invert 0.7
        Equalize 0.9, TranslateY 0.6 6; Invert 0.9, Equalize 0.6
        Contrast 0.3 3, Rotate 0.8 4; Invert 0.8, TranslateY 0 2
        ShearY 0.7 6, Solarize 0.4 8; Invert 0.6, Rotate 0.8 4
        ShearY 0.3 7, TranslateX 0.9 3; ShearX 0.1 6, Invert 0.6
        Solarize 0.7 2, TranslateY 0.6 7; ShearY 0.8 4, Invert 0.8
        ShearX 0.7 9, TranslateY 0.8 3; ShearY 0.8 5, AutoContrast 0.7
        ShearX 0.7 2, Invert 0.1
    """,
}


@dataclass(frozen=True)
class RandAugment(Policy):
    """``operations`` times one of 14 operations, all at strength ``magnitude`` of 0..bins−1, either sign.

    Reference: Cubuk et al., *RandAugment*, CVPR Workshops 2020; operations and tables as in torchvision.
    """

    operations: int = 2
    magnitude: int = 9
    bins: int = 31

    def __post_init__(self) -> None:
        check_integer("bins", self.bins, lowest=2)
        check_integer("operations of randaugment", self.operations, lowest=1)
        check_integer("magnitude of randaugment", self.magnitude, lowest=0, highest=self.bins - 1)

    @property
    def stream_count(self) -> int:
        """Which operation and which sign, for each."""
        return 2 * self.operations

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        table = magnitude_table("randaugment", bins=self.bins, height=height, width=width)
        shares = rng.uniforms(2 * self.operations)
        which, negative = (shares[0::2] * len(table.names)).long(), shares[1::2] >= 0.5
        codes, magnitudes = table.look_up(which, self.magnitude, negative)  # (operations, B)
        return _plan_of_steps(list(zip(codes, magnitudes, strict=True)))


@dataclass(frozen=True)
class TrivialAugmentWide(Policy):
    """One of 14 operations, at a strength drawn evenly from all ``bins``, either sign.

    Reference: Müller & Hutter, *TrivialAugment*, ICCV 2021; operations and tables as in torchvision.
    """

    stream_count: ClassVar[int] = 3  # which operation, how strong, which sign
    bins: int = 31

    def __post_init__(self) -> None:
        check_integer("bins", self.bins, lowest=2)

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        table = magnitude_table("trivialaugment", bins=self.bins, height=height, width=width)
        which, strength = rng.integers(len(table.names), 0), rng.integers(self.bins, 1)
        return _plan_of_steps([table.look_up(which, strength, rng.integers(2, 2).bool())])


@dataclass(frozen=True)
class AutoAugment(Policy):
    """One of 25 learned pairs of operations, each done with its own probability, either sign.

    Reference: Cubuk et al., *AutoAugment*, CVPR 2019, tables 7 to 9; as in torchvision.
    """

    stream_count: ClassVar[int] = 5  # which pair; whether and which sign, for each of the two
    policy: PolicyName = "cifar10"

    def __post_init__(self) -> None:
        if self.policy not in {"cifar10", "imagenet", "svhn"}:
            raise OptionError("policy of autoaugment", expected="cifar10, imagenet or svhn", got=repr(self.policy))

    def draw(self, rng: RandomStreams, *, height: int, width: int) -> AugmentPlan:
        table = magnitude_table("autoaugment", bins=10, height=height, width=width)
        learned = sub_policies(self.policy)
        pair = rng.integers(len(learned.which), 0)
        steps = []
        for step in (0, 1):
            happens = rng.uniform(1 + 2 * step) < learned.probability[pair, step]
            negative = rng.integers(2, 2 + 2 * step).bool()
            codes, magnitudes = table.look_up(learned.which[pair, step], learned.bins[pair, step], negative)
            steps.append((torch.where(happens, codes, 0).byte(), magnitudes))
        return _plan_of_steps(steps)


def _plan_of_steps(steps: list[tuple[Tensor, Tensor]]) -> AugmentPlan:
    codes, magnitudes = (torch.stack(parts, dim=1) for parts in zip(*steps, strict=True))
    return AugmentPlan(codes, magnitudes, torch.zeros(*codes.shape, 2, dtype=torch.int32))
