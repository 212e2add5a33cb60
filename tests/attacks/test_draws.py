"""Random numbers that belong to a sample."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import draws


def splitmix64(state: int) -> int:
    """Plain integers modulo 2⁶⁴: the slow, obvious twin."""
    mask = (1 << 64) - 1
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
    return state ^ (state >> 31)


def test_bits_agree_with_plain_integers():
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15
    found = draws.bits(torch.tensor([0, 41, -3]), 9, 2, size=3)
    for row, sample in enumerate([0, 41, -3]):
        state = splitmix64((sample * golden) & mask)
        for part in (9, 2):
            state = splitmix64(((state ^ part) + golden) & mask)
        for place in range(3):
            expected = splitmix64((state + place * golden) & mask)
            assert int(found[row, place]) & mask == expected


def test_a_step_counter_of_each_row_gives_what_that_step_alone_gives():
    ids = torch.tensor([3, 4, 5])
    mixed = draws.uniform(ids, 1, torch.tensor([0, 7, 2]), size=4)
    assert torch.equal(mixed[1:2], draws.uniform(ids[1:2], 1, 7, size=4))


def test_moments():
    ids = torch.arange(20_000)
    uniform = draws.uniform(ids, 0, size=3)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(uniform.var()) == pytest.approx(1 / 12, abs=0.002)
    normal = draws.normal(ids, 0, size=3)
    assert normal.shape == (20_000, 3)
    assert float(normal.mean()) == pytest.approx(0, abs=0.02)
    assert float(normal.var()) == pytest.approx(1, abs=0.02)
    assert float(draws.signs(ids, 0, size=3).mean()) == pytest.approx(0, abs=0.02)
    # Neighbouring samples and positions are unrelated.
    assert abs(float(torch.corrcoef(uniform.T)[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([uniform[:-1, 0], uniform[1:, 0]]))[0, 1])) < 0.03
