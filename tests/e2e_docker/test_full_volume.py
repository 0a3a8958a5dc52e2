"""P9: a full data volume stops signing with a clear error; with space again it resumes by itself, nothing lost."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

import pytest

from hsmsigner.client import OutcomeUnknown, Signature, SignerClient, SigningClientError
from tests.builder import check_invariants, read_log
from tests.e2e.appliance import KEY, until
from tests.e2e_docker.project import StartAppliance

pytestmark = [pytest.mark.serial, pytest.mark.timeout(240)]
FILLER = "/var/lib/hsmsigner/filler"
FILL = f"""
file = open({FILLER!r}, 'ab', buffering=0)
for size in (2**20, 4096, 1):
    try:
        while file.write(bytes(size)):
            pass
    except OSError as error:
        assert error.errno == 28, error
"""
# What the log may still write into after the volume is full: pages that SQLite had already claimed.
MOST_AFTER_FULL = 5000


def sign_until_refused(client: SignerClient, released: dict[str, Signature]) -> SigningClientError:
    for _ in range(MOST_AFTER_FULL):
        request_id = str(uuid.uuid4())
        try:
            released[request_id] = client.sign(KEY, request_id.encode(), request_id=request_id, timeout_s=5.0)
        except OutcomeUnknown:
            # A busy machine; whether it was signed shows in the log.
            continue
        except SigningClientError as error:
            return error
    pytest.fail(f"{MOST_AFTER_FULL} signatures fitted on a full volume")


def test_a_full_volume_stops_signing_and_space_resumes_it(start_appliance: StartAppliance) -> None:
    released: dict[str, Signature] = {}
    with start_appliance("full", Path(__file__).with_name("small-volume.yaml")) as appliance:
        appliance.create_key()
        appliance.publish_quotas("unlimited")
        with appliance.client() as client:
            for request_id in (str(uuid.uuid4()) for _ in range(20)):
                released[request_id] = client.sign(KEY, request_id.encode(), request_id=request_id)
            appliance.python(FILL)

            refusal = sign_until_refused(client, released)

            assert refusal.reason == "AUDIT_UNAVAILABLE"
            assert refusal.retry_after_s
            until(lambda: not appliance.is_serving(), "health says that nothing can be signed", 90.0)
            appliance.python(f"import os; os.unlink({FILLER!r})")
            appliance.wait_until_serving()
            for request_id, signature in list(released.items()):
                assert client.sign(KEY, request_id.encode(), request_id=request_id) == signature
            client.sign(KEY, b"afterwards")
        appliance.copy_store()
    check_invariants(appliance.database)
    records = [record for record in read_log(appliance.database) if record["type"] == "sign.completed"]
    hashes = {str(record["request_id"]): record["signature_sha256"] for record in records}
    for request_id, signature in released.items():
        assert hashes[request_id] == hashlib.sha256(signature.signature).hexdigest()
