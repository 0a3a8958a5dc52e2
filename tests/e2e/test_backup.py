"""Backup of a whole appliance under load, and its restore: what was lost is said, refused, and accepted by hand."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hsmsigner.client import SigningClientError
from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, running_appliance, until


def hsmsigner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hsmsigner", *arguments], capture_output=True, text=True, check=False, timeout=90
    )


@pytest.mark.timeout(300)
def test_a_backup_under_load_is_restored_and_the_loss_is_accepted_by_hand(tmp_path: Path) -> None:
    taken, is_over, signed = tmp_path / "backup.tar", threading.Event(), 0

    def load() -> None:
        nonlocal signed
        with appliance.client() as client:
            while not is_over.is_set():
                client.sign(KEY, b"pay %d" % signed)
                signed += 1

    with running_appliance(tmp_path) as appliance:
        state = str(appliance.state)
        worker = threading.Thread(target=load)
        worker.start()
        try:
            until(lambda: signed > 20, "there is a load")
            done = hsmsigner("backup", "--state", state, "--out", str(taken), "--json")
            after = signed
            until(lambda: signed > after + 20, "signing goes on")
        finally:
            is_over.set()
            worker.join()
        assert done.returncode == 0, done.stderr
        size = json.loads(done.stdout)["size"]
        assert hsmsigner("restore", str(taken), "--state", state, "--force").returncode == 3
        assert appliance.stop() == 0
        lost = len(read_log(appliance.database)) - size
        assert lost > 20

        assert "--force" in hsmsigner("restore", str(taken), "--state", state).stderr
        restored = hsmsigner("restore", str(taken), "--state", state, "--force")
        assert restored.returncode == 0, restored.stderr
        for words in ("The next start is refused", "--accept-rollback", "quotas have forgotten", "before-restore"):
            assert words in restored.stdout
        assert len(read_log(appliance.database)) == size
        appliance.launch()
        assert appliance.process is not None
        assert appliance.process.wait(60) == 3

        appliance.launch(["--accept-rollback", "disk lost"])
        appliance.wait_until_serving()
        with appliance.client() as client:
            client.sign(KEY, b"after the restore")
    check_invariants(appliance.database)
    types = [record["type"] for record in read_log(appliance.database)]
    assert types.count("log.rollback_accepted") == 1
    assert types.index("log.rollback_accepted") < types.index("sign.authorized", size)


@pytest.mark.timeout(120)
def test_a_restore_of_the_newest_state_is_not_refused(tmp_path: Path) -> None:
    with running_appliance(tmp_path) as appliance:
        state = str(appliance.state)
        with appliance.client() as client:
            client.sign(KEY, b"pay")
        assert appliance.stop() == 0
        assert hsmsigner("backup", "--state", state, "--out", str(tmp_path / "backup")).returncode == 0
        restored = hsmsigner("restore", str(tmp_path / "backup"), "--state", state, "--force", "--json")
        assert json.loads(restored.stdout)["start_is_refused"] is False
        appliance.start()
        with appliance.client() as client, pytest.raises(SigningClientError):
            client.sign("keys/settlement-us", b"there is no such key")
    check_invariants(appliance.database)
