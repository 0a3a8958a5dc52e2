"""Fixtures: a token and its worker for one test or for one module, and tasks to sign."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.softhsm import SoftHsm, Worker


@pytest.fixture
def hsm(tmp_path: Path) -> SoftHsm:
    """A token of this test's own."""
    return SoftHsm.create(tmp_path)


@pytest.fixture
def worker(hsm: SoftHsm) -> Iterator[Worker]:
    """The worker of `hsm`, ready."""
    with hsm.start_worker() as running:
        yield running


@pytest.fixture(scope="module")
def shared_hsm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoftHsm]:
    """A token with a running worker, for all tests of a module that do no harm to it."""
    hsm = SoftHsm.create(tmp_path_factory.mktemp("state"))
    with hsm.start_worker():
        yield hsm
