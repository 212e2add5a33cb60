"""Spectra, factorisation, and smaller networks."""

from assay.lowrank.certificate import certify
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import apply_gauge, same_solution, sharpness_of_scaling
from assay.lowrank.landscape import measure_landscape
from assay.lowrank.matrix import SharedRows
from assay.lowrank.missing import complete, soft_impute
from assay.lowrank.sources import as_matrix
from assay.lowrank.spectrum import measure_spectra

__all__ = [
    "SharedRows",
    "apply_gauge",
    "as_matrix",
    "certify",
    "complete",
    "factorize",
    "measure_landscape",
    "measure_spectra",
    "same_solution",
    "sharpness_of_scaling",
    "soft_impute",
]
