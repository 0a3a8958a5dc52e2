"""What a real token remembers of a log: kept through a crash, never set back unasked, and nothing of others touched."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignStatus, TreeHead
from hsmsigner.token.client import TokenClient
from hsmsigner.token.memory import LogMemory
from tests.signing_tasks import new_key
from tests.softhsm import SoftHsm, Worker, until
from tests.token.other_client import ask_token, ask_token_of

ORIGIN = "log.example/test"


def head(size: int, content: str = "") -> TreeHead:
    return TreeHead(size, hashlib.sha256(f"{size} {content}".encode()).digest())


def value(size: int, rollbacks: int = 0) -> str:
    return LogMemory(ORIGIN, size, head(size).root_hash, rollbacks).encode().decode()


async def refused(client: TokenClient, wanted: TreeHead) -> None:
    with pytest.raises(SignerError) as caught:
        await client.remember(ORIGIN, wanted)
    assert caught.value.reason is Reason.TOKEN_REFUSED


def test_a_new_token_remembers_nothing_and_then_the_newest(hsm: SoftHsm, worker: Worker) -> None:
    async def use(client: TokenClient) -> None:
        assert await client.recall(ORIGIN) is None
        for size in (0, 7, 2**40):
            await client.remember(ORIGIN, head(size))
            assert await client.recall(ORIGIN) == head(size)
        await client.remember(ORIGIN, head(2**40))

    hsm.ask(use)
    assert worker.stop() == 0
    (entry,) = ask_token(hsm, "data_objects")
    assert entry[:2] == ["hsmsigner", ORIGIN]
    root = head(2**40).root_hash.hex()
    assert entry[2] == f'{{"origin":"{ORIGIN}","size":{2**40},"root":"{root}","rollbacks":0}}'


def test_a_smaller_log_or_another_of_that_size_is_remembered_only_as_an_accepted_rollback(
    hsm: SoftHsm, worker: Worker
) -> None:
    async def use(client: TokenClient) -> None:
        await client.remember(ORIGIN, head(9))
        await refused(client, head(8))
        await refused(client, head(9, "a fork"))
        assert await client.recall(ORIGIN) == head(9)

        await client.remember(ORIGIN, head(8), is_rollback=True)
        assert await client.recall(ORIGIN) == head(8)
        await client.remember(ORIGIN, head(8, "a fork"), is_rollback=True)
        assert await client.recall(ORIGIN) == head(8, "a fork")
        await refused(client, head(7))

    hsm.ask(use)
    assert worker.stop() == 0
    assert [json.loads(entry[2])["rollbacks"] for entry in ask_token(hsm, "data_objects")] == [2]


def test_of_several_after_a_crash_the_newest_counts_and_what_cannot_be_read_is_left_alone(hsm: SoftHsm) -> None:
    garbage = ["not json", "[]", "null", "{}", '{"origin":1,"size":-1,"root":"","rollbacks":0}', value(99)[:-9]]
    somebody_elses = LogMemory("other.example/log", 1000, head(1000).root_hash).encode().decode()
    planted = [*garbage, somebody_elses, value(3), value(5), value(4), value(5)]
    ask_token(hsm, "plant_data", data_label=ORIGIN, values=planted)

    async def use(client: TokenClient) -> None:
        assert await client.recall(ORIGIN) == head(5)
        await client.remember(ORIGIN, head(6))
        assert await client.recall(ORIGIN) == head(6)

    with hsm.start_worker() as worker:
        hsm.ask(use)
        assert worker.stop() == 0
    left = [entry[2] for entry in ask_token(hsm, "data_objects")]
    assert sorted(left) == sorted([*garbage, somebody_elses, value(6)])


def test_what_somebody_without_the_pin_planted_is_not_believed(hsm: SoftHsm) -> None:
    ask_token(hsm, "plant_data", data_label=ORIGIN, values=[value(100)])
    ask_token_of(hsm.token, "", "plant_data", data_label=ORIGIN, values=[value(10, rollbacks=9), value(2**40)])

    async def use(client: TokenClient) -> None:
        assert await client.recall(ORIGIN) == head(100)
        await client.remember(ORIGIN, head(101))
        assert await client.recall(ORIGIN) == head(101)

    with hsm.start_worker():
        hsm.ask(use)


def test_a_crash_while_a_rollback_is_accepted_leaves_the_accepted_one_in_force(hsm: SoftHsm) -> None:
    ask_token(hsm, "plant_data", data_label=ORIGIN, values=[value(100), value(10, rollbacks=1)])

    async def use(client: TokenClient) -> None:
        assert await client.recall(ORIGIN) == head(10)

    with hsm.start_worker():
        hsm.ask(use)


def test_logs_on_one_token_do_not_disturb_each_other_whatever_the_length_of_their_names(shared_hsm: SoftHsm) -> None:
    long_names = ["log.example/" + "ä" * 60 + ending for ending in "ab"]

    async def use(client: TokenClient) -> None:
        for size, origin in enumerate(long_names, start=5):
            await client.remember(origin, head(size))
        assert [await client.recall(origin) for origin in long_names] == [head(5), head(6)]

    shared_hsm.ask(use)


def test_signing_goes_on_while_the_token_is_told_and_asked_of_the_log(hsm: SoftHsm, worker: Worker) -> None:
    async def use(client: TokenClient) -> None:
        key, is_over, signed = await new_key(client), asyncio.Event(), 0

        async def load() -> None:
            nonlocal signed
            while not is_over.is_set():
                outcomes = await client.sign([key.task(b"%d" % number) for number in range(32)])
                assert {outcome.status for outcome in outcomes} == {SignStatus.SIGNED}
                signed += len(outcomes)

        async def recall() -> None:
            while not is_over.is_set():
                assert await client.recall(ORIGIN) is not None

        await client.remember(ORIGIN, head(1))
        async with asyncio.TaskGroup() as group:
            for work in (load, load, recall, recall):
                group.create_task(work())
            size = 1
            # However the machine shares its time out, both go on beside each other.
            while size < 60 or signed <= 100:
                size += 1
                await client.remember(ORIGIN, head(size))
            is_over.set()
        assert client.connections == 1

    hsm.ask(use)
    assert worker.stop() == 0
    assert len(ask_token(hsm, "data_objects")) == 1


def test_that_nothing_is_remembered_is_said_only_of_a_freshly_opened_token(hsm: SoftHsm, worker: Worker) -> None:
    """SoftHSM whose folder was away for a moment shows nothing for as long as the process lives."""
    tokens = hsm.state / "token" / "tokens"

    async def remember(client: TokenClient) -> None:
        await client.remember(ORIGIN, head(5))

    async def recall() -> None:
        async with hsm.connected(deadline_s=3.0) as client:
            with pytest.raises(SignerError) as caught:
                await client.recall(ORIGIN)
        assert caught.value.reason is Reason.TOKEN_UNAVAILABLE

    hsm.ask(remember)
    tokens.rename(tokens.with_name("away"))
    asyncio.run(recall())
    until(lambda: worker.process.poll() is not None, "the worker ends to open the token anew")
    tokens.with_name("away").rename(tokens)

    async def recall_again(client: TokenClient) -> None:
        assert await client.recall(ORIGIN) == head(5)

    with hsm.start_worker():
        hsm.ask(recall_again)
