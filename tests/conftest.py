"""For all tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _usual_recursion_limit() -> Iterator[None]:
    """py_ecc, which the Ethereum verifiers bring along, raises the limit beyond what the C stack holds."""
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(1000)
