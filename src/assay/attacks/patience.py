"""When to stop attacking: the rule by which an adaptive attack ends."""

from __future__ import annotations

from dataclasses import dataclass

CONFIDENCE = 0.95
ROUNDS = 3  # without success: by the rule of three, −ln 0.05 ≈ 3, the next breaks at most one sample


@dataclass(eq=False)
class Patience:
    """Counts attempts, one sample attacked by one method, since the last that broke anything.

    After m attempts in a row without success the chance that the next one succeeds is, with 95 % confidence, at most
    1 − 0.05^(1/m) (the exact binomial bound for no success in m). Attempts are made nearest to the boundary first, so
    the rest are no easier. The attack ends when this bound times the samples still standing, the most that one more
    method is expected to break, is at most ``tolerance`` of all ``n`` samples; or, where that is less than one sample,
    after three attempts on every sample that stands.
    """

    tolerance: float
    n: int
    failures: int = 0

    def note(self, *, attempts: int, broken: int) -> None:
        """A block of attempts was made; any success starts the count anew."""
        self.failures = 0 if broken else self.failures + attempts

    def bound(self) -> float:
        """The 95 % upper bound on the chance of the next attempt."""
        return 1.0 if self.failures == 0 else float(1.0 - (1.0 - CONFIDENCE) ** (1.0 / self.failures))

    def exhausted(self, standing: int) -> bool:
        """Whether one more method is expected to break too few of the samples ``standing`` to be worth its cost."""
        return self.bound() * standing <= self.tolerance * self.n or self.failures >= ROUNDS * standing
