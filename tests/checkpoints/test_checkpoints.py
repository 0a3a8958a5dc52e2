"""Checkpoints: when one is made, by whom, with which key; and what is told of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.instant import not_before
from hsmsigner.domain.key import LOG_KEY, CkaId
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.record import Entry
from hsmsigner.errors import ConfigurationError, Reason, SignerError
from hsmsigner.operations.checkpoints import CheckpointRules, Checkpoints, ContradictionError
from hsmsigner.operations.key_changes import Cause, WantedRotation
from hsmsigner.operations.log_key import LogKey, require_origin, vkeys
from hsmsigner.operations.ports import Checkpoint, PendingKey, RequestKey, SignOutcome, SignStatus
from tests.builder import OPERATOR, Signer, fresh_id, make_signer, record_types
from tests.checkpoints.notes import check_checkpoints, checkpoints, records, signers
from tests.fakes import FakeToken

ORIGIN = "test.example/log"
SELDOM = CheckpointRules(ORIGIN, 10_000, 3600.0)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(asyncio.wait_for(whole(), 60))


async def grow(signer: Signer, count: int = 1) -> None:
    async with signer.store.transaction() as transaction:
        now = not_before(signer.clock(), transaction.last_time)
        transaction.append([Entry("test.grown", {"number": number}) for number in range(count)], now)


def log_vkeys(signer: Signer) -> list[str]:
    return vkeys(signer.governance.newest.key(LOG_KEY), signer.checkpoint_rules.origin)


def alter(signer: Signer, statement: str) -> None:
    with closing(sqlite3.connect(signer.database)) as connection, connection:
        connection.execute(statement)


@pytest.mark.parametrize(
    ("algorithms", "expected"),
    [(frozenset(ALGORITHMS), "ED25519"), (frozenset(ALGORITHMS) - {"ED25519"}, "ECDSA_P256_SHA256")],
)
def test_the_first_checkpoint_makes_its_key_and_verifies(
    tmp_path: Path, algorithms: frozenset[str], expected: str
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, token=FakeToken(algorithms=algorithms)) as signer:
            made = await signer.checkpoints.round()

            assert made is not None
            key = signer.governance.newest.keys["audit-log"]
            assert (key.algorithm.name, key.primary.name.number) == (expected, 1)
            assert record_types(signer.database) == ["policy.published", "key.requested", "key.created"]
            assert check_checkpoints(signer.database, log_vkeys(signer)) == [made.size] == [3]
            assert made == await signer.store.read_newest_checkpoint()

    run(scenario)


def test_a_token_without_a_fitting_algorithm_makes_no_key_and_no_checkpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        algorithms = frozenset({"RSA_PSS_3072_SHA256"})
        async with make_signer(tmp_path, token=FakeToken(algorithms=algorithms)) as signer:
            with pytest.raises(SignerError) as caught:
                await signer.checkpoints.round()

            assert caught.value.reason is Reason.ALGORITHM_NOT_SUPPORTED
            assert (checkpoints(signer.database), record_types(signer.database)) == ([], ["policy.published"])

    run(scenario)


def test_a_checkpoint_appends_no_record_and_none_is_made_while_the_log_does_not_grow(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.checkpoints.round()
            size = len(records(signer.database))

            assert await signer.checkpoints.round() is None
            assert await signer.checkpoints.round(is_forced=True) is None
            assert len(records(signer.database)) == size
            await grow(signer)
            made = await signer.checkpoints.round()
            assert made is not None
            assert check_checkpoints(signer.database, log_vkeys(signer)) == [size, size + 1]

    run(scenario)


def test_one_is_due_by_number_of_records_or_by_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path, checkpoint_rules=replace(SELDOM, records=5)) as signer:
            # How old the newest one is nobody knows after a start.
            assert await signer.checkpoints.round() is not None
            await grow(signer, 4)
            assert await signer.checkpoints.round() is None
            await grow(signer)
            assert await signer.checkpoints.round() is not None
            await grow(signer)
            assert await signer.checkpoints.round() is None
            assert await signer.checkpoints.round(is_forced=True) is not None
            check_checkpoints(signer.database, log_vkeys(signer))

    run(scenario)


def test_the_loop_makes_one_as_soon_as_enough_records_are_durable(tmp_path: Path) -> None:
    async def scenario() -> None:
        made: asyncio.Queue[Checkpoint] = asyncio.Queue()
        async with make_signer(tmp_path, checkpoint_rules=replace(SELDOM, records=3)) as signer:
            maker = signer.make_checkpoints("loop", [made.put])
            loop = asyncio.create_task(maker.run())
            first = await made.get()
            await grow(signer, 3)
            second = await made.get()

            assert second.size == first.size + 3
            loop.cancel()
            await grow(signer)
            await maker.stop()
            assert (await made.get()).size == second.size + 1
            # The lease is free again: whoever starts next need not wait.
            await grow(signer)
            assert await signer.checkpoints.round() is not None

    run(scenario)


def test_an_appliance_that_stops_before_it_had_a_key_makes_none(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.checkpoints.stop()

            assert (signer.token.keys, record_types(signer.database)) == ({}, ["policy.published"])

    run(scenario)


def test_before_the_log_was_compared_with_the_tokens_memory_nothing_is_begun(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            closed = SignerError(Reason.AUDIT_UNAVAILABLE, "not compared yet")
            parts = signer.store, signer.token, signer.governance, signer.clock
            log_key = LogKey(*parts[:3], signer.keys, ORIGIN)
            maker = Checkpoints(*parts, log_key, growth=signer.growth, rules=SELDOM, holder="one", gate=lambda: closed)
            with pytest.raises(SignerError, match="not compared yet"):
                await maker.round()

            assert (checkpoints(signer.database), record_types(signer.database)) == ([], ["policy.published"])

    run(scenario)


def test_while_the_token_is_away_nothing_is_written_and_then_the_same_one_is_made(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            first = await signer.checkpoints.round()
            assert first is not None
            await grow(signer)
            signer.token.answer = lambda _task: SignOutcome(SignStatus.UNKNOWN, cause="lost on the way")
            with pytest.raises(SignerError, match="lost on the way"):
                await signer.checkpoints.round()
            signer.token.connected = False
            size = len(records(signer.database))
            await grow(signer)
            for _ in range(3):
                with pytest.raises(SignerError) as caught:
                    await signer.checkpoints.round()
                assert caught.value.reason is Reason.TOKEN_UNAVAILABLE
            assert [(size, note != "") for size, _, note in checkpoints(signer.database)] == [
                (first.size, True),
                (size, False),
            ]
            assert await signer.store.read_newest_checkpoint() == first

            signer.token.connected, signer.token.answer = True, lambda _task: None
            finished = await signer.checkpoints.round()

            assert finished is not None
            assert finished.size == size
            assert (await signer.checkpoints.round(is_forced=True)) is not None
            assert check_checkpoints(signer.database, log_vkeys(signer)) == [first.size, size, size + 1]

    run(scenario)


def test_a_rotated_key_signs_from_then_on_and_the_old_one_vouches_for_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.checkpoints.round()
            cause = Cause(OPERATOR, "yearly", fresh_id())
            await signer.rotations.rotate(OPERATOR, LOG_KEY, WantedRotation(), cause)
            made = await signer.checkpoints.round()

            assert made is not None
            first, second = keys = log_vkeys(signer)
            assert keys == signer.audit.vkeys(OPERATOR)
            by_size = {size: signers(note, keys) for size, _, note in checkpoints(signer.database)}
            assert list(by_size.values()) == [[first], [second]]
            async with signer.store.transaction() as transaction:
                (statement,) = transaction.continuity.list(LOG_KEY, 0, 10)
            assert (statement.old_version.number, statement.new_version.number) == (1, 2)
            check_checkpoints(signer.database, keys)

    run(scenario)


def test_a_suspended_key_signs_no_checkpoint_until_it_is_resumed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.checkpoints.round()
            version = signer.key("audit-log").primary.name
            await signer.lifecycle.change(Verb.SUSPEND, OPERATOR, version, Cause(OPERATOR, "test"))
            with pytest.raises(SignerError) as caught:
                await signer.checkpoints.round()

            assert caught.value.reason is Reason.KEY_NOT_ACTIVE
            assert len(checkpoints(signer.database)) == 1
            await signer.lifecycle.change(Verb.RESUME, OPERATOR, version, Cause(OPERATOR, "test"))
            assert await signer.checkpoints.round() is not None
            assert signer.governance.newest.keys["audit-log"].primary.signature_count == 1
            assert (await signer.keys.get_counted(OPERATOR, LOG_KEY)).primary.signature_count == 2

    run(scenario)


def test_a_key_that_somebody_else_made_is_never_the_logs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            theirs = PendingKey(LOG_KEY, ALGORITHMS["ED25519"], CkaId(b"theirs"), RequestKey("cn:mallory", fresh_id()))
            async with signer.store.transaction() as transaction:
                transaction.keys.insert_pending(theirs, signer.clock())
            await signer.token.generate(theirs.cka_id, "theirs", theirs.algorithm)
            await signer.keys.finish_pending()
            with pytest.raises(SignerError, match="cn:mallory") as caught:
                await signer.checkpoints.round()

            assert caught.value.reason is Reason.KEY_EXISTS
            assert (checkpoints(signer.database), signer.token.signed) == ([], [])

    run(scenario)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE checkpoints SET root = zeroblob(32)",
        "UPDATE checkpoints SET size = size + 1000",
        "UPDATE checkpoints SET root = zeroblob(32), note = ''",
        "UPDATE checkpoints SET size = size + 1000, note = ''",
    ],
)
def test_what_contradicts_an_earlier_checkpoint_is_never_signed(tmp_path: Path, change: str) -> None:
    async def scenario() -> None:
        signer = Signer(tmp_path)
        await signer.start()
        await signer.checkpoints.round()
        await grow(signer, 2)
        alter(signer, change)
        signatures = len(signer.token.signed)

        for _ in range(2):
            with pytest.raises(ContradictionError, match="put the right one back"):
                await signer.checkpoints.round()

        assert len(signer.token.signed) == signatures
        await signer.stop()

    run(scenario)


def test_observers_are_told_in_order_and_one_that_fails_stops_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        told: list[tuple[str, Checkpoint]] = []

        async def remember(checkpoint: Checkpoint) -> None:
            # What they are told of is durable by then.
            assert await signer.store.read_newest_checkpoint() == checkpoint
            told.append(("remember", checkpoint))

        async def fail(checkpoint: Checkpoint) -> None:
            told.append(("fail", checkpoint))
            raise OSError("nobody there")

        async def push(checkpoint: Checkpoint) -> None:
            told.append(("push", checkpoint))

        async with make_signer(tmp_path) as signer:
            maker = signer.make_checkpoints("holder", [remember, fail, push])
            made = await maker.round()

            assert made is not None
            assert told == [("remember", made), ("fail", made), ("push", made)]
            assert await maker.round() is None
            signer.clock.advance(11)
            told.clear()
            await signer.make_checkpoints("new holder", [push]).round()
            # The former holder may have died before it told anybody.
            assert told == [("push", made)]

    run(scenario)


def test_a_log_keeps_its_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await require_origin(signer.store, "any.example/log")
            await signer.checkpoints.round()
            await require_origin(signer.store, ORIGIN)
            with pytest.raises(ConfigurationError, match=f"set it to {ORIGIN}"):
                await require_origin(signer.store, "other.example/log")

    run(scenario)
