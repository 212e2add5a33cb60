"""Spectra, factorisation, and smaller networks."""
