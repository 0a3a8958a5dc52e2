"""The one write transaction: tables, and the log that every change is chained into."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, update

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.record import Entry, encode_record
from hsmsigner.operations.ports import TreeHead
from hsmsigner.store.checkpoints import SqlCheckpointTable
from hsmsigner.store.commands import SqlCommandTable
from hsmsigner.store.denials import SqlDenialTable
from hsmsigner.store.keys import SqlKeyTable
from hsmsigner.store.policies import SqlPolicyTable
from hsmsigner.store.prepared import Prepared
from hsmsigner.store.requests import SqlRequestTable
from hsmsigner.store.retention import SqlRetention
from hsmsigner.store.rotations import SqlContinuityTable, SqlLeaseTable, SqlRotationTable
from hsmsigner.store.schema import appliance, audit_records
from hsmsigner.store.state import IS_THE_ROW, LOG_STATE
from hsmsigner.store.tiles import Appended, OpenTile, read_open_tile, write_tiles
from hsmsigner.store.unwanted import SqlUnwantedPairTable
from hsmsigner.store.usage import SqlUsageTable
from hsmsigner.transparency.merkle import RightEdge, leaf_hash

_STATE = ("epoch", "log_size", "log_edge", "last_leaf", "last_time")
_READ_STATE = Prepared(LOG_STATE)
_SAVE_STATE = Prepared(update(appliance).where(IS_THE_ROW), _STATE)
_INSERT_RECORD = Prepared(insert(audit_records), ("sequence", "record"))


class SqlTransaction:
    """One open write transaction; see `operations.ports.Transaction`.

    `open_tile` is what the last committed one left, if anything; what this one leaves, once it is committed.
    """

    def __init__(self, connection: Connection, open_tile: OpenTile | None = None) -> None:
        self._connection = connection
        self.requests = SqlRequestTable(connection)
        self.usage = SqlUsageTable(connection)
        self.keys = SqlKeyTable(connection)
        self.commands = SqlCommandTable(connection)
        self.rotations = SqlRotationTable(connection)
        self.unwanted_pairs = SqlUnwantedPairTable(connection)
        self.continuity = SqlContinuityTable(connection)
        self.leases = SqlLeaseTable(connection)
        self.policies = SqlPolicyTable(connection)
        self.denials = SqlDenialTable(connection)
        self.checkpoints = SqlCheckpointTable(connection)
        self.retention = SqlRetention(connection)
        self.open_tile = open_tile
        epoch, size, edge, last_leaf, last_time = _READ_STATE.fetch_one(connection)
        self.epoch: int = epoch
        self.last_time = Instant(last_time)
        self._edge = RightEdge.from_bytes(size, edge)
        self._last_leaf: bytes = last_leaf

    @property
    def next_sequence(self) -> int:
        return self._edge.size

    @property
    def edge(self) -> RightEdge:
        """The tree with all records of this transaction so far."""
        return self._edge

    @property
    def tree_head(self) -> TreeHead:
        return TreeHead(self._edge.size, self._edge.root())

    def append(self, entries: Sequence[Entry], now: Instant) -> int:
        first = self._edge.size
        if not entries:
            return first
        tile = self._current_tile()
        time, leaf = format_instant(now), self._last_leaf
        rows: list[tuple[int, bytes]] = []
        leaves: list[bytes] = []
        roots: list[bytes] = []
        for sequence, entry in enumerate(entries, first):
            record = encode_record(entry, sequence, time, leaf)
            leaf = leaf_hash(record)
            rows.append((sequence, record))
            leaves.append(leaf)
        _INSERT_RECORD.run(self._connection, rows)
        self._edge, self._last_leaf, self.last_time = self._edge.extend(leaves, roots), leaf, now
        self.open_tile = write_tiles(self._connection, tile, Appended(leaves, entries, roots))
        self._save_state()
        return first

    def raise_epoch(self) -> None:
        self.epoch += 1
        self._save_state()

    def _current_tile(self) -> OpenTile:
        tile = self.open_tile
        if tile is not None and tile.is_of(self._edge.size, self._last_leaf):
            return tile
        # Another process has written, or this one has just begun.
        return read_open_tile(self._connection, self._edge.size, self._last_leaf)

    def _save_state(self) -> None:
        state = self.epoch, self._edge.size, self._edge.to_bytes(), self._last_leaf, self.last_time
        _SAVE_STATE.run(self._connection, [state])
