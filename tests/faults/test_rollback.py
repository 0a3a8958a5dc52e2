"""A store that was rolled back, forked or swapped against the one token that remembers it: nothing is signed for it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest

from hsmsigner.api.health import Health
from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.key import CkaId
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.guarded_token import GuardedToken
from hsmsigner.operations.ports import Checkpoint, SignStatus, SignTask, TreeHead
from hsmsigner.operations.token_memory import LogRolledBackError, MemoryRules, TokenMemory
from hsmsigner.store.unit_of_work import SqlStore
from tests.builder import make_signer, read_log
from tests.fakes import FakeClock, FakeToken, new_key
from tests.scenarios import run

ORIGIN = "log.example/test"
P256 = ALGORITHMS["ECDSA_P256_SHA256"]
CKA_ID = CkaId(b"\x01")


class Scene:
    """A store, and what stands between it and a token that outlives it."""

    def __init__(self, database: Path, token: FakeToken, *, accepted_reason: str = "", interval_s: float = 0.0) -> None:
        self.database = database
        self.token = token
        self.clock = FakeClock()
        self.store = SqlStore(f"sqlite:///{database}")
        self.guarded = GuardedToken(token)
        rules = MemoryRules(ORIGIN, interval_s, accepted_reason)
        self.memory = TokenMemory(self.store, self.guarded, self.clock, rules)

    @property
    def remembered(self) -> int:
        return self.token.memories[ORIGIN].size

    async def append(self, count: int, what: str = "") -> TreeHead:
        async with self.store.transaction() as transaction:
            transaction.append([Entry("test.entry", {"what": what})] * count, self.clock())
            return transaction.tree_head

    async def checkpoint(self, count: int) -> Checkpoint:
        """Grow the log and sign a checkpoint of it, as operations/checkpoints.py does."""
        head = await self.append(count)
        checkpoint = Checkpoint(head.size, head.root_hash, self.clock(), "a note")
        async with self.store.transaction() as transaction:
            transaction.checkpoints.insert(Checkpoint(head.size, head.root_hash, self.clock()))
            transaction.checkpoints.save_note(head.size, checkpoint.note, 0)
        await self.memory.on_signed(checkpoint)
        return checkpoint

    async def signs(self) -> bool:
        (outcome,) = await self.guarded.sign([SignTask(CKA_ID, b"", P256, bytes(32))])
        return outcome.status is SignStatus.SIGNED


@asynccontextmanager
async def scene(database: Path, token: FakeToken, **options: object) -> AsyncIterator[Scene]:
    made = Scene(database, token, **options)  # type: ignore[arg-type]
    await made.store.reopen()
    try:
        yield made
    finally:
        await made.store.close()


def lose(database: Path) -> None:
    database.unlink()


@pytest.fixture
def token() -> FakeToken:
    return FakeToken(keys={CKA_ID: new_key(P256)})


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


async def live(database: Path, token: FakeToken, records: int) -> None:
    """One run of an appliance that appends so many records, has a checkpoint of them, and stops in order."""
    async with scene(database, token) as running:
        await running.memory.round()
        await running.checkpoint(records)
        await running.memory.finish()


def test_nothing_is_signed_made_or_destroyed_before_the_comparison(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        async with scene(database, token) as running:
            await running.append(3)
            token.connected = False
            await running.memory.round()

            assert not await running.signs()
            assert token.signed == []
            refusal = running.guarded.refusal()
            assert refusal is not None
            assert refusal.reason is Reason.AUDIT_UNAVAILABLE
            with pytest.raises(SignerError):
                await running.guarded.generate(CkaId(b"\x02"), "new", P256)
            with pytest.raises(SignerError):
                await running.guarded.destroy(CKA_ID, b"", P256)
            assert set(token.keys) == {CKA_ID}

            token.connected = True
            await running.memory.round()
            assert await running.signs()

    run(scenario())


def test_until_the_comparison_requests_are_refused_unrecorded_and_health_says_so(
    tmp_path: Path, token: FakeToken
) -> None:
    async def scenario() -> None:
        async with make_signer(tmp_path) as signer:
            await signer.create_key()
            guarded = GuardedToken(token)
            memory = TokenMemory(signer.store, guarded, signer.clock, MemoryRules(ORIGIN, 0.0))
            signer.committer._gates = (guarded.refusal,)
            health = Health(token, lambda: True, may_use_token=lambda: guarded.refusal() is None)
            before = read_log(signer.database)

            with pytest.raises(SignerError) as caught:
                await signer.sign()
            await health.check()

            assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
            assert read_log(signer.database) == before
            assert health._shown[""] is health._shown["hsmsigner.v1.SigningService"] is False
            assert health._shown["hsmsigner.v1.AuditService"] is True
            await memory.round()
            await health.check()
            assert health._shown[""] is True
            assert (await signer.sign()).signature

    run(scenario())


def test_a_new_log_is_remembered_from_the_start_and_grows_in_the_memory(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        async with scene(database, token) as running:
            await running.append(2)
            await running.memory.round()
            assert running.remembered == running.memory.remembered_size == 2
            await running.checkpoint(5)
            await running.memory.round()
            assert running.remembered == 7
        assert [record["type"] for record in read_log(database)] == ["test.entry"] * 7

    run(scenario())


def test_the_token_is_told_at_most_once_an_interval_and_at_the_end(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        async with scene(database, token, interval_s=3600.0) as running:
            await running.append(1)
            await running.memory.round()
            for _ in range(3):
                await running.checkpoint(5)
                await running.memory.round()
            assert running.remembered == 1
            await running.memory.finish()
            assert running.remembered == 16

    run(scenario())


def test_a_store_that_goes_on_where_it_stopped_is_accepted(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        for records in (300, 400, 1):
            await live(database, token, records)
        assert token.memories[ORIGIN].size == 701

    run(scenario())


def test_an_older_copy_of_the_store_is_refused_and_both_figures_are_said(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        older = shutil.copy(database, database.with_suffix(".old"))
        await live(database, token, 10)
        shutil.move(older, database)
        async with scene(database, token) as running:
            with pytest.raises(LogRolledBackError, match=r"remembers 20 records .* only 10 records .* 10 .* missing"):
                await running.memory.round()
            assert not await running.signs()
            refusal = running.guarded.refusal()
            assert refusal is not None
            assert "hsmsigner doctor" in refusal.message
            assert refusal.retry_after_s is None
        assert token.memories[ORIGIN].size == 20

    run(scenario())


def test_an_older_copy_that_has_grown_past_the_memory_is_a_fork(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        older = shutil.copy(database, database.with_suffix(".old"))
        await live(database, token, 10)
        shutil.move(older, database)
        async with scene(database, token) as running:
            await running.append(50, "another history")
            with pytest.raises(LogRolledBackError, match=r"remembers 20 records .* began with 20 records"):
                await running.memory.round()
            assert not await running.signs()

    run(scenario())


def test_a_store_that_was_deleted_while_stopped_is_missed(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        lose(database)
        async with scene(database, token) as running:
            await running.append(2)
            with pytest.raises(LogRolledBackError, match=r"remembers 10 records .* only 2 records"):
                await running.memory.round()
            assert not await running.signs()

    run(scenario())


def test_an_accepted_rollback_is_recorded_before_anything_is_signed_and_only_once(
    database: Path, token: FakeToken
) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        before = token.memories[ORIGIN]
        lose(database)
        async with scene(database, token, accepted_reason="disk lost, ticket 42") as running:
            found = await running.append(2)
            await running.memory.round()

            record = read_log(database)[-1]
            assert {name: record[name] for name in sorted(record) if name not in ("time", "previous_hash")} == {
                "type": "log.rollback_accepted",
                "sequence": 2,
                "kind": "rollback",
                "remembered_size": 10,
                "remembered_root": before.root_hash.hex(),
                "found_size": 2,
                "found_root": found.root_hash.hex(),
                "reason": "disk lost, ticket 42",
            }
            assert running.remembered == 3
            assert await running.signs()

            # Another token in its place, which remembers more: the reason was for the first.
            token.memories[ORIGIN] = before
            token.connections += 1
            with pytest.raises(LogRolledBackError):
                await running.memory.round()
            assert not await running.signs()

    run(scenario())


def test_a_rollback_stays_refused_until_the_token_was_told_of_the_acceptance(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        lose(database)
        async with scene(database, token, accepted_reason="disk lost") as running:
            remember, token.remember = token.remember, unavailable  # type: ignore[method-assign]
            for _ in range(3):
                with pytest.raises(SignerError):
                    await running.memory.round()
                assert not await running.signs()
            token.remember = remember  # type: ignore[method-assign]
            await running.memory.round()

            assert await running.signs()
            assert [record["type"] for record in read_log(database)] == ["log.rollback_accepted"]

    run(scenario())


async def unavailable(*_arguments: object, **_options: object) -> None:
    raise SignerError(Reason.TOKEN_UNAVAILABLE, "its memory is full")


def test_an_acceptance_that_nothing_needed_is_not_kept(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        before = token.memories[ORIGIN]
        async with scene(database, token, accepted_reason="just in case") as running:
            await running.memory.round()
            token.memories[ORIGIN] = TreeHead(before.size + 1, before.root_hash)
            token.connections += 1
            with pytest.raises(LogRolledBackError):
                await running.memory.round()
        assert {record["type"] for record in read_log(database)} == {"test.entry"}

    run(scenario())


def test_a_replaced_token_that_remembers_nothing_is_recorded_and_taught(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        await live(database, token, 10)
        token.memories.clear()
        async with scene(database, token) as running:
            await running.memory.round()
            record = read_log(database)[-1]
            assert record["type"] == "log.memory_missing"
            assert (record["found_size"], record["checkpoint_size"]) == (10, 10)
            assert running.remembered == 11
            assert await running.signs()

    run(scenario())


def test_a_token_that_comes_back_is_compared_with_again(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        async with scene(database, token) as running:
            head = await running.append(5)
            await running.memory.round()
            assert await running.signs()
            # The same token, told by another frontend meanwhile.
            token.connections += 1
            token.memories[ORIGIN] = head
            await running.memory.round()
            assert await running.signs()
            token.connections += 1
            token.memories[ORIGIN] = TreeHead(5, bytes(32))
            with pytest.raises(LogRolledBackError, match="began with 5 records"):
                await running.memory.round()

    run(scenario())


def test_a_token_that_was_told_more_by_somebody_else_is_asked_again(database: Path, token: FakeToken) -> None:
    async def scenario() -> None:
        async with scene(database, token) as running:
            await running.memory.round()
            await running.checkpoint(5)
            token.memories[ORIGIN] = TreeHead(99, bytes(32))
            await running.memory.round()
            with pytest.raises(LogRolledBackError, match="remembers 99 records"):
                await running.memory.round()

    run(scenario())


def test_a_changed_record_below_the_remembered_size_is_found_even_when_the_store_fits_itself(
    database: Path, token: FakeToken
) -> None:
    """Somebody who can write the store can make its own sums right; those in the token he cannot."""

    async def scenario() -> None:
        await live(database, token, 10)
        async with scene(database.with_name("forged.sqlite3"), FakeToken()) as forger:
            await forger.append(10, "forged")
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT log_size FROM appliance").fetchone() == (10,)
        shutil.move(forger.database, database)
        async with scene(database, token) as running:
            with pytest.raises(LogRolledBackError, match="its records were changed, or it is another log"):
                await running.memory.round()

    run(scenario())
