"""The contract of `Store` and `Transaction` (operations/ports): one transaction, one log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.operations.ports import Store
from hsmsigner.transparency.merkle import RightEdge, leaf_hash
from tests.contract.stores import NOW, entry, pending, rows, run, stored, write_log


def test_nothing_is_kept_when_the_block_raises(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            before = transaction.epoch
        with pytest.raises(RuntimeError, match="changed my mind"):
            await write_and_think_better_of_it(store)
        async with store.transaction() as transaction:
            assert (transaction.next_sequence, transaction.epoch, transaction.last_time) == (0, before, 0)
            assert transaction.usage.load([CounterId("c")]) == {}
            assert transaction.requests.find([stored(0).key]) == {}
            assert transaction.keys.load_pending() == []
        assert (await store.read_log(0, 10)).records == []

    run(database, scenario)


async def write_and_think_better_of_it(store: Store) -> None:
    async with store.transaction() as transaction:
        transaction.append([entry()], NOW)
        transaction.usage.save({CounterId("c"): Usage(((1, 1),))})
        transaction.requests.insert([stored(0)])
        transaction.keys.insert_pending(pending(), NOW)
        transaction.raise_epoch()
        raise RuntimeError("changed my mind")


def test_what_the_block_wrote_is_there_for_others_once_it_was_left(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.append([entry()], NOW)
            assert rows(database, "SELECT * FROM audit_records") == []
        assert len(rows(database, "SELECT * FROM audit_records")) == 1

    run(database, scenario)


def test_it_is_there_after_the_store_was_opened_anew(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 2)
        await store.reopen()
        async with store.transaction() as transaction:
            assert (transaction.next_sequence, transaction.last_time) == (2, NOW)

    run(database, scenario)

    async def later(store: Store) -> None:
        assert (await store.read_log(0, 10)).tree_size == 2

    run(database, later)


def test_records_are_numbered_and_chained_across_transactions(database: Path) -> None:
    async def scenario(store: Store) -> None:
        for first, count in ((0, 3), (3, 0), (3, 1), (4, 4)):
            async with store.transaction() as transaction:
                assert transaction.next_sequence == first
                assert transaction.append([entry(first + offset) for offset in range(count)], NOW) == first
                assert transaction.next_sequence == first + count
        page = await store.read_log(0, 100)
        assert [sequence for sequence, _ in page.records] == list(range(8))
        edge, previous = RightEdge(), bytes(32)
        for sequence, record in page.records:
            fields = json.loads(record)
            assert (fields["sequence"], fields["number"]) == (sequence, sequence)
            assert fields["previous_hash"] == previous.hex()
            previous = leaf_hash(record)
            edge = edge.append(previous)
        assert (page.tree_size, page.root_hash) == (edge.size, edge.root())

    run(database, scenario)


def test_appending_nothing_changes_nothing(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 1)
        async with store.transaction() as transaction:
            transaction.append([], Instant(NOW + 1))
        async with store.transaction() as transaction:
            assert (transaction.next_sequence, transaction.last_time) == (1, NOW)

    run(database, scenario)


def test_the_last_time_is_that_of_the_newest_record(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            transaction.append([entry()], NOW)
            assert transaction.last_time == NOW
            transaction.append([entry()], Instant(NOW + 7))
        async with store.transaction() as transaction:
            assert transaction.last_time == NOW + 7

    run(database, scenario)


@pytest.mark.parametrize(
    ("start", "limit", "expected"),
    [(0, 2, [0, 1]), (3, 10, [3, 4]), (5, 10, []), (10**18 - 1, 1, []), (0, 0, [])],
)
def test_a_page_of_the_log_has_what_was_asked_for(database: Path, start: int, limit: int, expected: list[int]) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 5)
        page = await store.read_log(start, limit)
        assert [sequence for sequence, _ in page.records] == expected
        assert page.tree_size == 5

    run(database, scenario)


def test_the_log_can_be_read_while_a_transaction_is_open(database: Path) -> None:
    async def scenario(store: Store) -> None:
        await write_log(store, 2)
        async with store.transaction() as transaction:
            transaction.append([entry()], NOW)
            page = await asyncio.wait_for(store.read_log(0, 10), 60)
            assert (len(page.records), page.tree_size) == (2, 2)
        assert (await store.read_log(0, 10)).tree_size == 3

    run(database, scenario)


def test_transactions_take_turns(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async def add() -> int:
            async with store.transaction() as transaction:
                first = transaction.append([entry()], NOW)
                await asyncio.sleep(0)  # lets the others run into this one
                return first

        assert sorted(await asyncio.gather(*(add() for _ in range(20)))) == list(range(20))

    run(database, scenario)


def test_an_epoch_rises_and_stays(database: Path) -> None:
    async def scenario(store: Store) -> None:
        async with store.transaction() as transaction:
            before = transaction.epoch
            transaction.raise_epoch()
            assert transaction.epoch == before + 1
        async with store.transaction() as transaction:
            transaction.append([entry()], NOW)
            assert transaction.epoch == before + 1

    run(database, scenario)
