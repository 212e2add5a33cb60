"""The surface f(A, B) = ‖X − AB‖²_F: proof that it is not convex, and a map of its critical points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from assay.arguments import checked
from assay.errors import DataError, OptionError
from assay.lowrank.factorization import factorize
from assay.lowrank.gauge import Factors
from assay.lowrank.matrix import Matrix, Scaled
from assay.lowrank.ranks import rank_rule
from assay.lowrank.sources import as_matrix, measure_energy
from assay.records.factorization import CriticalPoint, DescentPath, Landscape
from assay.runtime import generator


@dataclass(frozen=True, eq=False)
class Hessian:
    """∇²f at (A, B), acting on directions (U, V) of the same shapes; float64.

    With R = AB − X and the row-major vec of torch, K the commutation matrix:
    H_AA = 2(I_m ⊗ BBᵀ), H_BB = 2(AᵀA ⊗ I_n), H_AB = 2[A ⊗ B + (R ⊗ I_r)K_{n,r}];
    the quadratic form is 2‖UB + AV‖² + 4⟨R, UV⟩.
    """

    X: Tensor
    A: Tensor
    B: Tensor

    @property
    def residual(self) -> Tensor:
        return self.A @ self.B - self.X

    @property
    def size(self) -> int:
        return self.A.numel() + self.B.numel()

    def apply(self, U: Tensor, V: Tensor) -> Factors:
        """(H_AA U + H_AB V, H_BA U + H_BB V), without forming anything of size (mn, mn)."""
        change, r = U @ self.B + self.A @ V, self.residual
        return Factors(2 * (change @ self.B.T + r @ V.T), 2 * (self.A.T @ change + U.T @ r))

    def quadratic_form(self, U: Tensor, V: Tensor) -> float:
        """2‖UB + AV‖² + 4⟨R, UV⟩: the second derivative of f along (U, V)."""
        change = U @ self.B + self.A @ V
        return 2 * float(change.square().sum()) + 4 * float((self.residual * (U @ V)).sum())

    def blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """H_AA (mr, mr), H_AB (mr, rn), H_BB (rn, rn) by the Kronecker formulas."""
        (m, r), n = self.A.shape, self.B.shape[1]
        eye_m, eye_n, eye_r = (torch.eye(k, dtype=torch.float64) for k in (m, n, r))
        # row-major vec(V) (r, n) to vec(Vᵀ) (n, r)
        swap = torch.eye(r * n, dtype=torch.float64).reshape(r, n, r * n).transpose(0, 1).reshape(n * r, r * n)
        # (UB)·(AV) couples U[i,k] and V[l,j] by A[i,l]·B[k,j]
        mixed = torch.einsum("il,kj->iklj", self.A, self.B).reshape(m * r, r * n)
        cross = 2 * (mixed + torch.kron(self.residual, eye_r) @ swap)
        return 2 * torch.kron(eye_m, self.B @ self.B.T), cross, 2 * torch.kron(self.A.T @ self.A, eye_n)

    def matrix(self) -> Tensor:
        """The Hessian (r(m+n), r(m+n)), from its blocks."""
        aa, ab, bb = self.blocks()
        return torch.cat([torch.cat([aa, ab], 1), torch.cat([ab.T, bb], 1)])

    def extreme_eigenvalues(self, *, steps: int = 80, seed: int = 0) -> tuple[float, float]:
        """The smallest and the largest eigenvalue, by Lanczos with full reorthogonalisation on the operator."""
        vector = torch.randn(self.size, generator=generator(seed, 0x80), dtype=torch.float64)
        basis: list[Tensor] = []
        images: list[Tensor] = []
        for _ in range(min(steps, self.size)):
            for old in (*basis, *basis):
                vector = vector - old * (old @ vector)
            norm = float(torch.linalg.vector_norm(vector))
            if norm < 1e-12 * (float(torch.linalg.vector_norm(images[-1])) if images else 1.0):
                break
            basis.append(vector / norm)
            u, v = torch.split(basis[-1], [self.A.numel(), self.B.numel()])
            image = self.apply(u.reshape(self.A.shape), v.reshape(self.B.shape))
            vector = torch.cat([image.A.reshape(-1), image.B.reshape(-1)])
            images.append(vector)
        q, hq = torch.stack(basis, 1), torch.stack(images, 1)
        small = q.T @ hq
        values = torch.linalg.eigvalsh((small + small.T) / 2)
        return float(values[0]), float(values[-1])


def predict_spectrum(sigma: Tensor, *, shape: tuple[int, int], rank: int, chosen: Sequence[int]) -> Tensor:
    """All r(m+n) eigenvalues of the Hessian at the balanced critical point on the singular values ``chosen``, rising.

    With S the chosen, s of them, and p = min(m, n): for i, k in S 2(σ_i + σ_k) and 0 (the gauge, s² times); for i in
    S and j outside 2(σ_i ± σ_j); for i in S 2σ_i |m − n| times; and for each of the r − s empty columns ±2σ_j for j
    outside S, and zeros. ``sigma`` are all p singular values of X.
    """
    m, n = shape
    inside = [float(sigma[i]) for i in chosen]
    outside = [float(value) for j, value in enumerate(sigma) if j not in set(chosen)]
    s, empty = len(inside), rank - len(inside)
    values = [2 * (a + b) for a in inside for b in inside] + [0.0] * s * s
    values += [2 * (a + sign * b) for a in inside for b in outside for sign in (1, -1)]
    values += [2 * a for a in inside] * abs(m - n)
    values += [sign * 2 * b for b in outside for sign in (1, -1)] * empty
    values += [0.0] * (empty * (m + n - 2 * len(outside)))
    return torch.tensor(sorted(values), dtype=torch.float64)


def critical_point(left: Tensor, sigma: Tensor, right: Tensor, *, rank: int, chosen: Sequence[int]) -> Factors:
    """The balanced critical point A = U_S√Σ_S, B = √Σ_S V_Sᵀ, with r − s empty columns; U (m, p), V (n, p)."""
    a = torch.zeros(left.shape[0], rank, dtype=torch.float64)
    b = torch.zeros(rank, right.shape[0], dtype=torch.float64)
    for column, place in enumerate(chosen):
        root = sigma[place].sqrt()
        a[:, column], b[column] = left[:, place] * root, right[:, place] * root
    return Factors(a, b)


FORMED = 2000  # the largest r(m+n) for which the Hessian is formed
SMALL = 4_000_000  # entries up to which X is fully decomposed
LISTED = 24  # critical points at most


@checked
def measure_landscape(X: object, rank: int, *, seed: int = 0) -> Landscape:
    """Critical points, witness of non-convexity, spectrum of the Hessian, and the paths of three methods.

    The Hessian is formed and its computed eigenvalues set against the predicted ones where r(m+n) ≤ 2000; beyond that
    the extreme ones come from Lanczos on the operator. The critical points listed are the minimum, the saddles on the
    other leading subsets of singular values, and the origin. X of up to four million entries is fully decomposed;
    of a larger one only the leading singular values are used, and the predicted spectrum is left out.

    Raises :class:`OptionError` for a rank beyond 1..min(m, n), :class:`DataError` for an unusable matrix.
    """
    matrix, energy = _in_range(X)
    rank_rule(rank, None, None, None, matrix.shape)
    rows, columns = m, n = matrix.shape
    large = m * n > SMALL
    if large:
        m = n = min(m, n, 2 * rank + 5)  # diag(σ₁, …): the same landscape, in the coordinates of the singular vectors
        matrix = as_matrix(torch.diag(factorize(matrix, n, assurance="none", seed=seed).singular_values))
    dense = matrix.dense()
    left, sigma, right_t = torch.linalg.svd(dense, full_matrices=False)
    right = right_t.T
    if float(sigma[0]) == 0:
        raise DataError("X", expected="a matrix other than zero, for a landscape", got="zeros")
    rest = max(0.0, energy - float(sigma.square().sum())) if large else 0.0  # what the leading values leave out
    predicted = predict_spectrum(sigma, shape=(m, n), rank=rank, chosen=range(rank))
    best = critical_point(left, sigma, right, rank=rank, chosen=range(rank))
    hessian = Hessian(dense, best.A, best.B)
    computed = torch.linalg.eigvalsh(hessian.matrix()) if hessian.size <= FORMED and not large else torch.empty(0)
    difference = float((computed - predicted).abs().max()) if len(computed) else math.nan
    # beyond what can be formed the predicted spectrum has as many values as unknowns: too many to draw
    shown = tuple(predicted.tolist()) if len(predicted) <= FORMED and not large else ()
    minimum, mirrored, middle = find_witness(dense, best)
    points = [
        describe_critical_point(dense, left, sigma, right, rank=rank, chosen=chosen)
        for chosen in _subsets(len(sigma), rank)
    ]
    return Landscape(
        rows=rows,
        columns=columns,
        rank=rank,
        witness=(minimum + rest, mirrored + rest, middle + rest),
        sharpness=4 * float(sigma[0]),
        safe_step=1 / (2 * float(sigma[0])),
        predicted=shown,
        computed=tuple(computed.tolist()),
        largest_difference=difference,
        critical_points=tuple(point.model_copy(update={"loss": point.loss + rest}) for point in points),
        paths=draw_paths(float(sigma[0]), float(sigma[1:].square().sum()) + rest),
        leading=float(sigma[0]),
        tied=rank < len(sigma) and float(sigma[rank - 1] - sigma[rank]) <= 1e-9 * float(sigma[0]),
    )


def _in_range(X: object) -> tuple[Matrix, float]:
    """X as it is, not scaled, and ‖X‖². Raises :class:`DataError` where fourth powers of σ₁ leave the range."""
    given = as_matrix(X)
    matrix, energy = measure_energy(given)
    if isinstance(matrix, Scaled):
        energy = energy / matrix.factor / matrix.factor
        if not 1e-150 < energy < 1e150:
            expected = "entries whose squares stay in range, for a landscape: scale X"
            raise DataError("X", expected=expected, got=f"‖X‖² = {energy:.3g}")
    return given, energy


def find_witness(X: Tensor, best: Factors) -> tuple[float, float, float]:
    """(f(P), f(Q), f(½P + ½Q)) for P = (A, B) and Q = (−A, −B): both minimisers, their midpoint is the origin.

    f(P) = f(Q) < f(0) = ‖X‖² whenever X ≠ 0, which no convex function allows.
    """
    minimum = float((X - best.A @ best.B).square().sum())
    mirrored = float((X - (-best.A) @ (-best.B)).square().sum())
    return minimum, mirrored, float(X.square().sum())


def describe_critical_point(
    X: Tensor, left: Tensor, sigma: Tensor, right: Tensor, *, rank: int, chosen: tuple[int, ...]
) -> CriticalPoint:
    """Classify the balanced critical point on ``chosen`` by its most negative eigenvalue, predicted and computed."""
    predicted = predict_spectrum(sigma, shape=(len(X), X.shape[1]), rank=rank, chosen=chosen)
    point = critical_point(left, sigma, right, rank=rank, chosen=chosen)
    inside = torch.zeros_like(sigma, dtype=torch.bool)
    inside[list(chosen)] = True
    loss = float(sigma[~inside].square().sum())
    scale = float(sigma[0])
    lowest = float(predicted[0])
    kind = "strict saddle" if lowest < -1e-9 * scale else "degenerate"
    if loss <= float(sigma[rank:].square().sum()) + 1e-12 * float(sigma.square().sum()):
        kind = "global minimum"
    size = rank * sum(X.shape)
    computed = Hessian(X, point.A, point.B).extreme_eigenvalues()[0] if size <= 4 * FORMED else math.nan
    # around a minimum of full rank the gauge orbit has dimension r²; equal σ across the cut add a family of their own
    flat = int((predicted.abs() <= 1e-9 * scale).sum()) if kind == "global minimum" else 0
    return CriticalPoint(
        chosen=chosen, kind=kind, loss=loss, most_negative=lowest, computed=computed, gauge_dimension=flat
    )


def classify(X: object, A: Tensor, B: Tensor, *, tolerance: float = 1e-6) -> str:
    """What (A, B) is for f: ``not critical``, ``strict saddle``, ``global minimum`` or ``degenerate``.

    Critical means ‖∇f‖ ≤ tolerance·‖X‖_F·(‖A‖_F + ‖B‖_F + √‖X‖); every critical point that is no minimum is a strict
    saddle when X has rank of at least r (Baldi & Hornik 1989).
    """
    matrix, energy = _in_range(X)
    dense = matrix.dense()
    a, b = A.detach().cpu().double(), B.detach().cpu().double()
    if a.shape != (dense.shape[0], b.shape[0]) or b.shape[1] != dense.shape[1]:
        got = f"{tuple(a.shape)} and {tuple(b.shape)}"
        raise OptionError("A, B", expected=f"({dense.shape[0]}, r) and (r, {dense.shape[1]})", got=got)
    residual = a @ b - dense
    gradient_norm = math.sqrt(float((residual @ b.T).square().sum() + (a.T @ residual).square().sum()))
    size = math.sqrt(energy)
    parameter_size = float(torch.linalg.matrix_norm(a) + torch.linalg.matrix_norm(b)) + math.sqrt(size)
    if gradient_norm > tolerance * size * parameter_size:
        return "not critical"
    best = float(torch.linalg.svdvals(dense)[a.shape[1] :].square().sum())
    if float(residual.square().sum()) <= best + tolerance * energy:
        return "global minimum"
    lowest, _ = Hessian(dense, a, b).extreme_eigenvalues(steps=200)
    return "strict saddle" if lowest < -tolerance * size else "degenerate"


def draw_paths(sigma: float, rest: float, *, start: tuple[float, float] = (0.9, -0.75)) -> tuple[DescentPath, ...]:
    """Gradient descent, ALS and SVD on f(a, b) = (σ − ab)² + rest, in units where the minimum is at ab = σ.

    Descent starts near the ridge of the saddle, on the wrong side, with half the safe step; ALS from the same b; the
    SVD needs no path: it is at (√σ, √σ) at once.
    """
    root = math.sqrt(sigma)
    first = a, b = start[0] * root, start[1] * root
    steps = [first]
    rate = 0.25 / (2 * sigma)
    for _ in range(120):
        error = a * b - sigma
        a, b = a - rate * 2 * error * b, b - rate * 2 * error * a
        steps.append((a, b))
    second = (sigma / first[1], first[1])
    return (
        _path("gradient descent", steps, sigma, rest),
        _path("alternating least squares", [first, second, (second[0], sigma / second[0])], sigma, rest),
        _path("SVD", [(root, root)], sigma, rest),
    )


def _path(name: str, points: list[tuple[float, float]], sigma: float, rest: float) -> DescentPath:
    a, b = zip(*points, strict=True)
    return DescentPath(method=name, a=a, b=b, loss=tuple((sigma - x * y) ** 2 + rest for x, y in points))


def _subsets(p: int, rank: int) -> list[tuple[int, ...]]:
    """The minimum, the other subsets of the leading r + 3 singular values of size r, and the origin."""
    top = min(p, rank + 3)
    subsets = [tuple(range(rank))]
    # the saddles next to the minimum first: one singular value exchanged
    for out in range(rank - 1, -1, -1):
        subsets += [tuple(sorted({*range(rank), new} - {out})) for new in range(rank, top)]
    if top <= 8:
        subsets += [subset for subset in combinations(range(top), rank) if subset not in subsets]
    subsets += [tuple(range(rank - 1))] if rank > 1 else []
    return [*subsets[: LISTED - 1], ()]
