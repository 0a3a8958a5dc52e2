"""The life of keys on a whole appliance with a real token: kills while keys are rotated, and a key made by others."""

from __future__ import annotations

import os
import sqlite3
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from hsmsigner.client import SigningClientError
from hsmsigner.client.rotation import RotationPolicy
from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, Appliance, running_appliance, until
from tests.e2e.test_kill_under_load import Load, check_log
from tests.token.other_client import ask_token_of

KILLS = ("frontend", "token-worker", "supervisor", "frontend")


def rows(appliance: Appliance, query: str) -> list[Any]:
    with sqlite3.connect(f"file:{appliance.database}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def ask_token(appliance: Appliance, do: str, **orders: Any) -> Any:
    """Ask the appliance's token while no worker has it."""
    section = yaml.safe_load((appliance.state / "hsmsigner.yaml").read_text())["token"]
    section["environment"] = {"SOFTHSM2_CONF": str(appliance.state / "token" / "softhsm2.conf")}
    return ask_token_of(section, (appliance.state / "token" / "user.pin").read_text().strip(), do, **orders)


@pytest.mark.timeout(240)
def test_kills_while_keys_are_rotated_under_load_leave_no_orphan_and_no_open_rotation(tmp_path: Path) -> None:
    is_over = threading.Event()
    outcomes: list[str] = []

    def rotate_on(appliance: Appliance) -> None:
        with appliance.client("operator") as operator:
            while not is_over.is_set():
                try:
                    operator.rotate_key(KEY, reason="again", overlap=timedelta(seconds=1))
                    outcomes.append("rotated")
                except SigningClientError as error:
                    outcomes.append(error.reason)
                is_over.wait(0.05)

    with running_appliance(tmp_path) as appliance:
        with appliance.client("operator") as operator:
            operator.set_rotation_policy(KEY, RotationPolicy(max_signatures=200), reason="test")
        rotating = threading.Thread(target=rotate_on, args=(appliance,))
        with Load(appliance) as load:
            rotating.start()
            for role in KILLS:
                before, rotated = len(load.released), outcomes.count("rotated")
                until(
                    lambda: len(load.released) > before + 30 and outcomes.count("rotated") > rotated + 1,  # noqa: B023
                    "signatures and rotations go on",
                    60,
                )
                appliance.kill(role)
                if role == "supervisor":
                    assert appliance.process is not None
                    appliance.process.wait()
                    appliance.launch()
            is_over.set()
            rotating.join()
            # What a kill interrupted is finished by the scheduler, without anybody asking for it.
            open_ones = "SELECT COUNT(*) FROM rotations WHERE finish_time IS NULL"
            until(lambda: rows(appliance, open_ones) == [(0,)], "the last rotation is finished", 60)
        assert load.failures == []
        assert appliance.stop() == 0
        check_log(appliance, load)

        versions = rows(appliance, "SELECT cka_id, public_key IS NULL FROM key_versions")
        assert not any(is_pending for _, is_pending in versions)
        assert ask_token(appliance, "private_keys") == sorted(cka_id.hex() for cka_id, _ in versions)
        (states,) = zip(*rows(appliance, "SELECT state FROM key_versions ORDER BY number"), strict=True)
        assert states[-1] == "ACTIVE"
        finished = rows(appliance, "SELECT failure FROM rotations")
        assert {failure for (failure,) in finished} == {""}
        check_invariants(appliance.database)


def test_a_key_that_could_have_left_the_token_is_adopted_only_when_told_and_always_says_so(tmp_path: Path) -> None:
    with running_appliance(tmp_path, keys=()) as appliance:
        appliance.stop()
        cka_id = os.urandom(8)
        ask_token(appliance, "plant", cka_id=cka_id.hex(), extractable=True)
        appliance.start()

        with appliance.client("operator") as operator, appliance.client() as engine:
            ceremony: dict[str, Any] = {"algorithm": "ECDSA_P256_SHA256", "cka_id": cka_id, "reason": "ceremony of May"}
            with pytest.raises(SigningClientError) as refused:
                operator.adopt_key_version(KEY, **ceremony)
            assert refused.value.reason == "KEY_NOT_PROTECTED"
            with pytest.raises(SigningClientError) as absent:
                operator.adopt_key_version(KEY, **(ceremony | {"cka_id": b"no such key"}))
            assert absent.value.reason == "KEY_NOT_ON_TOKEN"
            with pytest.raises(SigningClientError) as forbidden:
                engine.adopt_key_version(KEY, **ceremony)
            assert forbidden.value.reason == "KEY_NOT_FOUND_OR_FORBIDDEN"

            version = operator.adopt_key_version(KEY, **ceremony, allow_unprotected=True)

            assert (version.never_extractable, version.cka_id) == (False, cka_id)
            assert engine.sign(KEY, b"pay").origin == "ADOPTED"
            operator.rotate_key(KEY, reason="a key of our own")
            assert engine.sign(KEY, b"pay").origin == "GENERATED"
        kinds = [record["type"] for record in read_log(appliance.database)]
        assert kinds.count("key.adopted") == kinds.count("key.continuity") == 1
