"""No two checkpoints contradict each other, whoever tries."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from hsmsigner.domain.instant import Instant
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import Checkpoint, Store
from hsmsigner.transparency.merkle import EMPTY_ROOT
from tests.contract.stores import NOW, entry, run, write_log


def checkpoint(size: int, root: bytes = bytes(32)) -> Checkpoint:
    return Checkpoint(size, root, Instant(NOW + size))


async def make(store: Store, *sizes: int) -> None:
    for size in sizes:
        async with store.transaction() as transaction:
            transaction.checkpoints.insert(checkpoint(size))


async def sign(store: Store, size: int, witnesses: int = 0, lines: str = "") -> None:
    async with store.transaction() as transaction:
        transaction.checkpoints.save_note(size, f"note of {size}\n{lines}", witnesses)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite3"


@pytest.mark.parametrize("size", [5, 4, 0])
def test_one_that_is_not_larger_than_all_is_refused(database: Path, size: int) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 5)
        with pytest.raises(ValueError, match=f"{size} records or more"):
            await make(store, size)
        async with store.transaction() as transaction:
            assert transaction.checkpoints.newest() == checkpoint(5)

    run(database, scenario)


def test_the_database_itself_refuses_two_of_one_size(database: Path) -> None:
    run(database, lambda store: make(store, 5))
    with (
        closing(sqlite3.connect(database)) as other,
        pytest.raises(sqlite3.IntegrityError),
    ):
        other.execute("INSERT INTO checkpoints VALUES (5, zeroblob(32), 0, 'another', 0)")


def test_a_note_is_saved_for_one_that_is_there(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 5)
        await sign(store, 5, 2)
        assert list(await store.read_checkpoints(0, 10)) == [
            Checkpoint(5, bytes(32), Instant(NOW + 5), "note of 5\n", 2)
        ]
        with pytest.raises(LookupError):
            await sign(store, 6)

    run(database, scenario)


def test_unsigned_ones_are_shown_to_nobody(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 5, 9)
        assert list(await store.read_checkpoints(0, 10)) == []
        assert await store.read_newest_checkpoint() is None
        await sign(store, 5)
        assert [one.size for one in await store.read_checkpoints(0, 10)] == [5]
        async with store.transaction() as transaction:
            table = transaction.checkpoints
            newest, signed = table.newest(), table.newest_signed()
            assert newest is not None
            assert signed is not None
            assert (newest.size, signed.size, table.first_signed(6)) == (9, 5, None)

    run(database, scenario)


def test_they_are_found_by_size_and_by_witnesses(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 1, 3, 5, 7, 9)
        for size, witnesses in ((1, 4), (3, 2), (5, 3), (7, 1), (9, 0)):
            await sign(store, size, witnesses)
        found = [await store.read_newest_checkpoint(least) for least in range(6)]
        assert [one and one.size for one in found] == [9, 7, 5, 5, 1, None]
        async with store.transaction() as transaction:
            firsts = [transaction.checkpoints.first_signed(least) for least in (0, 3, 4, 10)]
            assert [one and one.size for one in firsts] == [1, 3, 5, None]
        assert [one.size for one in await store.read_checkpoints(3, 2)] == [5, 7]

    run(database, scenario)


def test_the_newest_of_a_witness_is_found_by_how_its_line_begins(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 1, 3, 5)
        await sign(store, 1, 1, "— one abc\n— two x\n")
        await sign(store, 3, 1, "— one def\n")
        await sign(store, 5)
        found = [await store.read_newest_cosigned(start) for start in ("— one ", "— two ", "— on ", "one")]
        assert [one and one.size for one in found] == [3, 1, None, None]

    run(database, scenario)


async def make_and_think_better_of_it(store: Store) -> None:
    async with store.transaction() as transaction:
        transaction.checkpoints.insert(checkpoint(5))
        raise ZeroDivisionError


def test_a_checkpoint_goes_with_the_transaction(database: Path) -> None:
    async def scenario(store: Store) -> None:
        with pytest.raises(ZeroDivisionError):
            await make_and_think_better_of_it(store)
        await make(store, 5)
        await write_log(store, 3)
        async with store.transaction() as transaction:
            assert transaction.tree_head.size == 3
            transaction.append([entry()], NOW)
            head = transaction.tree_head
        assert (head.size, head.root_hash) == (4, await store.root_at(4))

    run(database, scenario)


def test_the_tree_of_an_empty_log_has_a_head(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            assert (transaction.tree_head.size, transaction.tree_head.root_hash) == (0, EMPTY_ROOT)
        assert await store.root_at(0) == EMPTY_ROOT

    run(database, scenario)


def test_reading_from_a_store_that_was_closed_is_refused(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await make(store, 5)
        store._drop()  # type: ignore[attr-defined]  # as after a failed commit
        with pytest.raises(SignerError) as caught:
            await store.read_checkpoints(0, 1)
        assert caught.value.reason is Reason.AUDIT_UNAVAILABLE

    run(database, scenario)
