"""The best factorisation X ≈ AB, by the cheapest method, with a certificate of how far from the optimum it can be."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Literal

import torch

from assay.arguments import checked
from assay.errors import OptionError, UnusedOptionError
from assay.lowrank.certificate import ASSURANCES, Assurance, certify_factors, no_certificate
from assay.lowrank.factors import Factorization, gram_of, split
from assay.lowrank.krylov import RESOLUTION
from assay.lowrank.matrix import Matrix, Scaled
from assay.lowrank.ranks import RankRule, rank_rule
from assay.lowrank.solvers import (
    GRAM_LIMIT,
    SOLVERS,
    FactorizationTask,
    Solution,
    fits_exactly,
    measure_rates,
    predict_seconds,
)
from assay.lowrank.sources import as_matrix, measure_energy
from assay.lowrank.streams import sketch
from assay.records.factorization import Certificate

Method = Literal["auto", "fastest", "exact", "gram", "krylov", "single-pass", "als", "descent"]
METHODS = ("auto", "fastest", "exact", "gram", "krylov", "single-pass", "als", "descent")
ITERATIVE = ("als", "descent")  # they compute their objective as a difference from ‖X‖² at every step
ACCURACY = 1e-7
STEPS = 2000
LARGEST_CERTIFIED = 1500  # columns of A whose optimum is enclosed unless the assurance is strict: it takes minutes
_CANCELS = 1e-3  # of ‖X‖²: a smaller difference of sums needs exact sums


@checked
def factorize(
    X: object,
    rank: int | str | None = None,
    *,
    tolerance: float | None = None,
    energy: float | None = None,
    noise: float | None = None,
    method: Method = "auto",
    ridge: float = 0.0,
    accuracy: float | None = None,
    assurance: Assurance | None = None,
    steps: int | None = None,
    seed: int = 0,
) -> Factorization:
    """Minimise ‖X − AB‖²_F + λ(‖A‖²_F + ‖B‖²_F) over A (m, r) and B (r, n), and certify how good the result is.

    The factors come back balanced, AᵀA = BBᵀ. A ridge λ shrinks the singular values to (σ − λ)₊, as the nuclear norm
    2λ‖AB‖_* does.

    Args:
        X: A matrix (m, n): tensor, array, scipy.sparse matrix, file, or row blocks; see
            :func:`~assay.lowrank.sources.as_matrix`.
        rank: r in 1..min(m, n), or ``"gavish-donoho"``: the singular values above the optimal threshold for noise.
        tolerance: Instead of ``rank``, the smallest one with ‖X − AB‖_F ≤ tolerance·‖X‖_F, in [0, 1).
        energy: Instead of ``rank``, the smallest one that keeps this share of ‖X‖²_F, in (0, 1].
        noise: Standard deviation of the noise in each entry, for ``"gavish-donoho"``; None: estimated.
        method: ``"exact"`` (SVD), ``"gram"`` (eigenvectors of XᵀX), ``"krylov"`` (randomised block Krylov),
            ``"single-pass"`` (sketch), ``"als"``, ``"descent"`` (on A and B with a safe step), ``"auto"`` (the cheapest
            by a cost model), or ``"fastest"`` (the same, this machine's rates measured first).
        ridge: λ ≥ 0.
        accuracy: Share of the energy of AB that an iterative method may miss, in (0, 1); None: 1e-7.
        assurance: The certificate: ``"auto"`` (deterministic where that is cheap, else with probability 1 − 1e-9),
            ``"strict"`` (deterministic at any cost) or ``"none"``. None: ``"auto"``.
        steps: At most so many steps of ``"als"`` or ``"descent"``; None: 2000.
        seed: Of whatever is random in a method.

    Returns:
        The factors in the precision of X, the singular values of AB, and the certificate. ``missed`` says in words
        where the factors, by their measured error, do not keep what ``rank``, ``tolerance`` or ``energy`` asked for.

    Raises:
        OptionError: An option is out of range or has no effect, or not exactly one of rank, tolerance and energy is
            given.
        DataError: The matrix is empty, not real, or not finite.

    Example:
        >>> import assay, torch
        >>> X = torch.outer(torch.arange(1.0, 7.0), torch.arange(1.0, 5.0))
        >>> best = assay.factorize(X, 1)
        >>> best.A.shape, best.B.shape, best.certificate.certified
        (torch.Size([6, 1]), torch.Size([1, 4]), True)
        >>> torch.allclose(best.product, X)
        True

    Reference:
        Eckart & Young, *The approximation of one matrix by another of lower rank*, Psychometrika 1 (1936);
        Mirsky, *Symmetric gauge functions and unitarily invariant norms*, Quarterly Journal of Mathematics 11 (1960).
    """
    started = time.perf_counter()
    _check_options(method, ridge, accuracy, assurance, steps)
    given = as_matrix(X)
    rule = rank_rule(rank, tolerance, energy, noise, given.shape)
    if given.local_rows != given.shape[0] and method in {"exact", "single-pass", *ITERATIVE}:
        raise OptionError("method", expected="gram or krylov for rows shared among processes", got=repr(method))
    if method == "single-pass" or not given.replayable:
        if accuracy is not None:
            raise UnusedOptionError("accuracy", reason="a single pass over the rows is as good as it is")
        if assurance == "strict":
            raise UnusedOptionError("assurance", reason="a single pass over the rows gives no bounds")
        return _factorize_in_one_pass(given, rule, method=method, ridge=ridge, seed=seed, started=started)
    accuracy, assurance = accuracy or ACCURACY, assurance or "auto"
    # Where neither rank nor certificate depends on ‖X‖², it need not be exact.
    roughly = rule.rank is not None and assurance == "none" and method not in ITERATIVE
    matrix, total = measure_energy(given, roughly=roughly)
    scale = matrix.factor if isinstance(matrix, Scaled) and matrix is not given else 1.0
    flipped = matrix.in_memory and matrix.shape[0] < matrix.shape[1]
    if flipped:
        matrix = matrix.transposed()
    guess = rule.rank or min(50, *matrix.shape)
    costs = predict_seconds(matrix, guess, rates=measure_rates() if method == "fastest" else None)
    chosen = next(iter(costs)) if method in {"auto", "fastest"} else method
    if rule.needs_whole_spectrum and chosen == "krylov":  # the others find every singular value
        chosen = next((name for name in costs if name != "krylov"), "")
        if not chosen:
            expected = f"a value: more than {GRAM_LIMIT} columns have no affordable median"
            raise OptionError("noise", expected=expected, got="none")
    task = FactorizationTask(
        rule, energy=total, ridge=ridge * scale, accuracy=accuracy, steps=steps or STEPS, seed=seed,
        certify=assurance != "none",
    )  # fmt: skip
    solution, certificate = _solve(matrix, task, chosen, assurance=assurance, roughly=roughly)
    missed = _shortfall(solution, certificate, task, given.dtype)
    if missed and chosen != "exact" and fits_exactly(matrix):
        chosen = "exact"
        solution, certificate = _solve(matrix, task, chosen, assurance=assurance, roughly=roughly)
        missed = _shortfall(solution, certificate, task, given.dtype)
    if missed and assurance != "none":
        certificate = certificate.model_copy(update={"certified": False, "reason": missed})
    if flipped != given.stored_transposed:
        solution = replace(solution, A=solution.B.T, B=solution.A.T)
    if scale != 1:  # a copy of A may be most of the memory in use
        root = math.sqrt(scale)
        solution = replace(solution, A=solution.A / root, B=solution.B / root)
    return Factorization(
        A=solution.A.to(given.dtype),
        B=solution.B.to(given.dtype),
        singular_values=solution.sigma / scale,
        certificate=certificate if scale == 1 else _rescaled(certificate, scale),
        method=chosen,
        rule=str(rule),
        seconds=time.perf_counter() - started,
        passes=solution.passes,
        spectrum=solution.spectrum / scale,
        predicted_seconds=costs,
        history=tuple(value / scale / scale for value in solution.history),
        missed=missed,
    )


def _solve(
    matrix: Matrix, task: FactorizationTask, method: str, *, assurance: Assurance, roughly: bool
) -> tuple[Solution, Certificate]:
    """``roughly``: the energy of the task is not exact."""
    solution = SOLVERS[method](matrix, task)
    a, b = solution.A, solution.B
    if assurance == "auto" and a.shape[1] > LARGEST_CERTIFIED:
        norms = float(gram_of(a, matrix).trace()) + float(b.double().square().sum())
        error = matrix.squared_error(a, b) + task.ridge * norms
        reason = f"to enclose the optimum of more than {LARGEST_CERTIFIED:,} columns takes assurance strict"
        return solution, no_certificate(error, energy=task.energy, ridge=task.ridge, reason=reason)
    if assurance != "none":
        certificate = certify_factors(
            matrix, a, b, space=solution.space, gram=solution.gram, energy=task.energy,
            ridge=task.ridge, assurance=assurance, seed=task.seed,
        )  # fmt: skip
        return solution, certificate
    total, captured = task.energy, float(solution.sigma.square().sum())
    if roughly and total - captured < _CANCELS * total:
        total = matrix.squared_norm()
    estimate = max(0.0, total - captured) if solution.space else solution.history[-1]
    return solution, no_certificate(estimate, energy=total, ridge=task.ridge, reason="none was asked for")


def _shortfall(solution: Solution, certificate: Certificate, task: FactorizationTask, dtype: torch.dtype) -> str:
    """What the rule for the rank asked for and the factors lack, by their error as measured; "" for nothing.

    A ridge shrinks what the rank was chosen by, so there the singular values of X count.
    """
    rank = solution.A.shape[1]
    measured = task.certify and not task.ridge
    captured = float((solution.spectrum[:rank] if task.ridge else solution.sigma).square().sum())
    left = certificate.error if measured else certificate.energy - captured
    rounding = 4 * math.sqrt(rank) * torch.finfo(dtype).eps
    resolved = 1e-14 * math.sqrt(rank) if measured else math.sqrt(RESOLUTION[torch.float64])
    return task.rule.shortfall(rank, left, energy=certificate.energy, rounding=rounding, resolved=resolved)


def _factorize_in_one_pass(
    matrix: Matrix, rule: RankRule, *, method: str, ridge: float, seed: int, started: float
) -> Factorization:
    if method not in {"auto", "fastest", "single-pass"}:
        got = f"{method!r} for an iterator, which can be read once only"
        raise OptionError("method", expected="'single-pass' (or hand in a function that returns an iterator)", got=got)
    if rule.rank is None:
        raise OptionError("rank", expected="a number, for a single pass", got=str(rule))
    drawn = sketch(matrix, rule.rank, seed=seed)
    rank = rule.rank
    if rank > drawn.rows:
        raise OptionError("rank", expected=f"a whole number in 1..{drawn.rows}, the rows that there are", got=rank)
    sigma, right = drawn.sigma[:rank], drawn.right[:, :rank]
    a, b = split(drawn.left[:, :rank], sigma, right, ridge=ridge, dtype=matrix.dtype)
    if matrix.stored_transposed:
        a, b = b.T, a.T
    captured = (sigma - ridge).clamp_min(0)
    estimate = max(0.0, drawn.energy - float(captured.square().sum()))
    reason = "one pass over the rows measures neither the error nor the spectrum; read them twice for a certificate"
    return Factorization(
        A=a,
        B=b,
        singular_values=captured,
        certificate=no_certificate(estimate, energy=drawn.energy, ridge=ridge, reason=reason),
        method="single-pass",
        rule=str(rule),
        seconds=time.perf_counter() - started,
        passes=1,
        spectrum=sigma,
    )


def _rescaled(certificate: Certificate, scale: float) -> Certificate:
    """From the units of c·X back to those of X; where a square leaves the range of float64 it becomes 0 or infinite."""
    squares = ("energy", "error", "error_low", "error_high", "optimum_low", "optimum_high", "gap_high")
    changes: dict[str, object] = {name: getattr(certificate, name) / scale / scale for name in squares}
    for name in ("singular_low", "singular_high"):
        changes[name] = tuple(value / scale for value in getattr(certificate, name))
    return certificate.model_copy(update={**changes, "ridge": certificate.ridge / scale})


def _check_options(method: str, ridge: float, accuracy: float | None, assurance: str | None, steps: int | None) -> None:
    if method not in METHODS:
        raise OptionError("method", expected=f"one of {', '.join(METHODS)}", got=repr(method))
    if not (ridge >= 0 and math.isfinite(ridge)):
        raise OptionError("ridge", expected="a number of at least 0", got=ridge)
    if accuracy is not None and not 0 < accuracy < 1:
        raise OptionError("accuracy", expected="a share in (0, 1)", got=accuracy)
    if assurance is not None and assurance not in ASSURANCES:
        raise OptionError("assurance", expected=f"one of {', '.join(ASSURANCES)}", got=repr(assurance))
    if steps is not None and method not in ITERATIVE:
        raise UnusedOptionError("steps", reason=f"only {' and '.join(ITERATIVE)} go by steps, not method {method!r}")
    if steps is not None and not (isinstance(steps, int) and steps >= 1):
        raise OptionError("steps", expected="a whole number of at least 1", got=steps)
