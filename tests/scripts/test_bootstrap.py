"""scripts/bootstrap touches no environment but this checkout's own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_an_environment_behind_a_link_is_left_as_it_is(tmp_path: Path) -> None:
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    (elsewhere / "bin").mkdir(parents=True)
    for name in ("scripts/bootstrap", "requirements/dev.txt", "pyproject.toml"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, checkout / name)
    (checkout / ".venv").symlink_to(elsewhere)

    done = subprocess.run([checkout / "scripts/bootstrap"], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert f".venv is a link to {elsewhere}" in done.stderr
    assert (elsewhere / "bin").is_dir()
