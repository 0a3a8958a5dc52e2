"""Destroying a pair, and using one that was made by others: only the pair that is meant, only when told to."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignStatus, TokenKeyPair
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import P256, TestKey, new_key
from tests.softhsm import SoftHsm, Worker
from tests.token.other_client import ask_token


# A token and a worker of its own: a worker that misses a key it was asked for ends, to open the token anew.
def test_a_destroyed_pair_is_gone_and_destroying_it_again_is_no_fault(hsm: SoftHsm, worker: Worker) -> None:
    async def use(client: TokenClient) -> None:
        key, other = await new_key(client), await new_key(client)
        assert [outcome.status for outcome in await client.sign([key.task(b"before")])] == [SignStatus.SIGNED]

        await client.destroy(key.cka_id, key.pair.public_key, P256)

        assert await client.find(key.cka_id, P256, is_sure=False) is None
        await client.destroy(key.cka_id, key.pair.public_key, P256)
        (after,) = await client.sign([other.task(b"after")])
        assert after.status is SignStatus.SIGNED
        (destroyed,) = await client.sign([key.task(b"after")])
        assert destroyed.status is not SignStatus.SIGNED

    hsm.ask(use)


def test_another_key_with_that_cka_id_is_not_destroyed(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        key, other = await new_key(client), await new_key(client)

        with pytest.raises(SignerError) as refused:
            await client.destroy(key.cka_id, other.pair.public_key, P256)

        assert refused.value.reason is Reason.TOKEN_REFUSED
        assert await client.find(key.cka_id, P256) == key.pair

    shared_hsm.ask(use)


def test_looking_without_being_sure_leaves_the_worker_alone(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> None:
        connection = client._connection
        assert await client.find(CkaId(os.urandom(8)), P256, is_sure=False) is None
        assert client._connection is connection

    shared_hsm.ask(use)


def test_an_extractable_key_signs_only_when_it_was_adopted_so(hsm: SoftHsm) -> None:
    cka_id = CkaId(os.urandom(8))
    public_key = bytes.fromhex(ask_token(hsm, "plant", cka_id=cka_id.hex(), extractable=True))

    async def use(client: TokenClient) -> None:
        pair = await client.find(cka_id, P256)
        assert pair is not None
        assert (pair.public_key, pair.never_extractable) == (public_key, False)
        task = TestKey(cka_id, TokenKeyPair(public_key, True, True, False), P256).task(b"message")
        outcomes = await client.sign([task, replace(task, allow_unprotected=True), task])
        assert [outcome.status for outcome in outcomes] == [
            SignStatus.NOT_CALLED,
            SignStatus.SIGNED,
            SignStatus.NOT_CALLED,
        ]

    with hsm.start_worker():
        hsm.ask(use)
