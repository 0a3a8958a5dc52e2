"""Statements that run for every signature: compiled once, fed with tuples.

SQLAlchemy's own executemany builds a dictionary per row and looks each parameter up again; measured, that was a fifth
of the frontend's time. The statements stay SQLAlchemy's, so they are spelled for whatever database is in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Insert, Update


class BulkStatement:
    """One INSERT or UPDATE, run for many rows. `columns` names the parameters in the order of each row's tuple."""

    def __init__(self, statement: Insert | Update, columns: Sequence[str]) -> None:
        self._statement = statement
        self._columns = tuple(columns)
        self._compiled: tuple[str, tuple[int, ...]] | None = None

    def run(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Run it once per row; the values are given to the driver as they are."""
        text, order = self._compile(connection)
        if order != tuple(range(len(self._columns))):
            rows = [tuple(row[index] for index in order) for row in rows]
        connection.exec_driver_sql(text, list(rows))

    def _compile(self, connection: Connection) -> tuple[str, tuple[int, ...]]:
        # Benign race: two threads would compile the same thing.
        if self._compiled is None:
            compiled = self._statement.compile(dialect=connection.dialect, column_keys=list(self._columns))
            positions = compiled.positiontup or ()
            if not positions:
                raise TypeError("the driver takes named parameters; tuples would be mixed up")
            self._compiled = str(compiled), tuple(self._columns.index(name) for name in positions)
        return self._compiled
