"""A whole appliance whose store is replaced by an older one, or is gone: it does not serve, and says why."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, PATIENCE_S, Appliance, running_appliance, until

EX_CONFIG_OF_COMMAND = 3


def hsmsigner(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hsmsigner", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def findings(appliance: Appliance) -> dict[str, dict[str, str]]:
    done = hsmsigner("doctor", "--state", str(appliance.state), "--json")
    return {finding["check"]: finding for finding in json.loads(done.stdout)}


def sign(appliance: Appliance, count: int) -> None:
    with appliance.client() as client:
        for number in range(count):
            client.sign(KEY, b"pay %d" % number)


def serves_never(appliance: Appliance, arguments: Sequence[str] = ()) -> str:
    """Launch, see that it ends by itself with a fault of configuration and was never healthy; its log."""
    appliance.log_file.unlink(missing_ok=True)
    process = appliance.launch(arguments)
    until(lambda: process.poll() is not None or appliance.is_healthy(), "it ends")
    assert process.wait(PATIENCE_S) == EX_CONFIG_OF_COMMAND, "it served a log that the token does not know"
    return appliance.log_file.read_text()


@pytest.mark.timeout(240)
def test_a_store_that_was_rolled_back_is_refused_explained_and_accepted_only_with_a_reason(tmp_path: Path) -> None:
    older = tmp_path / "older.sqlite3"
    with running_appliance(tmp_path) as appliance:
        sign(appliance, 2)
        assert appliance.stop() == 0
        shutil.copy(appliance.database, older)
        appliance.start()
        sign(appliance, 5)
        assert appliance.stop() == 0
        lost = len(read_log(appliance.database)) - len(read_log(older))
        assert lost > 5
        shutil.copy(older, appliance.database)

        said = serves_never(appliance)

        assert "--accept-rollback" in said
        assert len(read_log(appliance.database)) == len(read_log(older)) + 1, "more than its start was recorded"
        finding = findings(appliance)["rollback"]
        assert finding["level"] == "FAULT"
        assert "the token remembers" in finding["message"]
        assert "--accept-rollback" in finding["way_out"]
        assert hsmsigner("serve", "--state", str(appliance.state), "--accept-rollback", " ").returncode == 2

        appliance.launch(["--accept-rollback", "restored from backup, ticket 42"])
        appliance.wait_until_serving()
        sign(appliance, 1)
        assert appliance.stop() == 0
        (accepted,) = [record for record in read_log(appliance.database) if record["type"] == "log.rollback_accepted"]
        assert accepted["reason"] == "restored from backup, ticket 42"
        assert findings(appliance)["rollback"]["level"] == "OK"

        appliance.start()
        sign(appliance, 1)
    check_invariants(appliance.database)


@pytest.mark.timeout(120)
def test_a_store_that_was_deleted_while_stopped_is_missed_and_can_be_put_back(tmp_path: Path) -> None:
    with running_appliance(tmp_path) as appliance:
        sign(appliance, 2)
        assert appliance.stop() == 0
        kept = appliance.database.rename(tmp_path / "kept.sqlite3")

        said = serves_never(appliance)

        assert "the token remembers" in said
        left = sorted(path.name for path in appliance.state.glob("store.sqlite3*"))
        assert left == ["store.sqlite3"], "a WAL would be applied to the store that is put back"
        kept.replace(appliance.database)
        appliance.start()
        sign(appliance, 1)
    check_invariants(appliance.database)
