"""Reading the log page by page, all of it or what fits a filter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import NO_FILTER, LogFilter, LogPage
from hsmsigner.store.about import fields_of
from hsmsigner.store.filters import asks_for_kinds, byte_conditions, fits, kind_conditions, time_text
from hsmsigner.store.schema import audit_records, kind_tiles, record_kinds
from hsmsigner.store.state import LOG_STATE, read_first_sequence
from hsmsigner.transparency.merkle import RightEdge
from hsmsigner.transparency.proof import TILE_SIZE

Records = list[tuple[int, bytes]]

# Level-0 tiles that one call looks through: some ten milliseconds.
TILES_AT_ONCE = 64

_READ_RANGE = (
    select(audit_records.c.sequence, audit_records.c.record)
    .where(audit_records.c.sequence >= bindparam("start"), audit_records.c.sequence < bindparam("end"))
    .order_by(audit_records.c.sequence)
)
_READ_SOME = _READ_RANGE.limit(bindparam("most"))
_READ_TYPES = select(record_kinds.c.type).distinct()


class _Span(NamedTuple):
    """Records from `start` to before `end`, of a log that has so many full tiles."""

    start: int
    end: int
    full_tiles: int


def read_page(connection: Connection, start: int, limit: int, wanted: LogFilter = NO_FILTER) -> LogPage:
    """Records from `start` on that fit, and the tree as the same snapshot has it; see `LogReader.read_log`.

    Raises:
        SignerError: RECORDS_SEALED.
    """
    row = connection.execute(LOG_STATE).one()
    edge = RightEdge.from_bytes(row.log_size, row.log_edge)
    first = read_first_sequence(connection)
    if start < first:
        raise records_sealed(first)
    if limit <= 0 or start >= edge.size:
        return LogPage([], edge.size, edge.root(), start)
    span = _Span(*_range_of_times(connection, start, edge.size, wanted), edge.size // TILE_SIZE)
    if asks_for_kinds(wanted):
        records, next_sequence = _read_fitting(connection, span, limit, wanted)
    else:
        records, next_sequence = _read_any(connection, span, limit)
    # When all that can fit was looked at, only what comes in later is left.
    return LogPage(records, edge.size, edge.root(), edge.size if next_sequence >= span.end else next_sequence)


def records_sealed(first: int) -> SignerError:
    """Say that records before this one were taken out."""
    message = f"records before {first} were sealed into an archive; the first one here is {first}"
    return SignerError(Reason.RECORDS_SEALED, message, metadata={"first_sequence": str(first)})


def _read_any(connection: Connection, span: _Span, limit: int) -> tuple[Records, int]:
    """Up to `limit` records, and where to go on."""
    rows = connection.execute(_READ_SOME, {"start": span.start, "end": span.end, "most": limit})
    records = [(sequence, _as_bytes(record)) for sequence, record in rows]
    return records, records[-1][0] + 1 if len(records) == limit else span.end


def _read_fitting(connection: Connection, span: _Span, limit: int, wanted: LogFilter) -> tuple[Records, int]:
    """Up to `limit` records that fit, and where to go on."""
    records: Records = []
    query = _READ_RANGE.where(*byte_conditions(wanted))
    for looked_at, tile in enumerate(_fitting_tiles(connection, span, wanted)):
        start, end = max(span.start, tile * TILE_SIZE), min(span.end, (tile + 1) * TILE_SIZE)
        if looked_at == TILES_AT_ONCE:
            return records, start
        for sequence, record in connection.execute(query, {"start": start, "end": end}).all():
            if fits(record, wanted):
                records.append((sequence, _as_bytes(record)))
                if len(records) == limit:
                    return records, sequence + 1
    return records, span.end


def _fitting_tiles(connection: Connection, span: _Span, wanted: LogFilter) -> Iterator[int]:
    """Numbers of the tiles that have records of the wanted kinds; at last the open one, whose kinds nobody knows."""
    conditions = kind_conditions(wanted, connection.execute(_READ_TYPES).scalars())
    is_of_kind = kind_tiles.c.kind == record_kinds.c.kind
    is_ahead = kind_tiles.c.tile >= bindparam("from_tile")
    next_of_kind = select(func.min(kind_tiles.c.tile)).where(is_of_kind, is_ahead).correlate(record_kinds)
    find_next = select(func.min(next_of_kind.scalar_subquery())).where(*conditions)
    list_near = (
        select(kind_tiles.c.tile)
        .distinct()
        .where(*conditions, is_of_kind, is_ahead, kind_tiles.c.tile < bindparam("to_tile"))
        .order_by(kind_tiles.c.tile)
    )
    from_tile = span.start // TILE_SIZE
    while True:
        # One look into the index per kind finds the next tile, however far it is; from there on, those close to it.
        found = connection.execute(find_next, {"from_tile": from_tile}).scalar()
        if found is None or found * TILE_SIZE >= span.end:
            break
        from_tile = found + TILES_AT_ONCE
        near = connection.execute(list_near, {"from_tile": found, "to_tile": from_tile}).scalars().all()
        yield from (tile for tile in near if tile * TILE_SIZE < span.end)
    if span.end > span.full_tiles * TILE_SIZE:
        yield span.full_tiles


def _range_of_times(connection: Connection, start: int, end: int, wanted: LogFilter) -> tuple[int, int]:
    """The part of `start` to `end` in which times are as wanted: times never run backwards."""
    if wanted.start_time is not None:
        start = _first_not_before(connection, time_text(wanted.start_time), start, end)
    if wanted.end_time is not None:
        end = _first_not_before(connection, time_text(wanted.end_time), start, end)
    return start, end


def _first_not_before(connection: Connection, time: str, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) // 2
        read, found = _next_time(connection, middle, high)
        if found is None or found >= time:
            high = middle
        else:
            low = read + 1
    return low


def _next_time(connection: Connection, start: int, end: int) -> tuple[int, str | None]:
    """The time of the first record from `start` on that has one: what somebody broke must not hide the others."""
    with connection.execute(_READ_SOME, {"start": start, "end": end, "most": TILE_SIZE}) as rows:
        for sequence, record in rows:
            time = fields_of(record).get("time")
            if isinstance(time, str):
                return sequence, time
    return start, None


def _as_bytes(record: object) -> bytes:
    # What somebody else wrote may be of any type; the verifier is to see it, not to fail on it.
    return record if isinstance(record, bytes) else str(record).encode()
