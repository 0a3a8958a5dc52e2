"""Reading the log, and seeing at every start that it ends as it was written."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from hsmsigner.domain.instant import format_instant
from hsmsigner.domain.record import FIRST_PREVIOUS_HASH
from hsmsigner.operations.ports import LogPage
from hsmsigner.store.schema import audit_records
from hsmsigner.store.transaction import LOG_STATE
from hsmsigner.transparency.merkle import RightEdge, leaf_hash

_READ_RECORDS = (
    select(audit_records.c.sequence, audit_records.c.record)
    .where(audit_records.c.sequence >= bindparam("start"))
    .order_by(audit_records.c.sequence)
    .limit(bindparam("most"))
)


class LogDamagedError(Exception):
    """The log's newest records do not fit its tree: someone changed the store. The text says what does not fit."""


def read_page(connection: Connection, start: int, limit: int) -> LogPage:
    """Records from `start` on, and the tree as the same snapshot has it."""
    row = connection.execute(LOG_STATE).one()
    edge = RightEdge.from_bytes(row.log_size, row.log_edge)
    rows = connection.execute(_READ_RECORDS, {"start": start, "most": limit})
    return LogPage([(sequence, _as_bytes(record)) for sequence, record in rows], edge.size, edge.root())


def check_end(connection: Connection) -> None:
    """See that the newest record is the one the tree ends with; the whole log is `hsmsigner audit verify`'s work."""
    row = connection.execute(LOG_STATE).one()
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


def _as_bytes(record: object) -> bytes:
    # What somebody else wrote may be of any type; the verifier is to see it, not to fail on it.
    return record if isinstance(record, bytes) else str(record).encode()


def _leaf(record: object) -> bytes:
    # An edit by hand easily leaves text where bytes were: SQLite keeps whatever type it is given.
    return leaf_hash(record) if isinstance(record, bytes) else b""
