"""Kill -9 at each step of a rotation and of the destruction after it: finished at the next start, no orphans."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builder import check_invariants, read_log, record_types
from tests.lifecycle.rotate_and_crash import COMMITS, STEPS

ROOT = Path(__file__).parents[2]


def rotate_and_crash(folder: Path, step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.lifecycle.rotate_and_crash", str(folder), step],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_rotation_that_was_killed_is_finished_and_leaves_no_orphan(tmp_path: Path, step: str) -> None:
    crashed = rotate_and_crash(tmp_path, step)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr

    finished = rotate_and_crash(tmp_path, "no step")

    assert finished.returncode == 0, finished.stderr
    database = tmp_path / "store.sqlite3"
    with sqlite3.connect(database) as connection:
        rows = connection.execute("SELECT number, state, cka_id FROM key_versions ORDER BY number").fetchall()
        unfinished = connection.execute("SELECT COUNT(*) FROM rotations WHERE finish_time IS NULL").fetchone()
        statements = connection.execute("SELECT old_number, new_number FROM continuity_statements").fetchall()
    assert [(number, state) for number, state, _ in rows] == [(1, "DESTROYED"), (2, "ACTIVE")]
    assert (unfinished, statements) == ((0,), [(1, 2)])
    # The token has exactly what the store says it has.
    on_token = {path.stem for path in tmp_path.glob("*.pem")}
    assert on_token == {cka_id.hex() for _, state, cka_id in rows if state != "DESTROYED"}
    # Each step is recorded once, whenever it was that it took effect, and in order.
    types = record_types(database)
    assert [kind for kind in types if kind in COMMITS] == list(COMMITS)
    (created,) = (record for record in read_log(database) if record["type"] == "key.version_created")
    assert created["cka_id"] == rows[1][2].hex()
    check_invariants(database)
