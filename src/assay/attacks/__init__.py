"""Threats, steps, attacks, and the engine that judges them."""

from assay.attacks.engine import attack
from assay.attacks.examples import describe_attack, pick_gallery
from assay.attacks.measure import RobustnessMeasurement, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods import PRESETS, find_attack
from assay.attacks.methods.ensembles import APGD, APGDT, FAB, AdaptiveAttack, MinimumNorm, Square, StandardAttack
from assay.attacks.methods.external import External, Transfer
from assay.attacks.methods.gradient import FGSM, PGD, Noise, SignedSteps, Transforms
from assay.attacks.options import AttackOptions
from assay.attacks.result import AttackResult
from assay.attacks.sanity import measure_attack_sanity
from assay.attacks.threat import Threat

__all__ = [
    "APGD",
    "APGDT",
    "FAB",
    "FGSM",
    "PGD",
    "PRESETS",
    "AdaptiveAttack",
    "AttackOptions",
    "AttackResult",
    "External",
    "MinimumNorm",
    "Noise",
    "RobustnessMeasurement",
    "SignedSteps",
    "Square",
    "StandardAttack",
    "Threat",
    "Transfer",
    "Transforms",
    "attack",
    "describe_attack",
    "find_attack",
    "measure_attack_sanity",
    "measure_epsilon_curve",
    "measure_robust_accuracy",
    "pick_gallery",
]
