"""Threats, steps, attacks, and the engine that judges them."""

from assay.attacks.engine import Outcome, attack
from assay.attacks.gallery import pick_gallery
from assay.attacks.measure import RobustnessMeasurement, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.presets import PRESETS, Attack, Fgsm, Pgd, RandomNoise, SignedSteps, find_attack
from assay.attacks.threat import Threat

__all__ = [
    "PRESETS",
    "Attack",
    "Fgsm",
    "Outcome",
    "Pgd",
    "RandomNoise",
    "RobustnessMeasurement",
    "SignedSteps",
    "Threat",
    "attack",
    "find_attack",
    "measure_epsilon_curve",
    "measure_robust_accuracy",
    "pick_gallery",
]
