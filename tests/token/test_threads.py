"""Eight threads with a session each sign at once, which crashes modules that were initialised for one thread."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.operations.ports import SignStatus
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import check_signature, new_key
from tests.softhsm import SoftHsm

SOAK_S = float(os.environ.get("HSMSIGNER_SOAK_SECONDS", "3"))
THREADS = 8


@pytest.mark.serial
@pytest.mark.timeout(SOAK_S + 60)
def test_eight_threads_sign_without_a_crash_while_keys_are_generated(hsm: SoftHsm) -> None:
    hsm.token["threads"] = THREADS

    async def use(client: TokenClient) -> int:
        names = ("ECDSA_P256_SHA256", "ED25519", "RSA_PSS_2048_SHA256")
        keys = [await new_key(client, ALGORITHMS[name]) for name in names]
        deadline = time.monotonic() + SOAK_S

        async def sign(number: int) -> int:
            signed = 0
            while time.monotonic() < deadline:
                messages = [b"%d %d %d" % (number, signed, at) for at in range(64)]
                picked = [keys[at % 16 and at % 2] if at % 16 else keys[2] for at in range(64)]
                tasks = [key.task(message) for key, message in zip(picked, messages, strict=True)]
                outcomes = await client.sign(tasks)
                assert {outcome.status for outcome in outcomes} == {SignStatus.SIGNED}, outcomes
                check_signature(picked[0].pair.public_key, picked[0].algorithm, messages[0], outcomes[0].signature)
                signed += len(outcomes)
            return signed

        async def generate() -> int:
            made = 0
            while time.monotonic() < deadline:
                await asyncio.gather(*(new_key(client) for _ in range(3)))
                made += 3
            return made

        *signed, made = await asyncio.gather(*(sign(number) for number in range(THREADS)), generate())
        assert made
        return sum(signed)

    with hsm.start_worker() as worker:
        # Each thread did sign; how much is the machine's affair.
        assert hsm.ask(use) >= THREADS * 64
        assert worker.stop() == 0
