"""Rows of `quota_usage`: one per counter that has counted anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select

from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.store.schema import quota_usage as table

_AMONG = table.c.counter.in_(bindparam("counters", expanding=True))
_LOAD = select(table.c.counter, table.c.buckets).where(_AMONG)
_DELETE = delete(table).where(_AMONG)
_INSERT = insert(table)


class SqlUsageTable:
    """`UsageTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, counters: Iterable[CounterId]) -> dict[CounterId, Usage]:
        wanted = list(counters)
        if not wanted:
            return {}
        rows = self._connection.execute(_LOAD, {"counters": wanted})
        return {
            CounterId(counter): Usage(tuple((number, count) for number, count in json.loads(buckets)))
            for counter, buckets in rows
        }

    def save(self, usage: Mapping[CounterId, Usage]) -> None:
        if not usage:
            return
        # Delete and insert, inside one transaction, is an upsert that every database spells alike.
        self._connection.execute(_DELETE, {"counters": list(usage)})
        rows = [
            {"counter": counter, "buckets": json.dumps(value.buckets, separators=(",", ":"))}
            for counter, value in usage.items()
        ]
        self._connection.execute(_INSERT, rows)
