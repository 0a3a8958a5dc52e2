"""The contract of `Store` when things go wrong: damage, a locked or full database, a crash of the caller."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import Store
from hsmsigner.store import unit_of_work
from hsmsigner.store.log import LogDamagedError
from hsmsigner.store.unit_of_work import SqlStore
from tests.contract.stores import NOW, run, tamper, write_log


@pytest.mark.parametrize(("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)])
def test_commits_wait_for_the_disk(database: Path, pragma: str, value: object) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            connection = transaction._connection  # type: ignore[attr-defined]  # below the port, on purpose
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar_one() == value

    run(database, scenario)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE audit_records SET record = replace(record, '2', '3') WHERE sequence = 2", "record 2 is not the one"),
        ("UPDATE audit_records SET record = CAST(record || ' ' AS BLOB) WHERE sequence = 2", "record 2 is not the one"),
        ("DELETE FROM audit_records WHERE sequence = 2", "ends with record 1, but its tree has 3"),
        ("DELETE FROM audit_records", "ends with record -1, but its tree has 3"),
        ("UPDATE audit_records SET sequence = 3 WHERE sequence = 2", "ends with record 3, but its tree has 3"),
        ("INSERT INTO audit_records VALUES (3, '{}')", "ends with record 3, but its tree has 3"),
        ("UPDATE appliance SET log_size = 2", "ends with record 2, but its tree has 2"),
        ("UPDATE appliance SET last_leaf = zeroblob(32)", "record 2 is not the one"),
        ("UPDATE appliance SET log_edge = zeroblob(32)", "tree"),
    ],
)
def test_a_log_that_does_not_end_as_it_was_written_is_not_opened(database: Path, statement: str, words: str) -> None:
    run(database, lambda store: write_log(store, 3))
    tamper(database, statement)

    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{database}")
        try:
            with pytest.raises(LogDamagedError, match=words):
                await store.reopen()
        finally:
            await store.close()

    asyncio.run(scenario())


def test_a_damaged_log_is_neither_written_nor_read_on(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 3)
        tamper(database, "DELETE FROM audit_records WHERE sequence = 2")
        with pytest.raises(LogDamagedError):
            await store.reopen()
        with pytest.raises(SignerError) as writing:
            await write_log(store, 1)
        with pytest.raises(SignerError) as reading:
            await store.read_log(0, 10)
        assert {writing.value.reason, reading.value.reason} == {Reason.AUDIT_UNAVAILABLE}

    run(database, scenario)


def test_a_store_that_another_process_holds_says_so_and_works_again_later(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_of_work, "LOCK_PATIENCE_S", 0.02)

    async def scenario(store: Store) -> None:
        await write_log(store, 1)
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(SignerError) as caught:
                await write_log(store, 1)
            assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
            assert caught.value.retry_after_s is not None
            assert (await store.read_log(0, 10)).tree_size == 1
            other.execute("ROLLBACK")
        await write_log(store, 1)
        assert (await store.read_log(0, 10)).tree_size == 2

    run(database, scenario)


def test_a_full_disk_says_so_keeps_nothing_and_works_again_with_room(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 1)
        with pytest.raises(SignerError) as caught:
            await write_beyond_the_room_there_is(store)
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
        assert "full" not in caught.value.message
        await store.reopen()
        await write_log(store, 1)
        assert (await store.read_log(0, 10)).tree_size == 2

    run(database, scenario)


async def write_beyond_the_room_there_is(store: Store) -> None:
    async with store.transaction() as transaction:
        connection = transaction._connection  # type: ignore[attr-defined]  # below the port, on purpose
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        transaction.append([Entry("test.entry", {"filler": "x" * 100_000})], NOW)


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.sqlite3"
    garbage.write_bytes(b"not a database" * 100)

    async def scenario(database: Path) -> None:
        store = SqlStore(f"sqlite:///{database}")
        try:
            with pytest.raises(SignerError) as caught:
                await store.reopen()
            assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
            assert str(tmp_path) not in caught.value.message
        finally:
            await store.close()

    for database in (garbage, tmp_path / "no such folder" / "store.sqlite3", tmp_path):
        asyncio.run(scenario(database))


def test_a_store_that_was_never_opened_refuses(database: Path) -> None:
    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{database}")
        with pytest.raises(SignerError) as writing:
            await write_log(store, 1)
        with pytest.raises(SignerError) as reading:
            await store.read_log(0, 1)
        await store.close()
        assert {writing.value.reason, reading.value.reason} == {Reason.AUDIT_UNAVAILABLE}

    asyncio.run(scenario())
