"""Programs that nobody here wrote: Debian's torchwood, fetched once by scripts/torchwood."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def torchwood() -> Path:
    """Folder of litewitness, witnessctl and spicy-torchwood; skips where they cannot be had."""
    fetched = subprocess.run([ROOT / "scripts" / "torchwood"], capture_output=True, text=True, check=False)
    if fetched.returncode:
        last = (fetched.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"Debian's torchwood cannot be had here: {last}")
    return Path(fetched.stdout.strip())
