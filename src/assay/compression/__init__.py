"""Smaller networks: layers in factors, fitted to data, replaced only where that makes them faster."""

from assay.compression.run import compress

__all__ = ["compress"]
