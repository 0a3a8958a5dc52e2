"""Every algorithm of the table, from the client through the worker to the token and back."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from hsmsigner.domain.algorithm import ALGORITHMS, KeyKind, SigningAlgorithm
from hsmsigner.operations.ports import SignStatus
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import P256, TestKey, check_signature, new_key
from tests.softhsm import SoftHsm

MESSAGES = [b"", b"abc", bytes(range(256)) * 300]


async def check_all_messages(client: TokenClient, key: TestKey, algorithm: SigningAlgorithm) -> None:
    outcomes = await client.sign([key.task(message, algorithm) for message in MESSAGES])
    for message, outcome in zip(MESSAGES, outcomes, strict=True):
        assert outcome.status is SignStatus.SIGNED, outcome.cause
        assert len(outcome.signature) == algorithm.signature_size
        check_signature(key.pair.public_key, algorithm, message, outcome.signature)


@pytest.mark.parametrize("name", [name for name, row in ALGORITHMS.items() if row.kind is not KeyKind.RSA])
def test_curve_algorithm_signs_what_others_verify(shared_hsm: SoftHsm, name: str) -> None:
    async def use(client: TokenClient) -> None:
        key = await new_key(client, ALGORITHMS[name])
        await check_all_messages(client, key, key.algorithm)

    shared_hsm.ask(use)


@pytest.mark.parametrize("size", [2048, 3072, 4096])
@pytest.mark.parametrize("padding", ["PKCS1", "PSS"])
def test_rsa_algorithm_signs_what_others_verify(shared_hsm: SoftHsm, padding: str, size: int) -> None:
    async def use(client: TokenClient) -> None:
        key = await new_key(client, ALGORITHMS[f"RSA_{padding}_{size}_SHA256"])
        for hash_name in ("SHA256", "SHA384", "SHA512"):
            await check_all_messages(client, key, ALGORITHMS[f"RSA_{padding}_{size}_{hash_name}"])

    shared_hsm.ask(use)


def test_secp256k1_signatures_always_have_low_s(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        for name in ("ECDSA_SECP256K1_SHA256", "ECDSA_SECP256K1_KECCAK256"):
            key = await new_key(client, ALGORITHMS[name])
            messages = [b"message %d" % number for number in range(40)]
            outcomes = await client.sign([key.task(message) for message in messages])
            for message, outcome in zip(messages, outcomes, strict=True):
                check_signature(key.pair.public_key, key.algorithm, message, outcome.signature)

    shared_hsm.ask(use)


def test_status_names_the_token_and_what_it_can_sign_with(shared_hsm: SoftHsm) -> None:
    status = shared_hsm.ask(lambda client: client.status())
    assert status.label == shared_hsm.settings.token.label
    assert status.algorithms == set(ALGORITHMS)
    assert "SoftHSM" in status.module


def test_calls_in_flight_on_one_connection_get_their_own_answers(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        keys = [await new_key(client) for _ in range(3)]
        batches = [[(keys[n % 3], b"%d of %d" % (n, batch)) for n in range(1 + 7 * batch)] for batch in range(8)]
        answers = await asyncio.gather(
            *(client.sign([key.task(message) for key, message in batch]) for batch in batches)
        )
        for batch, outcomes in zip(batches, answers, strict=True):
            for (key, message), outcome in zip(batch, outcomes, strict=True):
                check_signature(key.pair.public_key, P256, message, outcome.signature)

    shared_hsm.ask(use)


def test_found_pair_is_the_generated_one(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        key = await new_key(client)
        assert await client.find(key.cka_id, P256) == key.pair

    shared_hsm.ask(use)


def test_client_works_on_the_loop_that_frontends_use(shared_hsm: SoftHsm) -> None:
    async def use() -> None:
        async with shared_hsm.connected() as client:
            await check_all_messages(client, await new_key(client), P256)

    uvloop.run(use())
