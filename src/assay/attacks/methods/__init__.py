"""Every attack by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from assay.attacks.methods.ensembles import Adaptive, ApgdCe, ApgdT, FabT, MinimumNorm, SquareSearch, Standard
from assay.attacks.methods.external import Transfer
from assay.attacks.methods.gradient import Fgsm, Pgd, RandomNoise, SignedSteps, Transforms
from assay.attacks.options import Attack
from assay.errors import OptionError

PRESETS: Mapping[str, type[Attack]] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            Fgsm,
            Pgd,
            SignedSteps,
            RandomNoise,
            ApgdCe,
            ApgdT,
            FabT,
            SquareSearch,
            Standard,
            Adaptive,
            MinimumNorm,
            Transforms,
            Transfer,
        )
    }
)


def find_attack(name: str | Attack, options: Mapping[str, Any] | None = None) -> Attack:
    """The preset of that name with ``options`` set; :class:`OptionError` names what there is, or the wrong option.

    Options that were made already are handed back.
    """
    if isinstance(name, Attack):
        return name
    if not isinstance(name, str):
        got = f"the class {name.__name__}" if isinstance(name, type) else type(name).__name__
        raise OptionError("attack", expected="a name, or options such as Pgd(steps=20)", got=got)
    if name not in PRESETS:
        raise OptionError("attack", expected=f"one of {', '.join(PRESETS)}", got=repr(name))
    return PRESETS[name].parse(dict(options or {}), where=name)
