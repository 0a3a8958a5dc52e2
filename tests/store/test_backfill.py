"""A log that was written before there were tiles gets the same as one that was written with them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.engine import open_writer
from hsmsigner.store.unit_of_work import SqlStore
from tests.contract.stores import opened, rows
from tests.store.logs import read_all, rfc_tree, write

_LOG = ("epoch", "log_size", "log_edge", "last_leaf", "last_time")
_COMPARED = (
    "SELECT level, number, root, hashes FROM tree_tiles ORDER BY level, number",
    "SELECT type, key, principal, tile FROM record_kinds JOIN kind_tiles USING (kind) ORDER BY 1, 2, 3, 4",
    "SELECT tile, request_ids, signatures FROM tile_prefixes ORDER BY tile",
)


def to_second_schema(database: Path) -> None:
    """Make an empty store of schema 0002, as that release made it."""
    config = Config()
    config.set_main_option("script_location", "hsmsigner.store:migrations")
    engine = open_writer(f"sqlite:///{database}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
    engine.dispose()


async def write_today(database: Path, size: int) -> None:
    async with opened(database) as store:
        for first in range(0, size, 5000):
            await write(store, first, min(5000, size - first))


def copy_log(today: Path, old: Path) -> None:
    to_second_schema(old)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("ATTACH DATABASE ? AS today", (str(today),))
        connection.execute("INSERT INTO audit_records SELECT * FROM today.audit_records")
        columns = ", ".join(_LOG)
        connection.execute("DELETE FROM appliance")
        connection.execute(f"INSERT INTO appliance (id, {columns}) SELECT 1, {columns} FROM today.appliance")  # noqa: S608


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 3000, 66_000])
def test_a_log_of_before_gets_what_it_would_have_been_written_with(tmp_path: Path, size: int) -> None:
    today, old = tmp_path / "today.sqlite3", tmp_path / "old.sqlite3"

    async def scenario() -> None:
        await write_today(today, size)
        copy_log(today, old)
        async with opened(old) as store:
            for query in _COMPARED:
                assert rows(old, query) == rows(today, query)
            await write(store, size, 300)
            assert (await store.read_log(0, 1)).tree_size == size + 300
            if size < 60_000:
                tree = rfc_tree(await read_all(store))
                assert await store.root_at(size) == tree.root(size)
                assert await store.consistency_proof(size, size + 300) == tree.proof(size, size + 300)
            await store.reopen()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM audit_records WHERE sequence = 300", "missing between 256 and 511"),
        ("UPDATE audit_records SET record = CAST('{}' AS BLOB) WHERE sequence = 300", "do not have the root"),
        ("UPDATE audit_records SET record = 'text' WHERE sequence = 5", "do not have the root"),
        ("UPDATE audit_records SET sequence = -1 WHERE sequence = 0", "missing between 0 and 255"),
    ],
)
def test_a_log_of_before_that_was_changed_is_not_opened(tmp_path: Path, statement: str, words: str) -> None:
    today, old = tmp_path / "today.sqlite3", tmp_path / "old.sqlite3"

    async def scenario() -> None:
        await write_today(today, 1000)
        copy_log(today, old)
        with closing(sqlite3.connect(old)) as connection, connection:
            connection.execute(statement)
        store = SqlStore(f"sqlite:///{old}")
        try:
            with pytest.raises(LogDamagedError, match=words):
                await store.reopen()
        finally:
            await store.close()

    asyncio.run(scenario())
