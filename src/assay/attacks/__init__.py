"""Threats, steps, attacks, and the engine that judges them."""
