"""What the use cases need from the store about keys: versions, rotations, statements, and who does the chores.

Every change is conditional on the `revision` that was read: zero rows is a conflict, never success.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.continuity import ContinuityStatement
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyVersion, VersionName
from hsmsigner.domain.rotation_policy import Rotation
from hsmsigner.domain.signing import RequestId


class RequestKey(Struct, frozen=True, gc=False):
    """What makes a request one request: its id, within its principal."""

    principal: str
    request_id: RequestId


@dataclass(frozen=True, slots=True)
class PendingKey:
    """A version whose making was recorded and whose pair may or may not be on the token yet.

    `request` is the CreateKey call that made the key; with `number` 1 it is this making's own.
    """

    name: KeyName
    algorithm: SigningAlgorithm
    cka_id: CkaId
    request: RequestKey
    number: int = 1

    @property
    def version(self) -> VersionName:
        """The version that is being made."""
        return VersionName(self.name, self.number)


class KeyTable(Protocol):
    """Keys and their versions. Nothing here ever removes a key because the token lacks it."""

    def load_all(self) -> list[Key]:
        """All keys that are complete, by name, with their rotations under way."""
        ...

    def load(self, name: KeyName) -> Key | None:
        """One key that is complete."""
        ...

    def load_pending(self) -> list[PendingKey]:
        """Versions whose making was begun and not finished."""
        ...

    def request_for(self, name: KeyName) -> RequestKey | None:
        """Which request made (or is making) the key of this name."""
        ...

    def owner_of(self, cka_id: CkaId) -> VersionName | None:
        """The version, complete or pending, whose pair has this CKA_ID."""
        ...

    def insert_pending(self, pending: PendingKey, now: Instant) -> None:
        """Reserve a version and a CKA_ID; with number 1, the key's name too."""
        ...

    def complete(self, version: KeyVersion) -> None:
        """Turn a pending version into this one. Version 1 becomes the key's primary; others leave the primary alone.

        Raises:
            SignerError: ETAG_MISMATCH, it is pending no more.
        """
        ...

    def save_version(self, version: KeyVersion) -> KeyVersion:
        """Write all that may change (not `signature_count`), if `version.revision` still is the stored one.

        Returns the version with its new revision. The key's revision rises too.

        Raises:
            SignerError: ETAG_MISMATCH.
        """
        ...

    def save_key(self, key: Key) -> Key:
        """Write primary number and rotation policy, if `key.revision` still is the stored one; returns it as written.

        Raises:
            SignerError: ETAG_MISMATCH.
        """
        ...

    def delete_pending(self, version: VersionName) -> None:
        """Free a reservation whose pair is not on the token, or unwanted; with number 1, the key's name too."""
        ...

    def count_signatures(self, counts: Mapping[VersionName, int]) -> None:
        """Raise the counts of these versions by as many."""
        ...

    def signature_counts(self) -> dict[VersionName, int]:
        """Signatures authorized so far, of the primaries of keys that rotate by them."""
        ...


class CommandTable(Protocol):
    """Commands of KeyService that had an effect, by their request_id; kept for good."""

    def find(self, request: RequestKey) -> bytes | None:
        """Fingerprint of the command that this id stands for."""
        ...

    def insert(self, request: RequestKey, fingerprint: bytes, now: Instant) -> None:
        """Let an id stand for a command."""
        ...


class RotationTable(Protocol):
    """Rotations. At most one of a key is unfinished; `Key.rotation` is that one."""

    def insert(self, name: KeyName, rotation: Rotation) -> None:
        """Begin one."""
        ...

    def save(self, rotation: Rotation) -> None:
        """Write who answers for it and why, its times, and how far it is."""
        ...

    def find(self, name: KeyName, request: RequestKey) -> Rotation | None:
        """The rotation of this key that this request began, finished or not."""
        ...


class UnwantedPairTable(Protocol):
    """Pairs that are to be destroyed should the token have them: made for a rotation that was called off."""

    def insert(self, cka_id: CkaId, algorithm: SigningAlgorithm, now: Instant) -> None:
        """Remember one; doing so again changes nothing."""
        ...

    def load(self) -> dict[CkaId, SigningAlgorithm]:
        """All of them, oldest first."""
        ...

    def delete(self, cka_id: CkaId) -> None:
        """Forget one that surely is not on the token, and will not be."""
        ...


class ContinuityTable(Protocol):
    """Continuity statements, one for each pair of an old and a new version."""

    def insert(self, statement: ContinuityStatement, sequence: int) -> None:
        """Add a statement, in place of an earlier one that named another time; `sequence` is its `key.continuity`."""
        ...

    def list(self, name: KeyName, start: int, limit: int) -> list[ContinuityStatement]:
        """Statements of a key, oldest first, from the `start`-th (from 0) on."""
        ...


class LeaseTable(Protocol):
    """Which frontend does a chore that only one may do at a time."""

    def take(self, name: str, holder: str, now: Instant, duration_us: int) -> bool:
        """Take or prolong a lease; False when another holder has it.

        `now` is the machine's clock, which may jump: a lease that would run longer than `duration_us` from now was
        written before the clock was set back, and counts as over.
        """
        ...
