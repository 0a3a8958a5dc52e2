"""For all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# By default an example may take 200 ms, and making ten of them a second; how fast it goes is a matter of the machine.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True)
def _usual_recursion_limit() -> Iterator[None]:
    """py_ecc, which the Ethereum verifiers bring along, raises the limit beyond what the C stack holds."""
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(1000)
