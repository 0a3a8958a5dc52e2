"""The store and its one write transaction (`Store` and `Transaction` of operations/ports/store.py).

SQL runs on the event loop's thread, where it is cheap (page cache); COMMIT, which waits for the disk, runs in a thread
of its own. Running all of it in that thread would have both threads fight over the GIL at every row.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, RootTransaction, make_url
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.domain.key import KeyName
from hsmsigner.errors import cannot_record
from hsmsigner.store.engine import migrate, open_reader, open_writer
from hsmsigner.store.keys import read_signature_counts
from hsmsigner.store.log import LogDamagedError, check_end
from hsmsigner.store.migrations.backfill_0003 import BackfillError
from hsmsigner.store.reader import SqlLogReader
from hsmsigner.store.threads import run_in
from hsmsigner.store.tiles import OpenTile
from hsmsigner.store.transaction import SqlTransaction

_log = logging.getLogger(__name__)

LOCK_PATIENCE_S = 5.0
LOCK_RETRY_S = 0.005


class SqlStore(SqlLogReader):
    """The store of one frontend; see `operations.ports.Store`."""

    def __init__(self, url: str, on_commit: Callable[[int], None] | None = None) -> None:
        """`on_commit` is told the log's size after every commit, on the event loop."""
        super().__init__()
        self._url = url
        self._on_commit = on_commit
        self._writer: Engine | None = None
        # The writer's one connection, kept: taking it from the pool for every turn would be felt.
        self._connection: Connection | None = None
        # Device and inode of the file we began with; None for a store that is no file.
        self._identity: tuple[int, int] | None = None
        self._writing = asyncio.Lock()
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix="store-commit")
        # What the last committed transaction left of the tile that is not full yet.
        self._open_tile: OpenTile | None = None

    async def reopen(self) -> None:
        async with self._writing:
            try:
                await run_in(self._commit_thread, self._open)
            except SQLAlchemyError as error:
                raise cannot_record() from error

    async def close(self) -> None:
        """Let go of the store's files."""
        async with self._writing:
            await run_in(self._commit_thread, self._drop)
        self._commit_thread.shutdown()
        self._read_threads.shutdown()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        async with self._writing:
            begun = await self._begin()
            try:
                transaction = SqlTransaction(begun.connection, self._open_tile)
                yield transaction
                await self._commit(begun)
                self._open_tile = transaction.open_tile
            except SQLAlchemyError as error:
                raise cannot_record() from error
            finally:
                self._roll_back(begun)
        if self._on_commit is not None:
            self._on_commit(transaction.next_sequence)

    async def read_signature_counts(self, name: KeyName) -> dict[int, int]:
        return await self._read(lambda connection: read_signature_counts(connection, name))

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
            await run_in(self._commit_thread, begun.commit)
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
                check_end(connection)
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


def _identity(url: str) -> tuple[int, int] | None:
    path = make_url(url).database
    try:
        status = os.stat(path) if path else None  # noqa: PTH116 - measured: Path.stat costs twice as much
    except OSError:
        return (0, 0)
    return (status.st_dev, status.st_ino) if status else None


def _migrate(engine: Engine) -> None:
    try:
        migrate(engine)
    except CommandError as error:
        raise LogDamagedError("the store has a schema that this version of the program does not know") from error
    except BackfillError as error:
        raise LogDamagedError(str(error)) from error
