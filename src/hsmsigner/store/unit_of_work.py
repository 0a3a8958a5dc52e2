"""The store and its one write transaction (`Store` and `Transaction` of operations/ports/store.py).

SQL runs on the event loop's thread, where it is cheap (page cache); COMMIT, which waits for the disk, runs in a thread
of its own. Running all of it in that thread would have both threads fight over the GIL at every row.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, RootTransaction, bindparam, insert, make_url, select, update
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import KeyName
from hsmsigner.domain.record import FIRST_PREVIOUS_HASH, Entry, encode_record
from hsmsigner.errors import cannot_record
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
_log = logging.getLogger(__name__)

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


LOCK_PATIENCE_S = 5.0
LOCK_RETRY_S = 0.005


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
        # The writer's one connection, kept: taking it from the pool for every turn would be felt.
        self._connection: Connection | None = None
        # Device and inode of the file we began with; None for a store that is no file.
        self._identity: tuple[int, int] | None = None
        self._writing = asyncio.Lock()
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="store-commit")
        self._read_thread = ThreadPoolExecutor(1, thread_name_prefix="store-read")

    async def reopen(self) -> None:
        async with self._writing:
            try:
                await self._run_in(self._commit_thread, self._open)
            except SQLAlchemyError as error:
                raise cannot_record() from error

    async def close(self) -> None:
        """Let go of the store's files."""
        async with self._writing:
            await self._run_in(self._commit_thread, self._drop)
        self._commit_thread.shutdown()
        self._read_thread.shutdown()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        async with self._writing:
            begun = await self._begin()
            try:
                yield SqlTransaction(begun.connection)
                await self._commit(begun)
            except SQLAlchemyError as error:
                raise cannot_record() from error
            finally:
                self._roll_back(begun)

    async def read_log(self, start: int, limit: int) -> LogPage:
        try:
            return await self._run_in(self._read_thread, lambda: self._read_page(start, limit))
        except SQLAlchemyError as error:
            raise cannot_record() from error

    async def read_signature_counts(self, name: KeyName) -> dict[int, int]:
        def read() -> dict[int, int]:
            if self._reader is None:
                raise cannot_record()
            with self._reader.begin() as connection:
                return read_signature_counts(connection, name)

        try:
            return await self._run_in(self._read_thread, read)
        except SQLAlchemyError as error:
            raise cannot_record() from error

    async def _begin(self) -> RootTransaction:
        """Take the write lock; waits for another process's (a backup, `sqlite3`) without holding up the event loop."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + LOCK_PATIENCE_S
        while self._connection is not None:
            self._require_same_file()
            try:
                return self._connection.begin()
            except SQLAlchemyError as error:
                if loop.time() >= until_s:
                    raise cannot_record() from error
            await asyncio.sleep(LOCK_RETRY_S)
        raise cannot_record()

    async def _commit(self, begun: RootTransaction) -> None:
        try:
            await self._run_in(self._commit_thread, begun.commit)
        except SQLAlchemyError:
            # Nobody knows what a failed fsync left behind: this connection is never used again.
            self._drop()
            raise

    def _roll_back(self, begun: RootTransaction) -> None:
        """Undo what was not committed, also when the caller was cancelled on the way."""
        if begun.is_active:
            try:
                begun.rollback()
            except SQLAlchemyError:
                self._drop()

    def _require_same_file(self) -> None:
        """See that the store's file is still there and still the one we began with.

        What is written to a file that was deleted or replaced is durable nowhere; and opening a new one in its place
        would forget every quota. One stat per turn.
        """
        if self._identity is not None and _identity(self._url) != self._identity:
            self._drop()
            _log.error("the store's file is gone or was replaced; put it back, or restart to accept the new one")
            raise cannot_record()

    def _open(self) -> None:
        self._require_same_file()
        self._drop()
        self._writer, self._reader = open_writer(self._url), open_reader(self._url)
        try:
            _migrate(self._writer)
            with self._reader.begin() as connection:
                _check_end(connection)
            self._connection = self._writer.connect()
            self._identity = _identity(self._url)
        except BaseException:
            # Nobody may write after a log that does not end as it was written, or into a schema half made.
            self._drop()
            raise

    def _drop(self) -> None:
        self._connection = None
        for engine in (self._writer, self._reader):
            if engine is not None:
                engine.dispose()
        self._writer = self._reader = None

    def _read_page(self, start: int, limit: int) -> LogPage:
        if self._reader is None:
            raise cannot_record()
        with self._reader.begin() as connection:
            row = connection.execute(_STATE).one()
            edge = RightEdge.from_bytes(row.log_size, row.log_edge)
            rows = connection.execute(_READ_RECORDS, {"start": start, "most": limit})
            return LogPage([(sequence, _as_bytes(record)) for sequence, record in rows], edge.size, edge.root())

    @staticmethod
    async def _run_in(thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Run in the thread, to the end even if the caller is cancelled.

        A BEGIN or COMMIT that was begun must be known to have ended before the connection is used again.
        """
        ended = asyncio.get_running_loop().run_in_executor(thread, work)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            await asyncio.wait({ended})
            raise


def _identity(url: str) -> tuple[int, int] | None:
    path = make_url(url).database
    try:
        status = os.stat(path) if path else None  # noqa: PTH116 - measured: Path.stat costs twice as much
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino) if status else None


def _check_end(connection: Connection) -> None:
    """See that the newest record is the one the tree ends with; the whole log is `hsmsigner audit verify`'s work."""
    row = connection.execute(_STATE).one()
    newest = connection.execute(
        select(audit_records.c.sequence, audit_records.c.record).order_by(audit_records.c.sequence.desc()).limit(1)
    ).one_or_none()
    size = 0 if newest is None else newest.sequence + 1
    leaf = FIRST_PREVIOUS_HASH if newest is None else _leaf(newest.record)
    if size != row.log_size or leaf != row.last_leaf:
        raise LogDamagedError(
            f"the audit log ends with record {size - 1}, but its tree has {row.log_size} records"
            if size != row.log_size
            else f"audit record {size - 1} is not the one that was written"
        )
    try:
        RightEdge.from_bytes(row.log_size, row.log_edge)
        format_instant(row.last_time)
    except (ValueError, TypeError, OverflowError) as error:
        raise LogDamagedError("the store's own account of the log and its tree cannot be read") from error


def _migrate(engine: Engine) -> None:
    try:
        migrate(engine)
    except CommandError as error:
        raise LogDamagedError("the store has a schema that this version of the program does not know") from error


def _as_bytes(record: object) -> bytes:
    # What somebody else wrote may be of any type; the verifier is to see it, not to fail on it.
    return record if isinstance(record, bytes) else str(record).encode()


def _leaf(record: object) -> bytes:
    # An edit by hand easily leaves text where bytes were: SQLite keeps whatever type it is given.
    return leaf_hash(record) if isinstance(record, bytes) else b""
