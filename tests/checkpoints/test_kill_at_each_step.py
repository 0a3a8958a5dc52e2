"""Kill -9 at each step of a checkpoint: what was begun is finished, and no two ever contradict."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builder import check_invariants, record_types
from tests.checkpoints.checkpoint_and_crash import KEY_STEPS, STEPS
from tests.checkpoints.notes import check_checkpoints, checkpoints, records

ROOT = Path(__file__).parents[2]


def checkpoint_and_crash(folder: Path, step: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.checkpoints.checkpoint_and_crash", str(folder), step],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("step", STEPS)
def test_a_checkpoint_that_was_killed_is_finished_as_it_was_begun(tmp_path: Path, step: str) -> None:
    database = tmp_path / "store.sqlite3"
    crashed = checkpoint_and_crash(tmp_path, step)
    assert crashed.returncode == -signal.SIGKILL, crashed.stderr
    begun = checkpoints(database)
    # What may have left is durable before: unless the tree was, the token was not asked.
    assert bool(begun) == (step not in (*KEY_STEPS, "inside the tree"))
    assert [note != "" for _, _, note in begun] == [step == "after the note"] * len(begun)

    finished = checkpoint_and_crash(tmp_path, "no step")

    assert finished.returncode == 0, finished.stderr
    sizes = check_checkpoints(database, finished.stdout.splitlines())
    assert sizes == [size for size, _, _ in begun] + [len(records(database))]
    assert checkpoints(database)[: len(begun)] == begun or step != "after the note"
    assert [(size, root) for size, root, _ in checkpoints(database)][: len(begun)] == [
        (size, root) for size, root, _ in begun
    ]
    # One key, however often its making was begun; one pair on the token.
    assert record_types(database).count("key.created") == 1
    assert len(list(tmp_path.glob("*.pem"))) == 1
    check_invariants(database)
