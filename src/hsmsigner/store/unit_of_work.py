"""The store and its one write transaction (`Store` and `Transaction` of operations/ports/store.py).

SQL runs on the event loop's thread, where it is cheap (page cache); COMMIT, which waits for the disk, runs in a thread
of its own. Running all of it in that thread would have both threads fight over the GIL at every row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from alembic.util import CommandError
from sqlalchemy import Connection, Engine, RootTransaction, make_url
from sqlalchemy.exc import SQLAlchemyError

from hsmsigner.domain.key import KeyName
from hsmsigner.errors import cannot_record
from hsmsigner.store.engine import migrate, open_reader, open_writer, read_only, write_back
from hsmsigner.store.files import StoreFiles
from hsmsigner.store.keys import read_signature_counts
from hsmsigner.store.log import LogDamagedError, check_end
from hsmsigner.store.migrations.backfill_0003 import BackfillError
from hsmsigner.store.reader import SqlLogReader
from hsmsigner.store.threads import run_in
from hsmsigner.store.tiles import OpenTile
from hsmsigner.store.transaction import SqlTransaction
from hsmsigner.store.tree import tree_of
from hsmsigner.transparency.merkle import RightEdge

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
        self._files = StoreFiles(url)
        # A commit failed: what the WAL holds may have reached the page cache alone.
        self._is_doubtful = False
        # The tree as it was last committed here; None before.
        self._committed: RightEdge | None = None
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
                self._committed = transaction.edge
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
            await self._require_same_files()
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
            self._is_doubtful = True
            self._drop()
            raise

    def _roll_back(self, begun: RootTransaction) -> None:
        """Undo what was not committed, also when the caller was cancelled on the way."""
        if begun.is_active:
            try:
                begun.rollback()
            except SQLAlchemyError:
                self._drop()

    async def _require_same_files(self) -> None:
        """See that the store's files are still there and still those we opened.

        What is written to a file that was deleted or replaced is durable nowhere; and opening a new one in its place
        would forget every quota. A few microseconds per turn.
        """
        if not self._files.are_same():
            _log.error("a file of the store is gone or was replaced; put it back")
            await run_in(self._commit_thread, self._save_and_drop)
            raise cannot_record()

    def _save_and_drop(self) -> None:
        # What was committed into a deleted WAL is still in our hands, and in nobody else's.
        if self._writer is not None:
            write_back(self._writer)
        self._drop()

    def _open(self) -> None:
        if not self._files.is_same_database():
            _log.error("the store's file is gone or was replaced; put it back, or restart to accept the new one")
            raise cannot_record()
        self._drop()
        self._require_committed()
        self._writer, self._reader = open_writer(self._url), open_reader(self._url)
        try:
            _migrate(self._writer)
            self._write_back(self._writer)
            with self._reader.begin() as connection:
                check_end(connection)
            self._connection = self._writer.connect()
            self._files.keep()
            self._is_doubtful = False
        except BaseException:
            # Nobody may write after a log that does not end as it was written, or into a schema half made.
            self._drop()
            raise

    def _write_back(self, writer: Engine) -> None:
        """Begin with an empty WAL; after a commit that failed, in any case.

        A failed fsync is reported once; the pages then count as written though they are not. Behind such a hole in the
        WAL nothing would survive a power cut.
        """
        if not write_back(writer) and self._is_doubtful:
            raise cannot_record()

    def _require_committed(self) -> None:
        """See that what was committed here is still there: signatures were released for it (P3).

        Before the file is opened for writing: who puts a store back copies into it while we look, and an empty or cut
        file that was given a schema would spoil what comes next.

        Raises:
            LogDamagedError: the log is not as it was written.
            SignerError: AUDIT_UNAVAILABLE, it is as it was before.
            sqlalchemy.exc.SQLAlchemyError: it cannot be read, or is half a store.
        """
        edge, database = self._committed, make_url(self._url).database
        if edge is None or database is None:
            return
        try:
            with read_only(Path(database)) as connection:
                is_there = tree_of(connection, edge.size).root() == edge.root()
        except LookupError:
            is_there = False
        if not is_there:
            _log.error("the store lost records that were committed (%d at least); put the whole store back", edge.size)
            raise cannot_record()

    def _drop(self) -> None:
        self._connection = None
        for engine in (self._writer, self._reader):
            if engine is not None:
                engine.dispose()
        self._writer = self._reader = None


def _migrate(engine: Engine) -> None:
    try:
        migrate(engine)
    except CommandError as error:
        raise LogDamagedError("the store has a schema that this version of the program does not know") from error
    except BackfillError as error:
        raise LogDamagedError(str(error)) from error
