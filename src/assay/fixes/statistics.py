"""Running statistics of batch normalisation, measured anew on training images."""

from __future__ import annotations

import copy

from assay.fixes.fix import Change, Fix, RefusedError, Workshop
from assay.training.batchnorm import refresh_batchnorm

SAMPLES = 5000


def _reestimate(shop: Workshop) -> Change:
    images = shop.training_images(SAMPLES)
    fixed = copy.deepcopy(shop.model)
    layers = refresh_batchnorm(fixed, images, samples=len(images))
    if layers == 0:
        raise RefusedError("no batch normalisation with running statistics")
    source = f"{len(images):,} images of {images.name}, {images.split}, none of them tested"
    return Change(f"the running statistics of {layers} layers measured anew on {source}", model=fixed)


STATISTICS = Fix("statistics", "weights", _reestimate, stages=("normalisation audit",))
