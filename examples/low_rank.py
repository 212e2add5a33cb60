"""The best factorisation of a matrix, the proof of it, and why gradient descent may find another pair of factors.

python examples/low_rank.py
"""

import torch

import assay
from assay.lowrank import apply_gauge, same_solution, sharpness_of_scaling

torch.manual_seed(0)
X = torch.randn(60, 5) @ torch.randn(5, 40) + 0.1 * torch.randn(60, 40)
found = assay.factorize(X, 5)
print(f"rank 5 misses {found.error:.4f}; nothing of that rank misses less than {found.certificate.optimum_low:.4f}")

other = apply_gauge(found.A, found.B, torch.randn(5, 5))
print("other factors, same product:", same_solution(found, other).verdict)
for c in (1, 2, 4):
    print(f"(cA, B/c) with c = {c}: sharpness {sharpness_of_scaling(float(found.singular_values[0]), c):.1f}")
