"""Layers of low rank replaced by thinner chains, fitted to training images."""

from __future__ import annotations

from assay.compress.run import Plan, compress
from assay.errors import AssayError
from assay.fixes.fix import Change, Fix, RefusedError, Workshop
from assay.records.fixes import Reading

IMAGES = 2_000
MOST_POINTS_LOST = 1.0


def _compress(shop: Workshop) -> Change:
    images = shop.training_images(IMAGES)
    few = shop.bench.probed
    plan = Plan(max_drop=MOST_POINTS_LOST, validation=len(images) // 2, attack=None, curve=(), seed=shop.bench.seed)
    try:
        done = compress(shop.model, images, few, plan, name=shop.bench.name)
    except AssayError as error:
        raise RefusedError(str(error)) from None
    if not done.factorization:
        raise RefusedError("no layer became both thinner and faster within one point of accuracy")
    before, after = done.report.before, done.report.after
    layers = len(done.factorization)
    applied = (
        f"{layers} layers factorised on {done.report.calibration_images} of {len(images):,} images of {images.name}, "
        f"{images.split}, none of them tested; at most {MOST_POINTS_LOST:g} point lost on others of these"
    )
    return Change(
        applied,
        model=done.model,
        factorization=done.factorization,
        readings=(
            Reading(name="parameters", before=before.parameters, after=after.parameters),
            Reading(name="operations an image", before=before.flops, after=after.flops),
            Reading(name="time, after over before", before=1.0, after=done.report.latency_ratio),
        ),
    )


COMPRESSION = Fix("compression", "weights", _compress, stages=("anatomy", "singular spectra"))
