"""A verifier's cache of public keys: current without polling, and of use while the server is away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

import grpc
import pytest

from hsmsigner.client import AsyncSignerClient, KeySet, Refused, RotationPolicy, SignerClient, Unavailable
from tests.client.fake_server import FakeServer, status

_Result = TypeVar("_Result")


def with_client(server: FakeServer, use: Callable[[AsyncSignerClient], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with AsyncSignerClient(server.profile) as client:
            return await use(client)

    return asyncio.run(run())


def has(name: str) -> Callable[[KeySet], bool]:
    return lambda key_set: key_set.get(name) is not None


def test_cache_has_the_keys_when_it_is_entered_and_follows_changes(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        async with client.watch_keys() as keys:
            assert set(keys.current.public_keys) == {"keys/a/versions/1"}
            server.key_set = (2, ["keys/a/versions/1", "keys/a/versions/2"])
            assert (await keys.wait_for(has("keys/a/versions/2"))).epoch == 2
            assert keys.current.get("keys/a/versions/3") is None

    with_client(server, use)
    assert server.watches == 1


def test_keys_stay_known_while_the_server_is_away_and_are_current_again_after(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        async with client.watch_keys() as keys:
            await asyncio.to_thread(server.__exit__)
            assert keys.current.epoch == 1
            server.key_set = (2, ["keys/a/versions/2"])
            await asyncio.to_thread(server.__enter__)
            await keys.wait_for(has("keys/a/versions/2"))

    with_client(server, use)


def test_refusal_ends_the_cache_and_is_told_to_whoever_asks(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        async with client.watch_keys() as keys:
            server.key_set = status("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED)
            with pytest.raises(Refused, match="UNAUTHENTICATED"):
                await keys.wait_for(has("keys/a/versions/2"))
            with pytest.raises(Refused, match="UNAUTHENTICATED"):
                _ = keys.current

    with_client(server, use)


def test_refusal_at_the_start_is_raised_there(server: FakeServer) -> None:
    server.key_set = status("UNAUTHENTICATED", grpc.StatusCode.UNAUTHENTICATED)

    with SignerClient(server.profile) as client, pytest.raises(Refused), client.watch_keys():
        pass


def test_cache_of_a_closed_client_says_so_and_does_not_go_stale_in_silence(server: FakeServer) -> None:
    async def use(client: AsyncSignerClient) -> None:
        async with client.watch_keys() as keys:
            await client.close()
            with pytest.raises(Unavailable, match="CLIENT_CLOSED"):
                await keys.wait_for(has("keys/a/versions/2"))
            with pytest.raises(Unavailable, match="CLIENT_CLOSED"):
                _ = keys.current

    with_client(server, use)


def test_client_of_threads_may_be_closed_before_its_cache(server: FakeServer) -> None:
    client = SignerClient(server.profile)
    with client.watch_keys() as keys:
        client.close()
        with pytest.raises(Unavailable, match="CLIENT_CLOSED"):
            keys.wait_for(has("keys/a/versions/2"))


def test_key_set_that_does_not_come_in_time_is_an_error(server: FakeServer) -> None:
    with SignerClient(server.profile) as client, client.watch_keys() as keys, pytest.raises(Unavailable):
        keys.wait_for(has("keys/a/versions/9"), timeout_s=0.1)


def test_threads_have_the_same_cache(server: FakeServer) -> None:
    with SignerClient(server.profile) as client, client.watch_keys() as keys:
        assert keys.current.get("keys/a/versions/1") is not None
        server.key_set = (2, ["keys/b/versions/1"])
        assert keys.wait_for(has("keys/b/versions/1")).epoch == 2


def test_statements_are_an_iterator(server: FakeServer) -> None:
    with SignerClient(server.profile) as client:
        statements = list(client.list_continuity_statements("keys/a"))

    assert [item.old_version for item in statements] == [f"keys/a/versions/{number}" for number in (1, 2, 3)]


def test_rotation_policy_goes_out_and_comes_back_whole(server: FakeServer) -> None:
    policy = RotationPolicy(rotation_period=timedelta(days=90), max_signatures=7, overlap=timedelta(0))

    with SignerClient(server.profile) as client:
        key = client.set_rotation_policy("keys/a", policy, reason="yearly")

    assert RotationPolicy.read(key.rotation_policy) == policy
