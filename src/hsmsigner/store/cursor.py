"""The driver's own cursor, for what SQLAlchemy would take several times as long to run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError


@contextmanager
def driver_cursor(connection: Connection) -> Iterator[Any]:
    """A cursor within the connection's transaction.

    Raises:
        sqlalchemy.exc.DBAPIError: as if SQLAlchemy had run the statement, each kind of error as its own class. Holds
            neither statement nor values: among them are signatures that may never be released.
    """
    dialect = connection.dialect
    base_error = dialect.loaded_dbapi.Error
    try:
        cursor = connection.connection.cursor()
        try:
            yield cursor
        finally:
            cursor.close()
    except base_error as error:
        raise DBAPIError.instance(None, None, error, base_error, hide_parameters=True, dialect=dialect) from error
