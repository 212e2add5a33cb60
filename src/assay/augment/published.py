"""The published policies: RandAugment, TrivialAugment and AutoAugment, with torchvision's magnitude tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from assay.augment.plan import Plan
from assay.augment.policies import Dice, Policy, check_whole
from assay.augment.tables import PolicyName, magnitude_table, sub_policies
from assay.errors import OptionError


@dataclass(frozen=True)
class RandAugment(Policy):
    """``operations`` times one of 14 operations, all at strength ``magnitude`` of 0..bins−1, either sign.

    Reference: Cubuk et al., *RandAugment*, CVPR Workshops 2020; operations and tables as in torchvision.
    """

    operations: int = 2
    magnitude: int = 9
    bins: int = 31

    def __post_init__(self) -> None:
        check_whole("bins", self.bins, lowest=2)
        check_whole("operations of randaugment", self.operations, lowest=1)
        check_whole("magnitude of randaugment", self.magnitude, lowest=0, highest=self.bins - 1)

    @property
    def streams(self) -> int:
        """Which operation and which sign, for each."""
        return 2 * self.operations

    def draw(self, dice: Dice, *, height: int, width: int) -> Plan:
        """``operations`` steps a sample."""
        table = magnitude_table("randaugment", bins=self.bins, height=height, width=width)
        shares = dice.uniforms(2 * self.operations)
        which, negative = (shares[0::2] * len(table.names)).long(), shares[1::2] >= 0.5
        codes, magnitudes = table.look_up(which, self.magnitude, negative)  # (operations, B)
        return _placeless(list(zip(codes, magnitudes, strict=True)))


@dataclass(frozen=True)
class TrivialAugmentWide(Policy):
    """One of 14 operations, at a strength drawn evenly from all ``bins``, either sign.

    Reference: Müller & Hutter, *TrivialAugment*, ICCV 2021; operations and tables as in torchvision.
    """

    bins: int = 31

    def __post_init__(self) -> None:
        check_whole("bins", self.bins, lowest=2)

    @property
    def streams(self) -> int:
        """Which operation, how strong, which sign."""
        return 3

    def draw(self, dice: Dice, *, height: int, width: int) -> Plan:
        """One step a sample."""
        table = magnitude_table("trivialaugment", bins=self.bins, height=height, width=width)
        which, strength = dice.integers(len(table.names), 0), dice.integers(self.bins, 1)
        return _placeless([table.look_up(which, strength, dice.integers(2, 2).bool())])


@dataclass(frozen=True)
class AutoAugment(Policy):
    """One of 25 learned pairs of operations, each done with its own probability, either sign.

    Reference: Cubuk et al., *AutoAugment*, CVPR 2019, tables 7 to 9; as in torchvision.
    """

    policy: PolicyName = "cifar10"

    def __post_init__(self) -> None:
        if self.policy not in {"cifar10", "imagenet", "svhn"}:
            raise OptionError("policy of autoaugment", expected="cifar10, imagenet or svhn", got=repr(self.policy))

    @property
    def streams(self) -> int:
        """Which pair; whether and which sign, for each of the two."""
        return 5

    def draw(self, dice: Dice, *, height: int, width: int) -> Plan:
        """Two steps a sample."""
        table = magnitude_table("autoaugment", bins=10, height=height, width=width)
        learned = sub_policies(self.policy)
        pair = dice.integers(len(learned.which), 0)
        steps = []
        for step in (0, 1):
            happens = dice.uniform(1 + 2 * step) < learned.probability[pair, step]
            negative = dice.integers(2, 2 + 2 * step).bool()
            codes, magnitudes = table.look_up(learned.which[pair, step], learned.bins[pair, step], negative)
            steps.append((torch.where(happens, codes, 0).byte(), magnitudes))
        return _placeless(steps)


def _placeless(steps: list[tuple[Tensor, Tensor]]) -> Plan:
    codes, magnitudes = (torch.stack(parts, dim=1) for parts in zip(*steps, strict=True))
    return Plan(codes, magnitudes, torch.zeros(*codes.shape, 2, dtype=torch.int32))
