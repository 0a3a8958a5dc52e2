"""Rows of `quota_usage`: one per counter that has counted anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, bindparam, delete, insert, select

from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.store.prepared import Prepared, PreparedLookup
from hsmsigner.store.schema import quota_usage as table

_LOAD = PreparedLookup(select(table.c.counter, table.c.buckets), table.c.counter)
_DELETE = Prepared(delete(table).where(table.c.counter == bindparam("of_counter")), ("of_counter",))
_INSERT = Prepared(insert(table), ("counter", "buckets"))


class SqlUsageTable:
    """`UsageTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self, counters: Iterable[CounterId]) -> dict[CounterId, Usage]:
        wanted = list(counters)
        if not wanted:
            return {}
        rows = _LOAD.fetch(self._connection, wanted)
        return {
            CounterId(counter): Usage(tuple((number, count) for number, count in json.loads(buckets)))
            for counter, buckets in rows
        }

    def save(self, usage: Mapping[CounterId, Usage]) -> None:
        if not usage:
            return
        # Delete and insert, inside one transaction, is an upsert that every database spells alike.
        _DELETE.run(self._connection, [(counter,) for counter in usage])
        rows = [(counter, json.dumps(value.buckets, separators=(",", ":"))) for counter, value in usage.items()]
        _INSERT.run(self._connection, rows)
