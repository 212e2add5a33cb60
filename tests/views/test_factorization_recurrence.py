from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from assay.errors import OptionError
from assay.lowrank.landscape import Hessian
from assay.lowrank.summary import luma
from assay.models.sequence import build_sequence_model, make_recurrent_matrix, shape_recurrence
from assay.views.context import Limits
from assay.views.factorization import factor_picture
from assay.views.recurrence import CELLS, RecurrenceChoice, measure_recurrence


def test_a_picture_of_a_rank_is_the_truncated_svd_of_each_channel():
    channels = torch.rand(3, 14, 10, dtype=torch.float64)
    found = factor_picture(channels, name="x", rank=3, words=("x.png",))
    rebuilt = []
    for channel in channels.numpy():
        u, s, v = np.linalg.svd(channel, full_matrices=False)
        rebuilt.append((u[:, :3] * s[:3]) @ v[:3])
    rounded = np.rint(np.clip(rebuilt, 0, 1) * 255) / 255
    psnr = -10 * math.log10(((rounded - channels.numpy()) ** 2).mean())
    assert found.picture.psnr == pytest.approx(psnr, abs=1e-6)
    assert found.numbers == (3 * 25, 140)
    assert found.words == ("x.png", "--rank", "3")
    assert found.report.certificate.certified


def test_the_scale_leaves_the_loss_and_gives_the_sharpness_of_the_hessian():
    channels = torch.rand(1, 7, 6, dtype=torch.float64)
    found = factor_picture(channels, name="x", rank=2, scale=1.7)
    X = next(iter(luma(channels).blocks()))
    u, s, v = torch.linalg.svd(X, full_matrices=False)
    A, B = 1.7 * u[:, :2] * s[:2].sqrt(), s[:2].sqrt()[:, None] * v[:2] / 1.7
    assert found.measured_loss == pytest.approx(float(s[2:].square().sum()), rel=1e-9)
    assert found.scaled.sharpness == pytest.approx(Hessian(X, A, B).extreme_eigenvalues()[1], rel=1e-6)


@pytest.mark.parametrize(
    ("rank", "scale", "message"),
    [(0, 1, r"rank: expected 1\.\.6"), (7, 1, "rank: expected at most 6"), (2, 0, "scale: expected a finite number")],
)
def test_wrong_ranks_and_scales_are_named(rank, scale, message):
    with pytest.raises(OptionError, match=message):
        factor_picture(torch.rand(1, 7, 6, dtype=torch.float64), name="x", rank=rank, scale=scale)


@pytest.mark.parametrize("size", [1, 2, 5, 32])
@pytest.mark.parametrize(("radius", "norm"), [(0.9, 0.9), (0.9, 3.0), (1.2, 5.0), (0.0, 2.0), (0.0, 0.0)])
def test_the_matrix_has_the_radius_and_the_norm(size, radius, norm):
    if size == 1 and norm > radius:
        with pytest.raises(OptionError, match="for a single unit"):
            make_recurrent_matrix(size, radius=radius, norm=norm)
        return
    W = make_recurrent_matrix(size, radius=radius, norm=norm, seed=2)
    assert float(torch.linalg.matrix_norm(W, 2)) == pytest.approx(norm, abs=1e-9)
    assert float(torch.linalg.eigvals(W).abs().max()) == pytest.approx(radius, abs=3e-7)
    assert not torch.equal(W, make_recurrent_matrix(size, radius=radius, norm=norm, seed=3)) or radius == norm


@pytest.mark.parametrize(("radius", "norm"), [(-0.1, 1), (0.9, 0.5), (0.9, math.inf), (math.nan, 1)])
def test_impossible_matrices_are_refused(radius, norm):
    with pytest.raises(OptionError, match=r"radius|norm"):
        make_recurrent_matrix(4, radius=radius, norm=norm)


def test_the_gradient_of_a_linear_recurrence_is_the_power_of_its_matrix():
    choice = RecurrenceChoice(radius=0.9, norm=2.5, hidden=6, length=12)
    found = measure_recurrence(choice)
    W = make_recurrent_matrix(6, radius=0.9, norm=2.5)
    readout = (
        build_sequence_model("rnn-linear", features=2, outputs=1, length=12, hidden=6)
        .readout.weight.detach()[0]
        .double()
    )
    power = torch.eye(6, dtype=torch.float64)
    for measured in found.norms:
        assert measured == pytest.approx(float((power.T @ readout).norm() / readout.norm()), rel=1e-4)
        power = W @ power
    assert found.matrix.spectral_radius == pytest.approx(0.9, abs=2e-3)
    assert found.matrix.norm == pytest.approx(2.5, rel=1e-6)
    assert all(
        measured <= math.exp(log) * (1 + 1e-4)
        for measured, log in zip(found.norms[1:], found.matrix.log_power, strict=False)
    )


@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_gets_the_matrix(cell):
    found = measure_recurrence(RecurrenceChoice(cell=cell, radius=0.5, norm=1.5, hidden=4, length=8))
    assert found.matrix.norm == pytest.approx(1.5, rel=1e-5)
    assert len(found.norms) == 8


def test_gated_cells_have_no_one_matrix_and_limits_hold():
    with pytest.raises(OptionError, match="cell: expected one of rnn-linear, rnn, rnn-relu, got lstm"):
        measure_recurrence(RecurrenceChoice(cell="lstm"))
    with pytest.raises(OptionError, match="a plain recurrence of one layer"):
        shape_recurrence(build_sequence_model("gru", features=1, outputs=1, length=4, hidden=3), torch.eye(3))
    with pytest.raises(OptionError, match="length: expected at most 10"):
        measure_recurrence(RecurrenceChoice(length=11), limits=Limits(length=10))
