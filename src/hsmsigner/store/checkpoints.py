"""Rows of `checkpoints`: tree heads that the log vouches for."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, exists, func, insert, select, update

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.store.schema import checkpoints as table

_COLUMNS = (table.c.size, table.c.root, table.c.time, table.c.note, table.c.witnesses)
_NAMES = ("size", "root", "time", "note", "witnesses")
# The table itself refuses a second one of a size; this also one that is smaller than another.
_INSERT = insert(table).from_select(
    _NAMES,
    select(*(bindparam(f"new_{name}", type_=table.c[name].type) for name in _NAMES)).where(
        ~exists().where(table.c.size >= bindparam("new_size"))
    ),
)
_SAVE_NOTE = update(table).where(table.c.size == bindparam("of_size"))
_NEWEST = select(*_COLUMNS).order_by(table.c.size.desc()).limit(1)
_MOST_WITNESSES = select(func.max(table.c.witnesses))
_SIGNED = select(*_COLUMNS).where(table.c.note != "")
# How far back a witness's newest signature is looked for: tens of milliseconds.
_LOOKED_BACK = 50_000


class SqlCheckpointTable:
    """`CheckpointTable` of one transaction, and what else is read of it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, checkpoint: Checkpoint) -> None:
        values = (checkpoint.size, checkpoint.root_hash, checkpoint.time, checkpoint.note, checkpoint.witnesses)
        row = {f"new_{name}": value for name, value in zip(_NAMES, values, strict=True)}
        if not self._connection.execute(_INSERT, row).rowcount:
            raise ValueError(f"there is a checkpoint of {checkpoint.size} records or more already")

    def save_note(self, size: int, note: str, witnesses: int) -> None:
        changed = self._connection.execute(_SAVE_NOTE, {"of_size": size, "note": note, "witnesses": witnesses})
        if not changed.rowcount:
            raise LookupError(f"there is no checkpoint of {size} records")

    def newest(self) -> Checkpoint | None:
        return self._first(_NEWEST)

    def newest_signed(self, min_witnesses: int = 0) -> Checkpoint | None:
        signed = _SIGNED.order_by(table.c.size.desc()).limit(1)
        if min_witnesses <= 0:
            return self._first(signed)
        # One look into the index for each number of witnesses: where none ever cosigned, a search from the newest on
        # would read every checkpoint there is.
        most = self._connection.execute(_MOST_WITNESSES).scalar() or 0
        counts = range(min_witnesses, most + 1)
        found = (self._first(signed.where(table.c.witnesses == count)) for count in counts)
        return max((one for one in found if one is not None), key=lambda one: one.size, default=None)

    def first_signed(self, min_size: int) -> Checkpoint | None:
        return self._first(_SIGNED.where(table.c.size >= min_size).order_by(table.c.size).limit(1))

    def newest_cosigned(self, line_start: str) -> Checkpoint | None:
        """See `LogReader.read_newest_cosigned`."""
        recent = _SIGNED.order_by(table.c.size.desc()).limit(_LOOKED_BACK).subquery()
        has_line = func.instr(recent.c.note, "\n" + line_start) > 0
        return self._first(select(recent).where(has_line).order_by(recent.c.size.desc()).limit(1))

    def list(self, after_size: int, limit: int) -> list[Checkpoint]:
        query = _SIGNED.where(table.c.size > after_size).order_by(table.c.size).limit(limit)
        return [_checkpoint(row) for row in self._connection.execute(query)]

    def _first(self, query: Select[Any]) -> Checkpoint | None:
        row = self._connection.execute(query).one_or_none()
        return None if row is None else _checkpoint(row)


def _checkpoint(row: Row[*tuple[Any, ...]]) -> Checkpoint:
    return Checkpoint(row.size, row.root, Instant(row.time), row.note, row.witnesses)
