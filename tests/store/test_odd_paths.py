"""A store works, heals and is looked at whatever the name of its folder: #, ? and % mean something in URLs."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import pytest

from hsmsigner.store.inspection import inspect_store, read_heads
from hsmsigner.store.unit_of_work import SqlStore
from tests.store.logs import write


@pytest.mark.parametrize("name", ["a#b", "a?b", "a%20b", "a b", "ä"])
def test_an_odd_name_is_the_name_of_one_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = folder / "store.sqlite3"

    async def scenario() -> None:
        store = SqlStore(f"sqlite:///{quote(str(database))}")
        await store.reopen()
        await write(store, 0, 3)
        await store.reopen()
        assert read_heads(database, 3)[0].size == 3
        await write(store, 3, 2)
        await store.close()

    asyncio.run(scenario())
    assert inspect_store(database).head.size == 5
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM audit_records").fetchone() == (5,)
    assert [path.name for path in tmp_path.iterdir()] == [name]
