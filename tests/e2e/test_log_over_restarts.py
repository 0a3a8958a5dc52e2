"""A log over restarts: a checkpoint at the end, one after kill -9, and its name for ever."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints.notes import check_checkpoints, checkpoints, records
from tests.e2e.appliance import KEY, PATIENCE_S, Appliance, running_appliance, until


def vkeys(appliance: Appliance) -> list[str]:
    with appliance.client("auditor") as client:
        return list(client.get_checkpoint().vkeys)


def covered(appliance: Appliance) -> int:
    return max((size for size, _, note in checkpoints(appliance.database) if note), default=0)


def test_an_orderly_stop_leaves_a_checkpoint_of_everything(tmp_path: Path) -> None:
    seldom = {"checkpoint_interval_s": 3600.0, "checkpoint_records": 1_000_000}
    with running_appliance(tmp_path, audit=seldom) as appliance:
        until(lambda: covered(appliance) > 0, "the first checkpoint")
        keys = vkeys(appliance)
        with appliance.client() as client:
            for number in range(5):
                client.sign(KEY, b"pay %d" % number)
        before = covered(appliance)

        assert appliance.stop() == 0

        assert before < covered(appliance) == len(records(appliance.database))
        check_checkpoints(appliance.database, keys)
        appliance.start()
        # The start is a record, and the checkpoint over it does not wait for the interval.
        until(lambda: covered(appliance) == len(records(appliance.database)), "a checkpoint after the start")


def test_after_kill_9_the_checkpoints_go_on_without_a_contradiction(tmp_path: Path) -> None:
    often = {"checkpoint_interval_s": 0.1, "checkpoint_records": 5}
    with running_appliance(tmp_path, audit=often) as appliance:
        until(lambda: covered(appliance) > 0, "the first checkpoint")
        keys = vkeys(appliance)
        for role in ("frontend", "token-worker", "frontend"):
            with appliance.client() as client:
                for number in range(30):
                    client.sign(KEY, b"pay %d" % number)
            appliance.kill(role)
            appliance.wait_until_serving()
        until(lambda: covered(appliance) == len(records(appliance.database)), "a checkpoint of everything")

        assert len(check_checkpoints(appliance.database, keys)) > 3
        assert vkeys(appliance) == keys


def test_a_log_that_was_given_another_name_is_refused_at_start(tmp_path: Path) -> None:
    with running_appliance(tmp_path, keys=()) as appliance:
        until(lambda: covered(appliance) > 0, "the first checkpoint")
        appliance.stop()
        appliance.configure(audit={"origin": "dev.hsmsigner/another"})

        process = appliance.launch()

        assert process.wait(PATIENCE_S) != 0
        assert "a log never changes its name" in appliance.log_file.read_text()
