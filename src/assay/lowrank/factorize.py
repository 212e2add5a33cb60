"""The best factorisation X ≈ AB, by the cheapest method, with the proof of how good it is."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

from assay.errors import OptionError
from assay.lowrank.certificate import no_certificate
from assay.lowrank.certify import ASSURANCES, Assurance, certify_factors
from assay.lowrank.factors import Factorization, split
from assay.lowrank.matrix import Matrix, Scaled
from assay.lowrank.ranks import RankRule, rank_rule
from assay.lowrank.solvers import SOLVERS, Task, for_whole_spectrum, measure_rates, predict_seconds
from assay.lowrank.sources import as_matrix, measure_energy
from assay.lowrank.streams import sketch
from assay.records.factorization import Certificate

Method = Literal["auto", "fastest", "exact", "gram", "krylov", "single-pass", "als", "descent"]
METHODS = ("auto", "fastest", "exact", "gram", "krylov", "single-pass", "als", "descent")
ITERATIVE = ("als", "descent")  # their objective is ‖X‖² minus what they reach, at every step
_CANCELS = 1e-3  # of ‖X‖²: a difference of sums below that is worth exact sums


def factorize(
    X: object,
    rank: int | str | None = None,
    *,
    tolerance: float | None = None,
    energy: float | None = None,
    noise: float | None = None,
    method: Method = "auto",
    ridge: float = 0.0,
    accuracy: float = 1e-7,
    assurance: Assurance = "auto",
    steps: int = 2000,
    seed: int = 0,
) -> Factorization:
    """Minimise ‖X − AB‖²_F + λ(‖A‖²_F + ‖B‖²_F) over A (m, r), B (r, n).

    ``X`` is anything :func:`~assay.lowrank.sources.as_matrix` takes. The rank is ``rank``, or the smallest that meets
    ``tolerance`` (‖X − AB‖_F ≤ tolerance·‖X‖_F) or ``energy`` (that share of ‖X‖²), or ``rank="gavish-donoho"`` (the
    singular values that stand out of noise, of standard deviation ``noise`` where it is known).

    ``method`` is chosen from the shape with a cost model (``fastest`` measures this machine's rates first):
    ``exact`` SVD; ``gram`` eigenvectors of XᵀX; randomised block ``krylov``; ``single-pass`` sketch; ``als``;
    ``descent`` on (A, B) with the safe step. ``ridge`` λ shrinks the singular values to (σ − λ)₊: the nuclear norm
    2λ‖AB‖_*. ``accuracy`` is the share of the kept energy that an iterative method may miss.

    ``assurance`` asks for a certificate: ``auto`` (deterministic where that is cheap, else with probability 1 − 1e-9),
    ``strict`` (deterministic whatever it costs) or ``none``. The factors come back balanced, AᵀA = BBᵀ.

    Raises :class:`OptionError` for a wrong option and :class:`DataError` for a matrix that is empty, not real, or not
    finite. Reference: Eckart & Young (1936); Mirsky (1960).
    """
    started = time.perf_counter()
    _check_options(method, ridge, accuracy, assurance, steps)
    given = as_matrix(X)
    rule = rank_rule(rank, tolerance, energy, noise, given.shape)
    if method == "single-pass" or not given.replayable:
        return _factorize_in_one_pass(given, rule, method=method, ridge=ridge, seed=seed, started=started)
    # Where neither rank nor certificate hang on ‖X‖², it need not be exact.
    roughly = rule.rank is not None and assurance == "none" and method not in ITERATIVE
    matrix, total = measure_energy(given, roughly=roughly)
    flipped = matrix.in_memory and matrix.shape[0] < matrix.shape[1]
    if flipped:
        matrix = matrix.transposed()
    scale = matrix.factor if isinstance(matrix, Scaled) else 1.0
    guess = rule.rank or min(50, *matrix.shape)
    costs = predict_seconds(matrix, guess, rates=measure_rates() if method == "fastest" else None)
    chosen = next(iter(costs)) if method in {"auto", "fastest"} else method
    if rule.needs_whole_spectrum and chosen == "krylov":
        chosen = for_whole_spectrum(costs)
    task = Task(
        rule, energy=total, ridge=ridge * scale, accuracy=accuracy, steps=steps, seed=seed, certify=assurance != "none"
    )
    found = SOLVERS[chosen](matrix, task)
    if assurance == "none":
        kept = float(found.sigma.square().sum())
        if roughly and total - kept < _CANCELS * total:
            total = matrix.squared_norm()
        estimate = max(0.0, total - kept) if found.space else found.history[-1]
        certificate = no_certificate(estimate, energy=total, ridge=task.ridge, reason="none was asked for")
    else:
        certificate = certify_factors(
            matrix, found.A, found.B, space=found.space, gram=found.gram, energy=total, ridge=task.ridge,
            assurance=assurance, seed=seed,
        )  # fmt: skip
    if flipped != _stored_transposed(given):
        found = replace(found, A=found.B.T, B=found.A.T)
    if scale != 1:  # a copy of A may be most of the memory in use
        root = math.sqrt(scale)
        found = replace(found, A=found.A / root, B=found.B / root)
    return Factorization(
        A=found.A.to(given.dtype),
        B=found.B.to(given.dtype),
        singular_values=found.sigma / scale,
        certificate=certificate if scale == 1 else _rescaled(certificate, scale),
        method=chosen,
        rule=str(rule),
        seconds=time.perf_counter() - started,
        passes=found.passes,
        spectrum=found.spectrum / scale,
        predicted_seconds=costs,
        history=tuple(value / scale**2 for value in found.history),
    )


def _factorize_in_one_pass(
    matrix: Matrix, rule: RankRule, *, method: str, ridge: float, seed: int, started: float
) -> Factorization:
    if method not in {"auto", "fastest", "single-pass"}:
        got = f"{method!r} for an iterator, which can be read once only"
        raise OptionError("method", expected="'single-pass' (or hand in a function that returns an iterator)", got=got)
    if rule.rank is None:
        raise OptionError("rank", expected="a number, for a single pass", got=str(rule))
    drawn = sketch(matrix, rule.rank, seed=seed)
    rank = min(rule.rank, len(drawn.sigma), drawn.rows)
    sigma, right = drawn.sigma[:rank], drawn.right[:, :rank]
    a, b = split(drawn.left[:, :rank], sigma, right, ridge=ridge, dtype=matrix.dtype)
    if _stored_transposed(matrix):
        a, b = b.T, a.T
    kept = (sigma - ridge).clamp_min(0)
    estimate = max(0.0, drawn.energy - float(kept.square().sum()))
    reason = "one pass over the rows measures neither the error nor the spectrum; read them twice for a certificate"
    return Factorization(
        A=a,
        B=b,
        singular_values=kept,
        certificate=no_certificate(estimate, energy=drawn.energy, ridge=ridge, reason=reason),
        method="single-pass",
        rule=str(rule),
        seconds=time.perf_counter() - started,
        passes=1,
        spectrum=sigma,
    )


def _stored_transposed(matrix: Matrix) -> bool:
    """A Fortran-ordered file is read as Xᵀ."""
    return bool(getattr(matrix, "fortran", False))


def _rescaled(certificate: Certificate, scale: float) -> Certificate:
    """From the units of c·X back to those of X; where a square leaves the range of float64 it becomes 0 or infinite."""
    squares = ("energy", "error", "error_low", "error_high", "optimum_low", "optimum_high", "gap_high")
    changes: dict[str, object] = {name: getattr(certificate, name) / scale / scale for name in squares}
    for name in ("singular_low", "singular_high"):
        changes[name] = tuple(value / scale for value in getattr(certificate, name))
    return certificate.model_copy(update={**changes, "ridge": certificate.ridge / scale})


def _check_options(method: str, ridge: float, accuracy: float, assurance: str, steps: int) -> None:
    if method not in METHODS:
        raise OptionError("method", expected=f"one of {', '.join(METHODS)}", got=repr(method))
    if not (ridge >= 0 and math.isfinite(ridge)):
        raise OptionError("ridge", expected="a number of at least 0", got=ridge)
    if not 0 < accuracy < 1:
        raise OptionError("accuracy", expected="a share in (0, 1)", got=accuracy)
    if assurance not in ASSURANCES:
        raise OptionError("assurance", expected=f"one of {', '.join(ASSURANCES)}", got=repr(assurance))
    if steps < 1:
        raise OptionError("steps", expected="at least 1", got=steps)
