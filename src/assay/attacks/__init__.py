"""Adversarial attacks: threats, options, the engine that verifies every success, and what is measured with it."""

from assay.attacks.batch import ActiveBatch, Method, ModelOutput, initial_fields
from assay.attacks.engine import attack
from assay.attacks.examples import describe_attack, pick_gallery
from assay.attacks.measure import RobustnessMeasurement, measure_epsilon_curve, measure_robust_accuracy
from assay.attacks.methods import AttackEntry, find_attack, list_attacks, parse_attack_options, show_attack_options
from assay.attacks.methods.apgd import APGD, APGDT
from assay.attacks.methods.ensembles import AdaptiveAttack, StandardAttack
from assay.attacks.methods.external import External, Transfer
from assay.attacks.methods.fab import FAB
from assay.attacks.methods.gradient import FGSM, PGD, Noise, SignedSteps
from assay.attacks.methods.minimum_norm import MinimumNorm
from assay.attacks.methods.square import Square
from assay.attacks.methods.transforms import Transforms
from assay.attacks.options import AttackOptions, AttackPlan, register
from assay.attacks.result import AttackResult
from assay.attacks.sanity import measure_attack_sanity
from assay.attacks.threat import Threat

__all__ = [
    "APGD",
    "APGDT",
    "FAB",
    "FGSM",
    "PGD",
    "ActiveBatch",
    "AdaptiveAttack",
    "AttackEntry",
    "AttackOptions",
    "AttackPlan",
    "AttackResult",
    "External",
    "Method",
    "MinimumNorm",
    "ModelOutput",
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
    "initial_fields",
    "list_attacks",
    "measure_attack_sanity",
    "measure_epsilon_curve",
    "measure_robust_accuracy",
    "parse_attack_options",
    "pick_gallery",
    "register",
    "show_attack_options",
]
