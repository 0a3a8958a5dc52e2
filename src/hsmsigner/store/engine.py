"""Opening the store: SQLite with the durability the promises need, brought to the newest schema."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Connection, Engine, Pool, QueuePool, StaticPool, create_engine, event

from hsmsigner.store.cursor import driver_cursor

_log = logging.getLogger(__name__)

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    # FULL: fsync at every commit. NORMAL would lose the newest commits at a power cut, and with them P2 and P3.
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
)

# Connections, and threads, that read beside the writer.
READERS = 2


def open_writer(url: str) -> Engine:
    """Engine with the one connection that writes; each transaction takes the write lock from its start.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the store cannot be opened.
    """
    # Waiting for another process's lock is done by `SqlStore`, where it does not hold up the event loop.
    # One connection, used from one thread at a time: the event loop's and the commit thread take turns.
    engine = _engine(url, StaticPool, busy_timeout_ms=0)

    @event.listens_for(engine, "begin")
    def _begin_immediate(connection: Connection) -> None:
        # A transaction that begins as a reader and then writes can fail with BUSY in the middle.
        with driver_cursor(connection) as cursor:
            cursor.execute("BEGIN IMMEDIATE")

    return engine


def open_reader(url: str) -> Engine:
    """Engine with `READERS` connections that only read; in WAL mode they never wait for the writer."""
    engine = _engine(url, QueuePool, busy_timeout_ms=5000, pool_size=READERS, max_overflow=0)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


@contextmanager
def read_only(database: Path, *, is_in_use: bool = True) -> Iterator[Connection]:
    """A look at a store's file that changes nothing in it, not even its header or schema.

    A store that is not in use is taken as the file has it: no WAL is looked for, or made beside it.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: it cannot be opened.
    """
    option = {"mode": "ro"} if is_in_use else {"immutable": "1"}
    # As a URI, in which no "#" or "?" of a path ends it: SQLite would look at, or make, another file.
    url = URL.create("sqlite", database=database.absolute().as_uri(), query={**option, "uri": "true"})
    engine = create_engine(url, hide_parameters=True)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def write_back(engine: Engine) -> bool:
    """Have all of the WAL in the database file and on the disk, and begin the WAL anew; False when that cannot be.

    Somebody who reads an older state of the store (a backup) is in the way.
    """
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        row = cursor.fetchone()
    except sqlite3.Error as error:
        _log.warning("the WAL cannot be written back: %s", error)
        return False
    finally:
        connection.close()
    return row is not None and not row[0]


def migrate(engine: Engine) -> None:
    """Bring the store to the newest schema; does nothing when it is there already."""
    config = Config()
    config.set_main_option("script_location", "hsmsigner.store:migrations")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _engine(url: str, pool: type[Pool], busy_timeout_ms: int, **pool_options: int) -> Engine:
    # Parameters hold signatures that may never be released, so they are kept out of error texts.
    arguments = {"check_same_thread": False}
    engine = create_engine(url, poolclass=pool, connect_args=arguments, hide_parameters=True, **pool_options)

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves; the driver's own rules would begin too late
        for pragma in (*_PRAGMAS, f"PRAGMA busy_timeout = {busy_timeout_ms}"):
            connection.execute(pragma)

    return engine
