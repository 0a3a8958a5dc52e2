"""Requests that are too large are refused in words, before they are sent where that can be known, and hurt no other."""

from __future__ import annotations

import asyncio

import pytest

from hsmsigner.api.server import MAX_REQUEST_BYTES
from hsmsigner.client import AsyncSignerClient, InvalidRequest, Signature, SignerClient, SignItem
from hsmsigner.client.values import REQUEST_BYTES
from tests.client.fake_server import FakeServer

assert REQUEST_BYTES == MAX_REQUEST_BYTES
KEY = "keys/settlement-eu"
TOO_LARGE = b"x" * (MAX_REQUEST_BYTES + 1)


def test_batch_larger_than_a_server_takes_is_not_sent(server: FakeServer) -> None:
    items = [SignItem(KEY, b"x" * (MAX_REQUEST_BYTES // 3)) for _ in range(3)]

    with SignerClient(server.profile) as client:
        with pytest.raises(InvalidRequest) as caught:
            client.batch_sign(items)
        assert len(client.batch_sign(items[:2])) == 2

    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert str(MAX_REQUEST_BYTES) in caught.value.message
    assert caught.value.metadata["limit"] == str(MAX_REQUEST_BYTES)
    assert caught.value.grpc_code is None
    assert len(server.seen) == 2


def test_batch_of_one_is_left_to_the_server_which_may_take_larger_messages(server: FakeServer) -> None:
    with SignerClient(server.profile) as client, pytest.raises(InvalidRequest) as caught:
        client.batch_sign([SignItem(KEY, TOO_LARGE)])

    assert caught.value.reason == "MESSAGE_TOO_LARGE"
    assert caught.value.metadata["limit"] == str(MAX_REQUEST_BYTES)


def test_message_that_the_server_does_not_take_breaks_no_other_call(server: FakeServer) -> None:
    async def use() -> list[Signature | BaseException]:
        async with AsyncSignerClient(server.profile) as client:
            await client.sign(KEY, b"first")
            calls = [client.sign(KEY, message) for message in (b"before", TOO_LARGE, b"after")]
            return await asyncio.gather(*calls, return_exceptions=True)

    before, refused, after = asyncio.run(use())

    assert isinstance(before, Signature)
    assert isinstance(after, Signature)
    assert isinstance(refused, InvalidRequest)
    assert refused.reason == "MESSAGE_TOO_LARGE"
    assert str(MAX_REQUEST_BYTES) in refused.message
    assert server.streams == 1


def test_message_that_the_server_does_not_take_is_refused_to_threads_too(server: FakeServer) -> None:
    with SignerClient(server.profile) as client:
        client.sign(KEY, b"first")
        with pytest.raises(InvalidRequest, match="MESSAGE_TOO_LARGE"):
            client.sign(KEY, TOO_LARGE)
        client.sign(KEY, b"after")

    assert server.streams == 1
