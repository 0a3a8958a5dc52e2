"""Seeing at every start that the log ends as it was written."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from hsmsigner.domain.instant import format_instant
from hsmsigner.domain.record import FIRST_PREVIOUS_HASH
from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.schema import audit_records
from hsmsigner.store.state import LOG_STATE, read_first_sequence
from hsmsigner.store.tree import check_tiles, read_hashes
from hsmsigner.transparency.merkle import RightEdge, leaf_hash
from hsmsigner.transparency.proof import TILE_SIZE

__all__ = ["LogDamagedError", "check_end"]

_NEWEST = select(audit_records.c.sequence, audit_records.c.record).order_by(audit_records.c.sequence.desc()).limit(1)
_IS_THERE = select(audit_records.c.sequence).where(audit_records.c.sequence == bindparam("of_sequence"))


def check_end(connection: Connection) -> None:
    """See that the newest record is the one the tree ends with, and that tiles and newest records have its root.

    Reads O(log n); the whole log is `hsmsigner audit verify`'s work.

    Raises:
        LogDamagedError: it is not so.
    """
    row = connection.execute(LOG_STATE).one()
    first = read_first_sequence(connection)
    newest = connection.execute(_NEWEST).one_or_none()
    size = first if newest is None else newest.sequence + 1
    if size != row.log_size:
        raise LogDamagedError(f"the audit log ends with record {size - 1}, but its tree has {row.log_size} records")
    leaf = _sealed_leaf(connection, size) if newest is None else _leaf(newest.record)
    if leaf != row.last_leaf:
        raise LogDamagedError(f"audit record {size - 1} is not the one that was written")
    if first > size:
        raise LogDamagedError(f"the audit log begins with record {first}, but its tree has {size} records")
    if first < size and connection.execute(_IS_THERE, {"of_sequence": first}).one_or_none() is None:
        raise LogDamagedError(f"audit record {first} is gone, and was not sealed")
    try:
        edge = RightEdge.from_bytes(row.log_size, row.log_edge)
        format_instant(row.last_time)
    except (ValueError, TypeError, OverflowError) as error:
        raise LogDamagedError("the store's own account of the log and its tree cannot be read") from error
    check_tiles(connection, edge.size, edge.root())


def _sealed_leaf(connection: Connection, size: int) -> bytes:
    """Leaf hash of the last of `size` records, of which all were sealed."""
    return read_hashes(connection, size, 0, size // TILE_SIZE - 1)[-1] if size else FIRST_PREVIOUS_HASH


def _leaf(record: object) -> bytes:
    # An edit by hand easily leaves text where bytes were: SQLite keeps whatever type it is given.
    return leaf_hash(record) if isinstance(record, bytes) else b""
