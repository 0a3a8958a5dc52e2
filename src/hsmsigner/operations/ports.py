"""What the use cases need from the outside: the token and the store, as Protocols that state their guarantees."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyVersion
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.domain.record import Entry
from hsmsigner.domain.signing import RequestId


@unique
class SignStatus(Enum):
    """What is known of one item after the token was asked."""

    SIGNED = "SIGNED"
    NOT_CALLED = "NOT_CALLED"  # proven: no signature can exist
    REFUSED = "REFUSED"  # the token was called and said no
    WRONG_SIGNATURE = "WRONG_SIGNATURE"  # the token answered, and it does not verify
    UNKNOWN = "UNKNOWN"  # a signature may exist somewhere


@dataclass(frozen=True, slots=True)
class SignTask:
    """One item for the token: `data` is the digest, or the message for EdDSA."""

    cka_id: CkaId
    public_key: bytes  # SubjectPublicKeyInfo, DER
    algorithm: SigningAlgorithm
    data: bytes


@dataclass(frozen=True, slots=True)
class SignOutcome:
    """`signature` is raw (r || s, RFC 8032, RSA integer) and has verified; empty unless SIGNED. `cause` is for logs."""

    status: SignStatus
    signature: bytes = b""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class TokenKeyPair:
    """A key pair as the token describes it (PKCS#11 v3.1 section 4.9)."""

    public_key: bytes  # SubjectPublicKeyInfo, DER
    local: bool
    always_sensitive: bool
    never_extractable: bool


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """Who answered, and which algorithms it can sign with."""

    label: str
    serial: str
    module: str
    algorithms: frozenset[str]


class Token(Protocol):
    """One token behind its worker process. All methods are coroutines of the frontend's one event loop."""

    @property
    def connected(self) -> bool:
        """Whether a worker is there to be asked; a hint, since it may go at any moment."""
        ...

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        """Sign and verify each task; one outcome per task, in order. Never raises: what is not known is UNKNOWN."""
        ...

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:
        """Generate a key pair: SIGN only, SENSITIVE, not EXTRACTABLE.

        Raises:
            SignerError: ALGORITHM_NOT_SUPPORTED, KEY_NOT_PROTECTED (then nothing is left on the token), or
                TOKEN_UNAVAILABLE, after which the pair may or may not exist: ask `find`.
        """
        ...

    async def find(self, cka_id: CkaId, algorithm: SigningAlgorithm) -> TokenKeyPair | None:
        """Look a key pair up; None only when a freshly opened token has none.

        Raises:
            SignerError: TOKEN_UNAVAILABLE when the token cannot be asked.
        """
        ...

    async def status(self) -> TokenStatus:
        """Ask the token something that only a working, logged-in token answers.

        Raises:
            SignerError: TOKEN_UNAVAILABLE.
        """
        ...


@unique
class RequestState(Enum):
    """How far a request to sign has come. A refused one leaves no row."""

    AUTHORIZED = "AUTHORIZED"  # debited; the token may have been asked
    COMPLETED = "COMPLETED"  # the signature is stored and may be released again and again
    INTERRUPTED = "INTERRUPTED"  # debited; nobody knows whether a signature exists, none was released
    FAILED = "FAILED"  # debited; the token refused, or answered with something that does not verify


@dataclass(frozen=True, slots=True)
class RequestKey:
    """What makes a request one request: its id, within its principal."""

    principal: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """A request that was authorized once. `sequence` is that first `sign.authorized` record, and the row's identity.

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
class PendingKey:
    """A key whose making was recorded and whose pair may or may not be on the token yet."""

    name: KeyName
    algorithm: SigningAlgorithm
    cka_id: CkaId
    request: RequestKey


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
        """Write state, version and result of rows that are there."""
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


class KeyTable(Protocol):
    """Keys and their versions. Nothing here ever removes a key because the token lacks it."""

    def load_all(self) -> list[Key]:
        """All keys that are complete, by name."""
        ...

    def load_pending(self) -> list[PendingKey]:
        """Keys whose making was begun and not finished."""
        ...

    def request_for(self, name: KeyName) -> RequestKey | None:
        """Which request made (or is making) the key of this name."""
        ...

    def insert_pending(self, pending: PendingKey, now: Instant) -> None:
        """Reserve a name and a CKA_ID."""
        ...

    def complete(self, version: KeyVersion) -> None:
        """Turn a pending key into a key with its first version."""
        ...

    def delete_pending(self, name: KeyName) -> None:
        """Free a name whose pair provably is not on the token."""
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

    # When the newest record was written; `now` of a transaction is never before it.
    last_time: Instant
    # Rises with every change of policy or keys; caches are good for one epoch.
    epoch: int
    requests: RequestTable
    usage: UsageTable
    keys: KeyTable
    policies: PolicyTable

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


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some records in order, and the tree when they were read."""

    records: list[tuple[int, bytes]]
    tree_size: int
    root_hash: bytes


class Store(Protocol):
    """The one durable store. Its errors come out as SignerError AUDIT_UNAVAILABLE, after which it must be reopened."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open the one write transaction; leaving the block without an exception makes it durable.

        If leaving raises, nobody knows whether it became durable: nothing that depends on it may be released.
        """
        ...

    async def reopen(self) -> None:
        """Drop the connection and open the store anew, checking the log's end against its tree."""
        ...

    async def read_log(self, start: int, limit: int) -> LogPage:
        """Read records from `start` on; does not wait for writers."""
        ...
