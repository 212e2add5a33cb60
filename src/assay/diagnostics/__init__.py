"""What a network does inside: modes, statistics, gradients over depth and time, maps, invariance, curvature."""

from assay.diagnostics.batchnorm import audit_normalization
from assay.diagnostics.curvature import measure_curvature
from assay.diagnostics.depth import measure_gradient_flow
from assay.diagnostics.invariance import measure_invariance
from assay.diagnostics.maps import measure_saliency_maps
from assay.diagnostics.modes import audit_modes
from assay.diagnostics.recorder import GradientRecorder, record_gradients
from assay.diagnostics.saliency import measure_input_gradients
from assay.diagnostics.time import measure_gradients_over_time, measure_state_gradients, measure_time_trace

__all__ = [
    "GradientRecorder",
    "audit_modes",
    "audit_normalization",
    "measure_curvature",
    "measure_gradient_flow",
    "measure_gradients_over_time",
    "measure_input_gradients",
    "measure_invariance",
    "measure_saliency_maps",
    "measure_state_gradients",
    "measure_time_trace",
    "record_gradients",
]
