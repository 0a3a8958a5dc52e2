"""The store and its one write transaction (`Store` and `Transaction` of operations/ports.py).

SQL runs on the event loop's thread, where it is cheap (page cache); what waits for the disk or for another process,
BEGIN IMMEDIATE and COMMIT, runs in one thread of its own. Running all of it in that thread would have both threads
fight over the GIL at every row.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, bindparam, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import KeyName
from hsmsigner.domain.record import FIRST_PREVIOUS_HASH, Entry, encode_record
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import LogPage
from hsmsigner.store.bulk import BulkStatement
from hsmsigner.store.engine import migrate, open_reader, open_writer
from hsmsigner.store.keys import SqlKeyTable, read_signature_counts
from hsmsigner.store.policies import SqlPolicyTable
from hsmsigner.store.requests import SqlRequestTable
from hsmsigner.store.rotations import SqlContinuityTable, SqlLeaseTable, SqlRotationTable
from hsmsigner.store.schema import appliance, audit_records
from hsmsigner.store.usage import SqlUsageTable
from hsmsigner.transparency.merkle import RightEdge, leaf_hash

T = TypeVar("T")

_STATE = select(
    appliance.c.epoch, appliance.c.log_size, appliance.c.log_edge, appliance.c.last_leaf, appliance.c.last_time
).where(appliance.c.id == 1)
_SAVE_STATE = update(appliance).where(appliance.c.id == 1)
_INSERT_RECORD = BulkStatement(insert(audit_records), ("sequence", "record"))
_READ_RECORDS = (
    select(audit_records.c.sequence, audit_records.c.record)
    .where(audit_records.c.sequence >= bindparam("start"))
    .order_by(audit_records.c.sequence)
    .limit(bindparam("most"))
)


class LogDamagedError(Exception):
    """The log's newest records do not fit its tree: someone changed the store. The text says what does not fit."""


class SqlTransaction:
    """One open write transaction; see `operations.ports.Transaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.requests = SqlRequestTable(connection)
        self.usage = SqlUsageTable(connection)
        self.keys = SqlKeyTable(connection)
        self.rotations = SqlRotationTable(connection)
        self.continuity = SqlContinuityTable(connection)
        self.leases = SqlLeaseTable(connection)
        self.policies = SqlPolicyTable(connection)
        row = connection.execute(_STATE).one()
        self.epoch: int = row.epoch
        self.last_time = Instant(row.last_time)
        self._edge = RightEdge.from_bytes(row.log_size, row.log_edge)
        self._last_leaf: bytes = row.last_leaf

    @property
    def next_sequence(self) -> int:
        return self._edge.size

    def append(self, entries: Sequence[Entry], now: Instant) -> int:
        first, time = self._edge.size, format_instant(now)
        rows: list[tuple[int, bytes]] = []
        for entry in entries:
            record = encode_record(entry, self._edge.size, time, self._last_leaf)
            rows.append((self._edge.size, record))
            self._last_leaf = leaf_hash(record)
            self._edge = self._edge.append(self._last_leaf)
        if rows:
            _INSERT_RECORD.run(self._connection, rows)
            self.last_time = now
            self._save_state()
        return first

    def raise_epoch(self) -> None:
        self.epoch += 1
        self._save_state()

    def _save_state(self) -> None:
        self._connection.execute(
            _SAVE_STATE,
            {
                "epoch": self.epoch,
                "log_size": self._edge.size,
                "log_edge": self._edge.to_bytes(),
                "last_leaf": self._last_leaf,
                "last_time": self.last_time,
            },
        )


class SqlStore:
    """The store of one frontend; see `operations.ports.Store`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._writer: Engine | None = None
        self._reader: Engine | None = None
        self._turn = asyncio.Lock()
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="store-commit")
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="store-read")

    async def reopen(self) -> None:
        async with self._turn:
            try:
                await self._in(self._commit_thread, self._open)
            except SQLAlchemyError as error:
                raise _unavailable() from error

    async def close(self) -> None:
        """Let go of the store's files."""
        async with self._turn:
            await self._in(self._commit_thread, self._drop)
        self._commit_thread.shutdown()
        self._read_thread.shutdown()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        async with self._turn:
            begun: tuple[Connection, RootTransaction] | None = None
            try:
                begun = await self._in(self._commit_thread, self._begin)
                yield SqlTransaction(begun[0])
                # Shielded: a commit that was begun must be known to have ended before the lock is given on.
                await asyncio.shield(self._in(self._commit_thread, begun[1].commit))
            except SQLAlchemyError as error:
                raise _unavailable() from error
            finally:
                if begun is not None:
                    begun[0].close()

    async def read_log(self, start: int, limit: int) -> LogPage:
        try:
            return await self._in(self._read_thread, lambda: self._read_page(start, limit))
        except SQLAlchemyError as error:
            raise _unavailable() from error

    async def read_signature_counts(self, name: KeyName) -> dict[int, int]:
        def read() -> dict[int, int]:
            if self._reader is None:
                raise _unavailable()
            with self._reader.begin() as connection:
                return read_signature_counts(connection, name)

        try:
            return await self._in(self._read_thread, read)
        except SQLAlchemyError as error:
            raise _unavailable() from error

    def _begin(self) -> tuple[Connection, RootTransaction]:
        if self._writer is None:
            raise _unavailable()
        connection = self._writer.connect()
        try:
            return connection, connection.begin()
        except BaseException:
            connection.close()
            raise

    def _open(self) -> None:
        self._drop()
        self._writer, self._reader = open_writer(self._url), open_reader(self._url)
        migrate(self._writer)
        with self._reader.begin() as connection:
            _check_end(connection)

    def _drop(self) -> None:
        for engine in (self._writer, self._reader):
            if engine is not None:
                engine.dispose()
        self._writer = self._reader = None

    def _read_page(self, start: int, limit: int) -> LogPage:
        if self._reader is None:
            raise _unavailable()
        with self._reader.begin() as connection:
            row = connection.execute(_STATE).one()
            edge = RightEdge.from_bytes(row.log_size, row.log_edge)
            rows = connection.execute(_READ_RECORDS, {"start": start, "most": limit})
            return LogPage([(sequence, record) for sequence, record in rows], edge.size, edge.root())

    @staticmethod
    async def _in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(thread, work)


def _check_end(connection: Connection) -> None:
    """See that the newest record is the one the tree ends with; the whole log is `hsmsigner audit verify`'s work."""
    row = connection.execute(_STATE).one()
    newest = connection.execute(
        select(audit_records.c.sequence, audit_records.c.record).order_by(audit_records.c.sequence.desc()).limit(1)
    ).one_or_none()
    size = 0 if newest is None else newest.sequence + 1
    leaf = FIRST_PREVIOUS_HASH if newest is None else leaf_hash(newest.record)
    if size != row.log_size or leaf != row.last_leaf:
        raise LogDamagedError(
            f"the audit log ends with record {size - 1}, but its tree has {row.log_size} records"
            if size != row.log_size
            else f"audit record {size - 1} is not the one that was written"
        )


def _unavailable() -> SignerError:
    return SignerError(
        Reason.AUDIT_UNAVAILABLE,
        "the audit log cannot be written, so nothing is signed; retry with the same request_id",
        retry_after_s=1.0,
    )
