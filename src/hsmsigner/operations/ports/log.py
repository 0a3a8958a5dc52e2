"""What the use cases need from the store about the log as a whole: pages, proofs, checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from hsmsigner.domain.instant import Instant


@unique
class Outcome(Enum):
    """How something that was asked ended; what a record's type says, in groups (proto: AuditOutcome)."""

    DONE = "DONE"
    DENIED = "DENIED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"
    ANNOUNCED = "ANNOUNCED"


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which records are wanted; what is empty or None does not matter. All that is set must hold.

    `key` is `keys/{key}` (with all its versions) or `keys/{key}/versions/{n}`, as the record's field `key` says it, or
    its field `version` where the record tells of a version's life. A type that ends in a dot stands for all
    that begin so. Times are `start_time` <= time < `end_time`.
    """

    key: str = ""
    principal: str = ""
    types: tuple[str, ...] = ()
    outcome: Outcome | None = None
    start_time: Instant | None = None
    end_time: Instant | None = None


NO_FILTER = LogFilter()


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some records in order, and the tree when they were read.

    `next_sequence` is where to read on: everything before it is in `records`, or does not fit the filter. Records below
    `first_sequence` were sealed.
    """

    records: list[tuple[int, bytes]]
    tree_size: int
    root_hash: bytes
    next_sequence: int
    first_sequence: int = 0


@dataclass(frozen=True, slots=True)
class TreeHead:
    """A tree: its number of leaves and its root."""

    size: int
    root_hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head that the log vouches for. `note` is the whole signed note; empty while the token is asked for it.

    `cosignatures` of the note are those of the witnesses so far; `witnesses` is how many of the configured ones.
    """

    size: int
    root_hash: bytes
    time: Instant
    note: str = ""
    witnesses: int = 0


# Gets a checkpoint whose note has just become durable, signed or with one more cosignature.
CheckpointObserver = Callable[[Checkpoint], Awaitable[None]]

# Where no record is: reading the log there tells how the tree stands, and nothing more.
BEYOND_THE_LOG = 2**62


class CheckpointTable(Protocol):
    """Checkpoints. Their sizes rise; size and root of one never change."""

    def insert(self, checkpoint: Checkpoint) -> None:
        """Add one that is larger than all others, still without its note.

        Raises:
            ValueError: it is not larger; the log never contradicts itself.
        """
        ...

    def save_note(self, size: int, note: str, witnesses: int) -> None:
        """Write the note of a checkpoint that is there.

        Raises:
            LookupError: it is not.
        """
        ...

    def newest(self) -> Checkpoint | None:
        """The largest one, signed or not."""
        ...

    def newest_signed(self, min_witnesses: int = 0) -> Checkpoint | None:
        """The largest one with a note and at least so many witnesses."""
        ...

    def first_signed(self, min_size: int) -> Checkpoint | None:
        """The smallest one with a note that has at least this size."""
        ...

    def list(self, after_size: int, limit: int) -> list[Checkpoint]:
        """Signed ones larger than `after_size`, in order."""
        ...


class Retention(Protocol):
    """Where the stored log begins."""

    @property
    def first_sequence(self) -> int:
        """Records below this one were sealed; 0 when none was."""
        ...

    def begin_with(self, first_sequence: int) -> None:
        """From now on records below this one count as gone."""
        ...

    def delete_below(self, limit: int) -> int:
        """Delete up to `limit` records that count as gone, oldest first; returns how many there were."""
        ...


class LogReader(Protocol):
    """Reading the log; none of it waits for writers. All raise SignerError AUDIT_UNAVAILABLE when the store is away.

    Where a proof or a tile is asked for a tree larger than the log's, or a record that is not there: `LookupError`.
    """

    async def read_log(self, start: int, limit: int, wanted: LogFilter = NO_FILTER) -> LogPage:
        """Read up to `limit` records that fit, from `start` on.

        Looks through a bounded number of records; `next_sequence` says where to go on.

        Raises:
            SignerError: RECORDS_SEALED, with the first sequence number that is still here.
        """
        ...

    async def find_by_request(self, request_id: str) -> list[int]:
        """Sequence numbers of all records about this request_id that are here, in order; of any principal.

        Raises:
            SignerError: RECORDS_SEALED, when none is here and some may have been sealed.
        """
        ...

    async def find_by_signature(self, signature_sha256: bytes) -> list[int]:
        """Sequence numbers of all records with this `signature_sha256`, in order.

        Raises:
            SignerError: RECORDS_SEALED, as above.
        """
        ...

    async def root_at(self, size: int) -> bytes:
        """Root of the tree when it had this size."""
        ...

    async def inclusion_proof(self, sequence: int, size: int) -> list[bytes]:
        """RFC 9162 section 2.1.3."""
        ...

    async def consistency_proof(self, old_size: int, new_size: int) -> list[bytes]:
        """RFC 9162 section 2.1.4; empty from 0 and to the same size."""
        ...

    async def read_tile(self, level: int, number: int) -> tuple[list[bytes], int]:
        """Hashes of a tile, up to 256, and the size of the tree they were read from."""
        ...

    async def read_checkpoints(self, after_size: int, limit: int) -> Sequence[Checkpoint]:
        """Signed checkpoints larger than `after_size`, in order."""
        ...

    async def read_newest_checkpoint(self, min_witnesses: int = 0) -> Checkpoint | None:
        """The largest signed checkpoint with at least so many witnesses."""
        ...

    async def read_newest_cosigned(self, line_start: str) -> Checkpoint | None:
        """The largest signed checkpoint with a signature line that begins so, among the newest 50,000."""
        ...
