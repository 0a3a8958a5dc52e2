"""P2, P3, P4: kill -9 at each step of the crash table, then a restart and a retry with the same request_id."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builder import check_invariants, fresh_id, record_types, usage_total
from tests.e2e.crash_at_step import STEPS

ROOT = Path(__file__).parents[2]


def sign_and_crash(folder: Path, step: str, request_id: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.e2e.crash_at_step", str(folder), step, request_id],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("step", STEPS)
def test_kill_at_each_step_releases_nothing_unrecorded_and_counts_once(tmp_path: Path, step: str) -> None:
    request_id = fresh_id()

    crashed = sign_and_crash(tmp_path, step, request_id)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    assert crashed.stdout == ""
    is_debited = step not in ("before commit A", "inside commit A")
    assert usage_total(tmp_path / "store.sqlite3", "burst") == is_debited

    retried = sign_and_crash(tmp_path, "no step", request_id)
    assert retried.returncode == 0, retried.stderr
    again = sign_and_crash(tmp_path, "no step", request_id)
    assert again.stdout == retried.stdout != ""
    assert usage_total(tmp_path / "store.sqlite3", "burst") == 1
    was_interrupted = is_debited and step != "after commit B"
    assert record_types(tmp_path / "store.sqlite3").count("sign.interrupted") == was_interrupted
    assert record_types(tmp_path / "store.sqlite3").count("sign.completed") == 1
    check_invariants(tmp_path / "store.sqlite3")
