from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.provision import initialise_state
from tests.e2e import appliance


@pytest.fixture
def free_port() -> int:
    return appliance.free_port()


@pytest.fixture
def state(tmp_path: Path, free_port: int) -> Path:
    """A fresh appliance that nobody runs."""
    folder = tmp_path / "appliance"
    initialise_state(folder, now=datetime.now(UTC), listen=f"127.0.0.1:{free_port}")
    return folder
