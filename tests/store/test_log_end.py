"""A store whose tiles do not fit its log is not opened."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.unit_of_work import SqlStore
from tests.contract.stores import opened, rows, tamper
from tests.store.logs import write


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("DELETE FROM tree_tiles WHERE number = 2", "level 0 .* ends with tile 1, but 3 tiles are full"),
        ("DELETE FROM tree_tiles", "level 0 .* ends with tile None, but 3"),
        ("INSERT INTO tree_tiles VALUES (0, 3, zeroblob(32), zeroblob(8192))", "ends with tile 3, but 3"),
        ("INSERT INTO tree_tiles VALUES (1, 0, zeroblob(32), zeroblob(8192))", "level 1 .* ends with tile 0, but 0"),
        ("UPDATE tree_tiles SET root = zeroblob(32) WHERE number = 0", "do not have the root"),
        ("UPDATE tree_tiles SET root = zeroblob(31) WHERE number = 0", "tile 0 of level 1 .* not as it was written"),
        ("DELETE FROM tree_tiles WHERE number = 1", "tile 0 of level 1 .* not as it was written"),
        ("UPDATE audit_records SET record = CAST('{}' AS BLOB) WHERE sequence = 770", "do not have the root"),
        ("UPDATE audit_records SET record = '{}' WHERE sequence = 770", "tile 3 of level 0"),
        ("DELETE FROM audit_records WHERE sequence = 770", "tile 3 of level 0"),
        ("DELETE FROM audit_records WHERE sequence < 10", "record 0 is gone, and was not sealed"),
        ("UPDATE appliance SET first_sequence = 2000", "begins with record 2000, but its tree has 800"),
        ("UPDATE appliance SET log_edge = zeroblob(length(log_edge))", "do not have the root"),
    ],
)
def test_tiles_that_do_not_fit_the_log_are_told(tmp_path: Path, statement: str, words: str) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 800)
        tamper(database, statement)
        again = SqlStore(f"sqlite:///{database}")
        try:
            with pytest.raises(LogDamagedError, match=words):
                await again.reopen()
        finally:
            await again.close()

    asyncio.run(scenario())


def test_a_log_of_which_all_is_sealed_goes_on(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 512)
            tamper(database, "UPDATE appliance SET first_sequence = 512")
            tamper(database, "DELETE FROM audit_records")
            await store.reopen()
            await write(store, 512, 300)
            await store.reopen()
            assert len(await store.inclusion_proof(3, 812)) == 10
        assert rows(database, "SELECT count(*) FROM tree_tiles") == [(3,)]

    asyncio.run(scenario())
