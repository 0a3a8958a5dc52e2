"""Rows of `denial_totals`: refusals that got no record of their own yet."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hsmsigner.domain.denial import DenialKind, DenialTotal
from hsmsigner.domain.instant import Instant
from hsmsigner.store.schema import denial_totals as table

_ADD = (
    update(table)
    .where(
        table.c.principal == bindparam("of_principal"),
        table.c.key == bindparam("of_key"),
        table.c.reason == bindparam("of_reason"),
    )
    .values(count=table.c.count + bindparam("more"))
)
_LIST = select(table.c.principal, table.c.key, table.c.reason, table.c.count, table.c.since).order_by(table.c.since)


class SqlDenialTable:
    """`DenialTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, counts: Mapping[DenialKind, int], now: Instant) -> None:
        for kind, count in counts.items():
            names = {"of_principal": kind.principal, "of_key": kind.key, "of_reason": kind.reason}
            if self._connection.execute(_ADD, names | {"more": count}).rowcount:
                continue
            row = {"principal": kind.principal, "key": kind.key, "reason": kind.reason, "count": count, "since": now}
            self._connection.execute(insert(table), row)

    def take(self) -> list[DenialTotal]:
        rows = self._connection.execute(_LIST).all()
        if rows:
            self._connection.execute(delete(table))
        return [
            DenialTotal(DenialKind(principal, key, reason), count, Instant(since))
            for principal, key, reason, count, since in rows
        ]
