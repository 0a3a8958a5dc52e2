"""What the use cases need from the durable store: one write transaction, and the rows it deals in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from msgspec import Struct

from hsmsigner.domain.denial import DenialKind, DenialTotal
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyName
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.domain.record import Entry
from hsmsigner.operations.ports.keys import (
    CommandTable,
    ContinuityTable,
    KeyTable,
    LeaseTable,
    RequestKey,
    RotationTable,
    UnwantedPairTable,
)
from hsmsigner.operations.ports.log import CheckpointTable, LogReader, Retention, TreeHead


@unique
class RequestState(Enum):
    """How far a request to sign has come. A refused one leaves no row."""

    AUTHORIZED = "AUTHORIZED"  # debited; the token may have been asked
    COMPLETED = "COMPLETED"  # the signature is stored and may be released again and again
    INTERRUPTED = "INTERRUPTED"  # debited; nobody knows whether a signature exists, none was released
    FAILED = "FAILED"  # debited; the token refused, or answered with something that does not verify


class StoredRequest(Struct, frozen=True, gc=False):
    """A request that was authorized. `sequence` is its newest `sign.authorized` record, and the row's identity.

    `signature` is raw, as the token gave it, and empty unless COMPLETED; `completed_sequence` is then its record.
    """

    key: RequestKey
    sequence: int
    fingerprint: bytes
    state: RequestState
    version: str
    policy_revision: int
    authorize_time: Instant
    expire_time: Instant
    completed_sequence: int = 0
    signature: bytes = b""


@dataclass(frozen=True, slots=True)
class PolicyRevision:
    """A published policy document, byte for byte."""

    revision: int
    document: bytes
    sha256: str
    publish_time: Instant
    publisher: str
    comment: str


class RequestTable(Protocol):
    """Requests to sign, for idempotency (P4) and recovery."""

    def find(self, keys: Iterable[RequestKey]) -> dict[RequestKey, StoredRequest]:
        """Those of `keys` that are there."""
        ...

    def find_authorized(self, limit: int) -> list[StoredRequest]:
        """The oldest requests that are AUTHORIZED."""
        ...

    def insert(self, requests: Sequence[StoredRequest]) -> None:
        """Add rows that are not there yet."""
        ...

    def update(self, requests: Sequence[StoredRequest]) -> None:
        """Write state and result of rows that are there; nothing else of a row ever changes."""
        ...

    def delete(self, sequences: Sequence[int]) -> None:
        """Forget rows: the next request with that id is a new one."""
        ...

    def delete_expired(self, now: Instant, limit: int) -> int:
        """Forget rows that are not AUTHORIZED and whose time is over, oldest first; returns how many."""
        ...


class UsageTable(Protocol):
    """What the quota counters have counted (P5)."""

    def load(self, counters: Iterable[CounterId]) -> dict[CounterId, Usage]:
        """Usage of those counters that have counted anything."""
        ...

    def save(self, usage: Mapping[CounterId, Usage]) -> None:
        """Set counters."""
        ...


class DenialTable(Protocol):
    """Refusals that are counted, and have no record of their own yet."""

    def add(self, counts: Mapping[DenialKind, int], now: Instant) -> None:
        """Add to the totals."""
        ...

    def take(self) -> list[DenialTotal]:
        """All totals, which begin anew at nothing: their record is to be written in this transaction."""
        ...


class PolicyTable(Protocol):
    """Policy revisions; never changed once written."""

    def newest(self) -> PolicyRevision | None:
        """The revision in force."""
        ...

    def insert(self, revision: PolicyRevision) -> None:
        """Add a revision."""
        ...


class Transaction(Protocol):
    """One write transaction. All of it becomes durable together, or none of it."""

    @property
    def last_time(self) -> Instant:
        """When the newest record was written; `now` of a transaction is never before it."""
        ...

    @property
    def epoch(self) -> int:
        """Rises with every change of policy or keys; caches are good for one epoch."""
        ...

    @property
    def requests(self) -> RequestTable:
        """Requests to sign."""
        ...

    @property
    def usage(self) -> UsageTable:
        """Quota counters."""
        ...

    @property
    def keys(self) -> KeyTable:
        """Keys and versions."""
        ...

    @property
    def commands(self) -> CommandTable:
        """Which command a request_id stands for."""
        ...

    @property
    def unwanted_pairs(self) -> UnwantedPairTable:
        """Pairs that are to be destroyed."""
        ...

    @property
    def rotations(self) -> RotationTable:
        """Rotations, begun and finished."""
        ...

    @property
    def continuity(self) -> ContinuityTable:
        """Continuity statements."""
        ...

    @property
    def leases(self) -> LeaseTable:
        """Work that one frontend does for all."""
        ...

    @property
    def policies(self) -> PolicyTable:
        """Policy revisions."""
        ...

    @property
    def denials(self) -> DenialTable:
        """Refusals that are counted together."""
        ...

    @property
    def checkpoints(self) -> CheckpointTable:
        """Checkpoints of the log."""
        ...

    @property
    def retention(self) -> Retention:
        """Where the stored log begins."""
        ...

    @property
    def tree_head(self) -> TreeHead:
        """The tree with all records of this transaction so far."""
        ...

    @property
    def next_sequence(self) -> int:
        """Sequence number that the next record will have."""
        ...

    def append(self, entries: Sequence[Entry], now: Instant) -> int:
        """Add records to the log, chained and hashed into the tree; returns the first one's sequence number."""
        ...

    def raise_epoch(self) -> None:
        """Make every cache load policy and keys again."""
        ...


class Store(LogReader, Protocol):
    """The one durable store. Its errors come out as SignerError AUDIT_UNAVAILABLE, after which it must be reopened."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open the one write transaction; leaving the block without an exception makes it durable.

        If leaving raises, nobody knows whether it became durable: nothing that depends on it may be released.
        """
        ...

    async def reopen(self) -> None:
        """Drop the connection and open the store anew, checking the log's end against its tree."""
        ...

    async def read_signature_counts(self, name: KeyName) -> dict[int, int]:
        """Signatures authorized so far, by version number of one key; does not wait for writers."""
        ...
