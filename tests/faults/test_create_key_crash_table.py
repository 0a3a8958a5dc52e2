"""Making a key, broken at each step: no pair that nobody knows of, no name lost, no key twice."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from hsmsigner.domain.algorithm import algorithm_named
from hsmsigner.domain.key import Key, KeyName, KeyState
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from tests.builder import OPERATOR, Signer, check_invariants, fresh_id, make_signer, record_types

NAME = KeyName("settlement-eu")


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 60))


async def create(signer: Signer, request_id: RequestId, algorithm: str = "ECDSA_P256_SHA256") -> Key:
    return await signer.keys.create(OPERATOR, NAME, algorithm_named(algorithm), request_id)


async def refusal(signer: Signer, request_id: RequestId, algorithm: str = "ECDSA_P256_SHA256") -> Reason:
    with pytest.raises(SignerError) as caught:
        await create(signer, request_id, algorithm)
    return caught.value.reason


def test_a_key_is_requested_then_created_and_a_retry_gets_the_same_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            request_id = fresh_id()

            made = await create(signer, request_id)

            assert record_types(signer.database)[-2:] == ["key.requested", "key.created"]
            assert await create(signer, request_id) == made
            assert len(signer.token.keys) == 1
            assert await refusal(signer, request_id, "ED25519") is Reason.REQUEST_ID_REUSED
            assert await refusal(signer, fresh_id()) is Reason.KEY_EXISTS

    run(scenario())


def test_a_new_key_is_not_looked_for_on_the_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await create(signer, fresh_id())

            assert signer.token.found == []

    run(scenario())


@pytest.mark.parametrize("is_on_token", [False, True])
@pytest.mark.parametrize("heal", ["retry", "restart"])
def test_a_half_made_key_is_finished_by_a_retry_or_a_restart(tmp_path: Path, *, is_on_token: bool, heal: str) -> None:
    async def scenario() -> None:
        signer, request_id = Signer(tmp_path), fresh_id()
        await signer.start()
        signer.token.fail_before_generate = not is_on_token
        signer.token.fail_after_generate = is_on_token
        assert await refusal(signer, request_id) is Reason.TOKEN_UNAVAILABLE
        assert record_types(signer.database)[-1] == "key.requested"
        signer.token.fail_before_generate = signer.token.fail_after_generate = False

        if heal == "restart":
            await signer.die()
            await signer.start()
            await signer.keys.finish_pending()
            assert record_types(signer.database)[-1] == ("key.created" if is_on_token else "key.failed")

        key = await create(signer, request_id)
        assert key.primary.state is KeyState.ACTIVE
        assert len(signer.token.keys) == 1
        assert (await signer.sign()).signature
        await signer.stop()
        check_invariants(signer.database)

    run(scenario())


def test_nothing_is_given_up_while_the_token_cannot_be_asked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            signer.token.fail_after_generate = True
            await refusal(signer, fresh_id())
            signer.token.connected = False

            with pytest.raises(SignerError) as caught:
                await signer.keys.finish_pending()

            assert caught.value.reason is Reason.TOKEN_UNAVAILABLE
            assert record_types(signer.database)[-1] == "key.requested"

    run(scenario())


def test_a_key_that_is_being_made_is_neither_finished_nor_made_twice(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            signer.token.generate_gate = asyncio.Event()
            request_id = fresh_id()
            making = asyncio.create_task(create(signer, request_id))
            while "key.requested" not in record_types(signer.database):  # noqa: ASYNC110 - the store tells nobody
                await asyncio.sleep(0.005)

            await signer.keys.finish_pending()
            assert await refusal(signer, request_id) is Reason.REQUEST_IN_PROGRESS
            signer.token.generate_gate.set()

            assert (await making).primary.state is KeyState.ACTIVE
            assert len(signer.token.keys) == 1

    run(scenario())


def test_validate_only_makes_nothing_and_claims_nothing(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            before = record_types(signer.database)

            key = await signer.keys.create(OPERATOR, NAME, algorithm_named("ED25519"), fresh_id(), validate_only=True)

            assert (key.primary.state, key.primary.local) == (KeyState.PRE_ACTIVATION, False)
            assert record_types(signer.database) == before
            assert signer.token.keys == {}

    run(scenario())


@pytest.mark.parametrize("call", ["create", "publish"])
def test_a_cancelled_caller_leaves_no_transaction_open(tmp_path: Path, call: str) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            for turns in range(12):
                work = (
                    signer.keys.create(OPERATOR, KeyName(f"k{turns}"), algorithm_named("ED25519"), fresh_id())
                    if call == "create"
                    else signer.policies.publish(
                        OPERATOR, signer.policy.encode(), expected_revision=0, comment="x", allow_lockout=False
                    )
                )
                task = asyncio.create_task(work)
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

                signer.clock.advance(60)
                assert (await signer.sign()).signature

    run(scenario())
