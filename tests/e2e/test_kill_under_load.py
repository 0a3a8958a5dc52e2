"""P2-P5 with real processes: kill -9 of any of them under load loses no released signature and breaks no quota."""

from __future__ import annotations

import hashlib
import threading
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

import pytest

from hsmsigner.client import QuotaExceeded, Signature, SigningClientError
from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, Appliance, running_appliance, until

KILLS = 3
THREADS = 6


@dataclass
class Load:
    """Signs from many threads until told to stop; keeps what it was given, by request id."""

    appliance: Appliance
    released: dict[str, Signature] = field(default_factory=dict)
    failures: list[SigningClientError] = field(default_factory=list)
    refused: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._client = self.appliance.client()
        self._threads = [threading.Thread(target=self._sign_on) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _sign_on(self) -> None:
        while not self._stop.is_set():
            request_id = str(uuid.uuid4())
            try:
                signature = self._client.sign(KEY, request_id.encode(), request_id=request_id, timeout_s=60.0)
            except QuotaExceeded:
                self.refused += 1
                self._stop.wait(0.01)
            except SigningClientError as error:
                self.failures.append(error)
            else:
                self.released[request_id] = signature


def check_log(appliance: Appliance, load: Load) -> None:
    """Every released signature has its record, and the record is of that very signature."""
    records = read_log(appliance.database)
    completed = {str(record["request_id"]): record for record in records if record["type"] == "sign.completed"}
    for request_id, signature in load.released.items():
        assert completed[request_id]["signature_sha256"] == hashlib.sha256(signature.signature).hexdigest()
        assert completed[request_id]["sequence"] == signature.audit_sequence
    check_invariants(appliance.database)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("role", ["frontend", "token-worker", "supervisor"])
def test_kill_9_under_load_loses_no_record_and_a_retry_gives_the_same_signature(tmp_path: Path, role: str) -> None:
    with running_appliance(tmp_path) as appliance:
        with Load(appliance) as load:
            for _ in range(KILLS):
                before = len(load.released)
                until(lambda: len(load.released) > before + 50, "signatures flow")  # noqa: B023 - called at once
                appliance.kill(role)
                if role == "supervisor":
                    assert appliance.process is not None
                    appliance.process.wait()
                    # Its children die with it, and the new one waits for nobody.
                    appliance.launch()
            before = len(load.released)
            until(lambda: len(load.released) > before + 50, "signatures flow again")

        with appliance.client() as client:
            for request_id, signature in list(load.released.items())[-20:]:
                assert client.sign(KEY, request_id.encode(), request_id=request_id) == signature
        assert load.failures == []
    check_log(appliance, load)


@pytest.mark.timeout(180)
def test_no_window_holds_more_than_the_quota_across_kills(tmp_path: Path) -> None:
    quotas = "[{id: burst, count: 40, per: 2s, by: [principal]}, {id: long, count: 300, per: 1h}]"
    with running_appliance(tmp_path, quotas=quotas) as appliance, Load(appliance) as load:
        for role in ("frontend", "token-worker", "frontend", "token-worker"):
            before = len(load.released)
            until(lambda: len(load.released) > before + 30, "signatures flow")  # noqa: B023 - called at once
            appliance.kill(role)
        until(lambda: load.refused > 5, "the quota refuses")

    records = read_log(appliance.database)
    # Provably never asked of the token, so given back: those are free to be authorized again.
    returned = {record["authorized"] for record in records if record.get("debit_returned")}
    authorized = [
        record
        for record in records
        if record["type"] == "sign.authorized" and record["debits"] and record["sequence"] not in returned
    ]
    instants = [_microseconds(str(record["time"])) for record in authorized]
    for index, start in enumerate(instants):
        assert sum(start <= instant < start + 2_000_000 for instant in instants[index:]) <= 40
    assert len(authorized) <= 300
    check_log(appliance, load)


def _microseconds(time: str) -> int:
    return round(datetime.fromisoformat(time).timestamp() * 1_000_000)
