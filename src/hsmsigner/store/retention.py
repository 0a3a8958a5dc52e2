"""Where the stored log begins, and the records below that, which an archive has."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select, update

from hsmsigner.store.schema import appliance, audit_records
from hsmsigner.store.state import IS_THE_ROW, read_first_sequence

_BEGIN_WITH = update(appliance).where(IS_THE_ROW).values(first_sequence=bindparam("first"))
_SOME_BELOW = (
    select(audit_records.c.sequence)
    .where(audit_records.c.sequence < bindparam("first"))
    .order_by(audit_records.c.sequence)
    .limit(bindparam("most"))
)
_DELETE = delete(audit_records).where(audit_records.c.sequence <= bindparam("last"))


class SqlRetention:
    """`Retention` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def first_sequence(self) -> int:
        return read_first_sequence(self._connection)

    def begin_with(self, first_sequence: int) -> None:
        self._connection.execute(_BEGIN_WITH, {"first": first_sequence})

    def delete_below(self, limit: int) -> int:
        found = self._connection.execute(_SOME_BELOW, {"first": self.first_sequence, "most": limit}).scalars().all()
        if found:
            self._connection.execute(_DELETE, {"last": found[-1]})
        return len(found)
