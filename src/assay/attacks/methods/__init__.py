"""Every attack by its name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from assay.attacks.methods.ensembles import APGD, APGDT, FAB, AdaptiveAttack, MinimumNorm, Square, StandardAttack
from assay.attacks.methods.external import Transfer
from assay.attacks.methods.gradient import FGSM, PGD, Noise, SignedSteps, Transforms
from assay.attacks.options import AttackOptions
from assay.errors import OptionError

PRESETS: Mapping[str, type[AttackOptions]] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            FGSM,
            PGD,
            SignedSteps,
            Noise,
            APGD,
            APGDT,
            FAB,
            Square,
            StandardAttack,
            AdaptiveAttack,
            MinimumNorm,
            Transforms,
            Transfer,
        )
    }
)


def find_attack(name: str | AttackOptions, options: Mapping[str, Any] | None = None) -> AttackOptions:
    """The preset of that name with ``options`` set; :class:`OptionError` names what there is, or the wrong option.

    Options that were made already are handed back.
    """
    if isinstance(name, AttackOptions):
        return name
    if not isinstance(name, str):
        got = f"the class {name.__name__}" if isinstance(name, type) else type(name).__name__
        raise OptionError("attack", expected="a name, or options such as PGD(steps=20)", got=got)
    if name not in PRESETS:
        raise OptionError("attack", expected=f"one of {', '.join(PRESETS)}", got=repr(name))
    return PRESETS[name].parse(dict(options or {}), where=name)
