from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hsmsigner.provision import initialise_state


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def state(tmp_path: Path, free_port: int) -> Path:
    """A fresh appliance that nobody runs."""
    folder = tmp_path / "appliance"
    initialise_state(folder, now=datetime.now(UTC), listen=f"127.0.0.1:{free_port}")
    return folder
