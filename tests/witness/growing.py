"""A real store whose log grows, with checkpoints signed by a key of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hsmsigner.domain.record import Entry
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.store.unit_of_work import SqlStore
from hsmsigner.transparency.checkpoint import CheckpointBody
from hsmsigner.transparency.note import KeyType, write_note
from tests.fakes import FakeClock
from tests.witness.twins import ORIGIN, note_key, seeded_key

DEADLINE_S = 40.0


@dataclass
class GrowingLog:
    """What the maker of checkpoints does, without a token."""

    store: SqlStore
    clock: FakeClock = field(default_factory=FakeClock)
    signer: Ed25519PrivateKey = field(default_factory=lambda: seeded_key("log"))

    async def grow(self, count: int) -> None:
        async with self.store.transaction() as transaction:
            entries = [Entry("test.entry", {"number": number}) for number in range(count)]
            transaction.append(entries, self.clock())

    async def checkpoint(self, count: int = 0) -> Checkpoint:
        """Let it grow, and sign what it is then."""
        if count:
            await self.grow(count)
        async with self.store.transaction() as transaction:
            head = transaction.tree_head
            made = Checkpoint(head.size, head.root_hash, self.clock())
            text = CheckpointBody(ORIGIN, head.size, head.root_hash).text
            line = note_key(ORIGIN, KeyType.ED25519, self.signer).line(self.signer.sign(text.encode()))
            made = replace(made, note=write_note(text, [line]))
            transaction.checkpoints.insert(made)
        return made

    async def stored(self, size: int) -> Checkpoint:
        async with self.store.transaction() as transaction:
            found = transaction.checkpoints.first_signed(size)
        assert found is not None
        assert found.size == size
        return found


@asynccontextmanager
async def growing(folder: Path) -> AsyncIterator[GrowingLog]:
    store = SqlStore(f"sqlite:///{folder / 'store.sqlite3'}")
    await store.reopen()
    try:
        yield GrowingLog(store)
    finally:
        await store.close()


@asynccontextmanager
async def at_work(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run something that never ends; what goes wrong in it comes out."""
    task = asyncio.ensure_future(work)
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(is_so: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = is_so()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)
