"""Signing without pause through automatic rotations: real processes, real token, a client that watches the keys.

HSMSIGNER_SOAK_ROTATIONS says through how many: 4 by default, 50 for the long run.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pytest
from cryptography.exceptions import InvalidSignature

from hsmsigner.client import SignerClient, SigningClientError
from hsmsigner.client.key_set import KeySet
from hsmsigner.client.rotation import RotationPolicy
from hsmsigner.pb import resources_pb2
from hsmsigner.verifier import verify_continuity
from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, Appliance, running_appliance, until
from tests.signing_tasks import P256, check_signature

ROTATIONS = int(os.environ.get("HSMSIGNER_SOAK_ROTATIONS", "4"))
THREADS = 4
# A version is named during its overlap only while that lasts surely: a request takes some time to be decided.
MARGIN = timedelta(seconds=4)


@dataclass
class WatchedLoad:
    """Signs from several threads; each signature is verified under the key set held when it comes."""

    appliance: Appliance
    verified: int = 0
    by_version: set[str] = field(default_factory=set)
    by_old_name: int = 0
    faults: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self._client = self.appliance.client()
        self._watching = self._client.watch_keys()
        self._keys = self._watching.__enter__()
        self._threads = [threading.Thread(target=self._sign_on) for _ in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._watching.__exit__(None, None, None)
        self._client.close()

    def _sign_on(self) -> None:
        for turn in range(10**9):
            if self._stop.is_set():
                return
            name = _rotated_out(self._keys.current) if turn % 10 == 0 else None
            message = uuid.uuid4().bytes
            try:
                signature = self._client.sign(name or KEY, message, timeout_s=30.0)
            except SigningClientError as error:
                self.faults.append(f"{name or KEY}: {error!r}")
                continue
            self._verify(self._keys.current, message, signature)
            with self._lock:
                self.verified += 1
                self.by_old_name += name is not None
                self.by_version.add(signature.name)

    def _verify(self, held: KeySet, message: bytes, signature: Any) -> None:
        key = held.get(signature.name)
        if key is None or (key.state == resources_pb2.KEY_STATE_PRE_ACTIVATION and not _is_due(key)):
            self.faults.append(f"{signature.name} signed and a watching client did not expect it")
            return
        try:
            check_signature(key.der, P256, message, signature.signature)
        except InvalidSignature:
            self.faults.append(f"a signature of {signature.name} does not verify")


def _rotated_out(held: KeySet) -> str | None:
    """A version that is not the primary any more and may still be named."""
    now = datetime.now(UTC) + MARGIN
    for name, key in held.public_keys.items():
        is_active = key.state == resources_pb2.KEY_STATE_ACTIVE and key.HasField("deactivate_time")
        if is_active and key.deactivate_time.ToDatetime(UTC) > now:
            return name
    return None


def _is_due(key: resources_pb2.PublicKey) -> bool:
    """A version whose announced time has come signs, maybe before the news of its new state has come."""
    return key.HasField("activate_time") and key.activate_time.ToDatetime(UTC) <= datetime.now(UTC)


def primary_number(client: SignerClient) -> int:
    return int(client.get_key(KEY).primary.name.rpartition("/")[2])


@pytest.mark.serial
@pytest.mark.timeout(120 + 15 * ROTATIONS)
def test_load_goes_on_through_automatic_rotations_and_every_signature_verifies_when_it_comes(tmp_path: Path) -> None:
    policy = RotationPolicy(max_signatures=300, publish_lead=timedelta(seconds=2), overlap=timedelta(seconds=7))
    with running_appliance(tmp_path) as appliance, appliance.client("operator") as operator:
        first = operator.get_public_key(KEY).pem
        operator.set_rotation_policy(KEY, policy, reason="soak")
        begun = time.monotonic()
        with WatchedLoad(appliance) as load:
            until(lambda: primary_number(operator) > ROTATIONS, "the rotations take place", 60 + 12.0 * ROTATIONS)
            before = load.verified
            until(lambda: load.verified > before + 100, "signatures flow after the last rotation")
        seconds = time.monotonic() - begun
        assert load.faults == []
        assert len(load.by_version) > ROTATIONS
        assert load.by_old_name > 0
        statements = [
            {
                "old_version": statement.old_version,
                "new_version": statement.new_version,
                "signed_by_old": statement.signed_by_old,
                "signed_by_new": statement.signed_by_new,
            }
            for statement in operator.list_continuity_statements(KEY)
        ]
        document = json.dumps({"key": KEY, "statements": statements}).encode()
        newest = operator.get_public_key(statements[-1]["new_version"]).pem
        chain = verify_continuity(document, first.encode(), newest.encode())
        assert len(chain.versions) == len(statements) + 1
        print(f"{load.verified} signatures by {len(load.by_version)} versions in {seconds:.0f} s")  # noqa: T201
    records = read_log(appliance.database)
    assert not [record for record in records if record["type"] in ("sign.denied", "sign.failed", "sign.interrupted")]
    check_invariants(appliance.database)
