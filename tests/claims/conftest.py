"""Fixtures of the claims.

tiny      settings of the smallest budget; what claims share (a trained network) is kept for the whole session
examined  (id) -> result at the tiny budget, each claim measured once a session
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from assay.claims import Settings, find_claims
from assay.claims.run import examine
from assay.records.claims import ClaimResult


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(budget="tiny", folder=tmp_path_factory.mktemp("claims"))


@pytest.fixture(scope="session")
def examined(tiny: Settings) -> Callable[[str], ClaimResult]:
    return cache(lambda name: examine(find_claims([name])[0], tiny))
