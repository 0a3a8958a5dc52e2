"""The one write transaction: tables, and the log that every change is chained into."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.record import Entry, encode_record
from hsmsigner.store.bulk import BulkStatement
from hsmsigner.store.denials import SqlDenialTable
from hsmsigner.store.keys import SqlKeyTable
from hsmsigner.store.policies import SqlPolicyTable
from hsmsigner.store.requests import SqlRequestTable
from hsmsigner.store.rotations import SqlContinuityTable, SqlLeaseTable, SqlRotationTable
from hsmsigner.store.schema import appliance, audit_records
from hsmsigner.store.usage import SqlUsageTable
from hsmsigner.transparency.merkle import RightEdge, leaf_hash

LOG_STATE = select(
    appliance.c.epoch, appliance.c.log_size, appliance.c.log_edge, appliance.c.last_leaf, appliance.c.last_time
).where(appliance.c.id == 1)
_SAVE_STATE = update(appliance).where(appliance.c.id == 1)
_INSERT_RECORD = BulkStatement(insert(audit_records), ("sequence", "record"))


class SqlTransaction:
    """One open write transaction; see `operations.ports.Transaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.requests = SqlRequestTable(connection)
        self.usage = SqlUsageTable(connection)
        self.keys = SqlKeyTable(connection)
        self.rotations = SqlRotationTable(connection)
        self.continuity = SqlContinuityTable(connection)
        self.leases = SqlLeaseTable(connection)
        self.policies = SqlPolicyTable(connection)
        self.denials = SqlDenialTable(connection)
        row = connection.execute(LOG_STATE).one()
        self.epoch: int = row.epoch
        self.last_time = Instant(row.last_time)
        self._edge = RightEdge.from_bytes(row.log_size, row.log_edge)
        self._last_leaf: bytes = row.last_leaf

    @property
    def next_sequence(self) -> int:
        return self._edge.size

    def append(self, entries: Sequence[Entry], now: Instant) -> int:
        first, time = self._edge.size, format_instant(now)
        rows: list[tuple[int, bytes]] = []
        for entry in entries:
            record = encode_record(entry, self._edge.size, time, self._last_leaf)
            rows.append((self._edge.size, record))
            self._last_leaf = leaf_hash(record)
            self._edge = self._edge.append(self._last_leaf)
        if rows:
            _INSERT_RECORD.run(self._connection, rows)
            self.last_time = now
            self._save_state()
        return first

    def raise_epoch(self) -> None:
        self.epoch += 1
        self._save_state()

    def _save_state(self) -> None:
        self._connection.execute(
            _SAVE_STATE,
            {
                "epoch": self.epoch,
                "log_size": self._edge.size,
                "log_edge": self._edge.to_bytes(),
                "last_leaf": self._last_leaf,
                "last_time": self.last_time,
            },
        )
