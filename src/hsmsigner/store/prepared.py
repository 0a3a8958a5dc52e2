"""Statements of the hot path: compiled once, run by the driver's own cursor, fed with tuples.

SQLAlchemy's execution of a statement costs several times what SQLite takes to run it; with some ten statements a turn,
that was a quarter of the commit cycle's time (measured). The statements stay SQLAlchemy's, which spells them for the
database in use; its types are left out, so values are those of the driver (integers, text, bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Delete, Insert, Select, Update, bindparam
from sqlalchemy.exc import NoResultFound

from hsmsigner.store.cursor import driver_cursor

Values = Sequence[object]

# More are looked up in several goes: a wider statement takes long to prepare, and drivers have their limits.
_WIDEST = 1024


class Prepared:
    """One statement, for one kind of database. `columns` names its parameters, in the order of each tuple of values.

    Raises, whatever runs it: sqlalchemy.exc.DBAPIError, as `driver_cursor` does.
    """

    def __init__(self, statement: Insert | Update | Delete | Select[Any], columns: Sequence[str] = ()) -> None:
        self._statement = statement
        self._columns = tuple(columns)
        self._compiled: tuple[str, tuple[int, ...] | None] | None = None

    def run(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run it once per row of values."""
        text, order = self._compile(connection)
        if order is not None:
            rows = [[row[index] for index in order] for row in rows]
        with driver_cursor(connection) as cursor:
            cursor.executemany(text, rows)

    def fetch(self, connection: Connection, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run it and read all rows of its answer."""
        text, order = self._compile(connection)
        if order is not None:
            values = [values[index] for index in order]
        with driver_cursor(connection) as cursor:
            cursor.execute(text, values)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows

    def fetch_one(self, connection: Connection, values: Values = ()) -> tuple[Any, ...]:
        """Run it and read the one row of its answer.

        Raises:
            sqlalchemy.exc.NoResultFound: there is none, or more than one.
        """
        rows = self.fetch(connection, values)
        if len(rows) != 1:
            raise NoResultFound(f"{len(rows)} rows where there is always one")
        return rows[0]

    def _compile(self, connection: Connection) -> tuple[str, tuple[int, ...] | None]:
        if self._compiled is None:
            keys = None if isinstance(self._statement, Select) else list(self._columns)
            compiled = self._statement.compile(dialect=connection.dialect, column_keys=keys)
            if not compiled.positional:
                raise TypeError("the driver takes named parameters; tuples would be mixed up")
            places = {name: index for index, name in enumerate(self._columns)}
            order = tuple(places[name] for name in compiled.positiontup or ())
            self._compiled = str(compiled), None if order == tuple(range(len(self._columns))) else order
        return self._compiled


class PreparedLookup:
    """A SELECT narrowed to the rows whose `column` is among some values, however many.

    Prepared for 1, 2, 4, ... of them, the last one repeated: so few texts that the driver has them all prepared too.
    """

    def __init__(self, statement: Select[Any], column: ColumnElement[Any]) -> None:
        self._statement = statement
        self._column = column
        self._by_width: dict[int, Prepared] = {}

    def fetch(self, connection: Connection, values: Sequence[str]) -> list[tuple[Any, ...]]:
        """The rows; `values` must not be empty."""
        if len(values) > _WIDEST:
            return self.fetch(connection, values[:_WIDEST]) + self.fetch(connection, values[_WIDEST:])
        width = 1 << (len(values) - 1).bit_length()
        prepared = self._by_width.get(width)
        if prepared is None:
            prepared = self._by_width[width] = self._prepare(width)
        return prepared.fetch(connection, [*values, *[values[-1]] * (width - len(values))])

    def _prepare(self, width: int) -> Prepared:
        names = [f"value_{index}" for index in range(width)]
        return Prepared(self._statement.where(self._column.in_([bindparam(name) for name in names])), names)
