"""Stores to hold against the contract, and rows to put into them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path

from msgspec.structs import replace

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.record import Entry
from hsmsigner.domain.signing import RequestId
from hsmsigner.operations.ports import PendingKey, RequestKey, RequestState, Store, StoredRequest
from hsmsigner.store.unit_of_work import SqlStore

NOW = Instant(1_800_000_000_000_000)
P256 = ALGORITHMS["ECDSA_P256_SHA256"]
Scenario = Callable[[Store], Coroutine[None, None, None]]


@asynccontextmanager
async def opened(database: Path) -> AsyncIterator[SqlStore]:
    store = SqlStore(f"sqlite:///{database}")
    try:
        await store.reopen()
        yield store
    finally:
        await store.close()


def run(database: Path, scenario: Scenario) -> None:
    async def whole() -> None:
        async with opened(database) as store:
            await scenario(store)

    asyncio.run(asyncio.wait_for(whole(), 60))


def rows(database: Path, query: str) -> list[tuple[object, ...]]:
    """What somebody else sees: another connection, read only."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def tamper(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(statement)


def entry(number: int = 0) -> Entry:
    return Entry("test.entry", {"number": number})


def stored(number: int, **changes: object) -> StoredRequest:
    made = StoredRequest(
        RequestKey("spiffe://test/engine", RequestId(f"00000000-0000-0000-0000-{number:012}")),
        number,
        bytes([number]) * 32,
        RequestState.AUTHORIZED,
        "keys/a/versions/1",
        1,
        NOW,
        Instant(NOW + number),
    )
    return replace(made, **changes)


def pending(key_id: str = "a") -> PendingKey:
    request = RequestKey("spiffe://test/operator", stored(1).key.request_id)
    return PendingKey(KeyName(key_id), P256, CkaId(key_id.encode()), request)


def first_version(key_id: str = "a") -> KeyVersion:
    return KeyVersion(
        VersionName(KeyName(key_id), 1),
        P256,
        KeyState.ACTIVE,
        CkaId(key_id.encode()),
        b"public " + key_id.encode(),
        NOW,
        local=True,
        always_sensitive=True,
        never_extractable=True,
    )


async def write_log(store: Store, count: int) -> None:
    async with store.transaction() as transaction:
        transaction.append([entry(number) for number in range(count)], NOW)
