"""Profiles: a short one for every run of the tests, a long one for ``benchmarks/reliability.py``."""

from __future__ import annotations

import collections
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

COUNTS: collections.Counter[str] = collections.Counter()

_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("short", max_examples=60, derandomize=True, database=None, **_COMMON)
settings.register_profile("long", max_examples=int(os.environ.get("EMOEDIT_FUZZ_EXAMPLES", "1000")), **_COMMON)
settings.load_profile(os.environ.get("EMOEDIT_FUZZ_PROFILE", "short"))


@pytest.fixture
def counted(request: pytest.FixtureRequest):
    """Counts what became of each input: ``counted("refused")``."""
    return lambda outcome: COUNTS.update([f"{request.node.name}: {outcome}"])


def pytest_sessionfinish() -> None:
    """The counts, for a report."""
    if path := os.environ.get("EMOEDIT_FUZZ_REPORT"):
        Path(path).write_text(json.dumps(COUNTS), "utf-8")
