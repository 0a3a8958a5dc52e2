"""The tree that the store keeps is that of RFC 9162, however the records came in."""

from __future__ import annotations

import asyncio
import random
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.ports import LogReader, Store
from tests.contract.stores import opened, rows, tamper
from tests.rfc9162 import NaiveTree
from tests.store.logs import NOW, made_up, read_all, rfc_tree, write

EDGES = (1, 2, 255, 256, 257, 511, 512, 65_279, 65_280, 65_535, 65_536, 65_537, 65_792)


class ChangedMyMind(Exception):
    pass


# One step: which of two stores on one file writes, how many records in how many goes, and how it ends.
steps = st.tuples(
    st.integers(0, 1),
    st.lists(st.one_of(st.integers(0, 40), st.sampled_from([255, 256, 257, 600])), min_size=1, max_size=3),
    st.sampled_from(["commit", "commit", "commit", "roll back", "reopen"]),
)


@given(st.lists(steps, min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_roots_proofs_and_tiles_are_right_whoever_wrote_and_whatever_was_rolled_back(
    plan: list[tuple[int, list[int], str]],
) -> None:
    async def scenario(folder: str) -> None:
        database = Path(folder) / "store.sqlite3"
        async with AsyncExitStack() as stack:
            stores = [await stack.enter_async_context(opened(database)) for _ in range(2)]
            size = 0
            for writer, counts, end in plan:
                if end == "reopen":
                    await stores[writer].reopen()
                    continue
                try:
                    await write_some(stores[writer], size, counts, is_kept=end == "commit")
                except ChangedMyMind:
                    continue
                size += sum(counts)
            records = await read_all(stores[0])
            assert len(records) == size
            naive = rfc_tree(records)
            for tree_size in {0, 1, size // 2, size - size % 256, size} & set(range(size + 1)):
                await compare(stores[1], naive, tree_size, 0, tree_size // 3)
                await compare(stores[0], naive, tree_size, tree_size - 1, tree_size)
            for store in stores:
                await store.reopen()  # which sees that the tiles fit

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(asyncio.wait_for(scenario(folder), 60))


async def write_some(store: Store, first: int, counts: list[int], *, is_kept: bool) -> None:
    async with store.transaction() as transaction:
        for count in counts:
            transaction.append([made_up(first + number) for number in range(count)], Instant(NOW + first))
            first += count
            assert transaction.tree_head.size == transaction.next_sequence == first
        if not is_kept:
            raise ChangedMyMind


async def compare(reader: LogReader, naive: NaiveTree, size: int, index: int, old: int) -> None:
    assert await reader.root_at(size) == naive.root(size)
    assert await reader.consistency_proof(old, size) == naive.proof(old, size)
    if 0 <= index < size:
        assert await reader.inclusion_proof(index, size) == naive.path(index, size)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, NaiveTree]:
    """A store with a full tile of level 1, and its tree."""
    database = tmp_path_factory.mktemp("large") / "store.sqlite3"
    chance = random.Random(1)  # noqa: S311 - the same log every time

    async def fill() -> NaiveTree:
        async with opened(database) as store:
            size = 0
            while size < 66_000:
                count = chance.choice([1, 100, 256, 1500, 4000])
                await write(store, size, count)
                size += count
            return rfc_tree(await read_all(store, limit=5000))

    return database, asyncio.run(fill())


def test_proofs_across_the_levels_are_those_of_the_rfc(large: tuple[Path, NaiveTree]) -> None:
    database, naive = large
    most = len(naive.leaves)
    chance = random.Random(2)  # noqa: S311 - the same questions every time

    async def scenario() -> None:
        async with opened(database) as store:
            for size in (*EDGES, *(chance.randrange(most) for _ in range(40)), most):
                for _ in range(3):
                    index, old = chance.randrange(size), chance.choice([0, *(e for e in EDGES if e <= size), size])
                    await compare(store, naive, size, index, old)

    asyncio.run(scenario())


def test_a_tile_is_stored_once_when_it_is_full(large: tuple[Path, NaiveTree]) -> None:
    database, naive = large
    full = len(naive.leaves) // 256
    assert rows(database, "SELECT level, count(*) FROM tree_tiles GROUP BY level") == [(0, full), (1, full // 256)]
    assert rows(database, "SELECT max(length(hashes)), min(length(hashes)) FROM tree_tiles") == [(8192, 8192)]


def test_tiles_are_given_full_and_partial(large: tuple[Path, NaiveTree]) -> None:
    database, naive = large
    size = len(naive.leaves)

    async def scenario() -> None:
        async with opened(database) as store:
            assert await store.read_tile(0, 3) == (naive.leaves[768:1024], size)
            assert await store.read_tile(0, size // 256) == (naive.leaves[size - size % 256 :], size)
            above, _ = await store.read_tile(1, 0)
            assert len(above) == 256
            right_edge, _ = await store.read_tile(1, 1)
            assert len(right_edge) == size // 256 - 256
            assert await store.read_tile(2, 0) == ([naive.root(65_536)], size)
            for level, number in ((0, size // 256 + 1), (2, 1), (3, 0), (2**32 - 1, 0), (0, 2**64 - 1)):
                with pytest.raises(LookupError):
                    await store.read_tile(level, number)

    asyncio.run(scenario())


def test_what_is_beyond_the_log_is_not_there(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            await write(store, 0, 5)
            with pytest.raises(LookupError):
                await store.root_at(6)
            with pytest.raises(LookupError):
                await store.inclusion_proof(5, 5)
            with pytest.raises(LookupError):
                await store.inclusion_proof(0, 6)
            with pytest.raises(LookupError):
                await store.consistency_proof(5, 6)
            with pytest.raises(LookupError):
                await store.consistency_proof(5, 4)

    asyncio.run(scenario())


def test_a_cancelled_transaction_leaves_no_trace_in_the_tiles(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with opened(tmp_path / "store.sqlite3") as store:
            await write(store, 0, 200)
            reached = asyncio.Event()

            async def hang() -> None:
                async with store.transaction() as transaction:
                    transaction.append([made_up(number) for number in range(200, 300)], Instant(NOW + 200))
                    reached.set()
                    await asyncio.Event().wait()

            task = asyncio.create_task(hang())
            await reached.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await write(store, 200, 100)
            naive = rfc_tree(await read_all(store))
            await compare(store, naive, 300, 250, 200)
            await store.reopen()

    asyncio.run(scenario())


def test_a_changed_tile_is_told_when_it_is_used(tmp_path: Path) -> None:
    database = tmp_path / "store.sqlite3"

    async def scenario() -> None:
        async with opened(database) as store:
            await write(store, 0, 600)
            tamper(database, "UPDATE tree_tiles SET hashes = zeroblob(31) WHERE number = 0")
            with pytest.raises(Exception, match=r"tile 0 of level 0 .* is not as it was written"):
                await store.inclusion_proof(3, 600)

    asyncio.run(scenario())
