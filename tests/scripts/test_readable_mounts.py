"""scripts/readable-mounts in a checkout that is its owner's alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MOUNTED = ("docker/demo/client.py", "docker/secrets/development.pin", "demo/pacs009.xml")


def test_what_compose_mounts_from_a_private_checkout_can_be_read_by_the_containers_user(tmp_path: Path) -> None:
    for name in (*MOUNTED, "scripts/readable-mounts"):
        copy = tmp_path / name
        copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
        copy.chmod(0o700 if copy.parent.name == "scripts" else 0o600)

    subprocess.run([tmp_path / "scripts" / "readable-mounts"], check=True)

    assert {name: (tmp_path / name).stat().st_mode & 0o777 for name in MOUNTED} == dict.fromkeys(MOUNTED, 0o644)
    assert (tmp_path / "docker" / "demo").stat().st_mode & 0o005 == 0o005
