"""Image augmentation on bytes: exact operations, parameters drawn per sample, the same on any number of workers."""

from assay.augment.engine import prepare_kernels
from assay.augment.language import parse_policy
from assay.augment.plan import AugmentPlan, apply_operation, apply_plan
from assay.augment.policies import Augmentation, Policy, Step, choose, crop, cutout, flip, flip_crop
from assay.augment.published import AutoAugment, RandAugment, TrivialAugmentWide
from assay.augment.transform import AugmentTransform

__all__ = [
    "AugmentPlan",
    "AugmentTransform",
    "Augmentation",
    "AutoAugment",
    "Policy",
    "RandAugment",
    "Step",
    "TrivialAugmentWide",
    "apply_operation",
    "apply_plan",
    "choose",
    "crop",
    "cutout",
    "flip",
    "flip_crop",
    "parse_policy",
    "prepare_kernels",
]
