"""Smaller networks: layers in factors, fitted to data, replaced only where that makes them faster."""

from assay.compression.run import Compressed, CompressionPlan, compress
from assay.compression.saving import save_compressed

__all__ = ["Compressed", "CompressionPlan", "compress", "save_compressed"]
