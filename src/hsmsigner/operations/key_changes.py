"""One change of keys: a transaction with its time, its records, and every cache told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.key import Key, KeyName, KeyVersion, VersionName
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.record import Entry
from hsmsigner.domain.rotation_policy import Rotation
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import check_reason, not_found_or_forbidden, visible_key
from hsmsigner.operations.commands import Command, is_known, remember
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.operations.ports import RequestKey, Store, Transaction


@dataclass(frozen=True, slots=True)
class Cause:
    """Who wants a change and why, for its record. `request_id` is empty where the call has none."""

    principal: Principal
    reason: str
    request_id: str = ""

    def check(self) -> None:
        """See that a reason was given.

        Raises:
            SignerError: INVALID_FIELD.
        """
        check_reason(self.reason)

    def fields(self) -> dict[str, object]:
        """As a record says it."""
        fields: dict[str, object] = {"principal": self.principal.text, "reason": self.reason}
        return fields | ({"request_id": self.request_id} if self.request_id else {})


@dataclass(slots=True)
class Change:
    """An open change; what was recorded is written, and the epoch ended, when it closes."""

    transaction: Transaction
    governance: Governance
    now: Instant
    entries: list[Entry] = field(default_factory=list)
    # To be remembered if this change has an effect.
    command: Command | None = None

    @property
    def next_sequence(self) -> int:
        """Sequence number the next record will have."""
        return self.transaction.next_sequence + len(self.entries)

    def claim(self, method: str, cause: Cause, *details: str | int | bool | None) -> bool:
        """Have the cause's request_id stand for this command, if it comes to an effect; whether it did so before.

        Raises:
            SignerError: REQUEST_ID_REUSED, it stands for another.
        """
        request = RequestKey(cause.principal.text, RequestId(cause.request_id))
        command = Command(request, method, (*details, cause.reason))
        is_repeated = is_known(self.transaction, command)
        self.command = None if is_repeated else command
        return is_repeated

    def record(self, kind: str, subject: KeyName | VersionName, cause: Cause, **more: object) -> None:
        """Add a record about a key or a version."""
        key = subject if isinstance(subject, KeyName) else subject.key
        fields: dict[str, object] = {"key": str(key)}
        if isinstance(subject, VersionName):
            fields["version"] = str(subject)
        self.entries.append(Entry(kind, fields | cause.fields() | more))

    def key(self, name: KeyName) -> Key:
        """A key as it is stored now, with its signatures counted so far.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
        """
        key = self.transaction.keys.load(name)
        if key is None:
            raise not_found_or_forbidden(name)
        return key

    def permitted_key(self, principal: Principal, name: KeyName, right: Right) -> Key:
        """The same, if the principal holds this right over it.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
        """
        visible_key(self.governance, principal, name, right)
        return self.key(name)

    def permitted_version(self, principal: Principal, name: VersionName, right: Right) -> tuple[Key, KeyVersion]:
        """A key and one of its versions, if the principal holds this right over it.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
        """
        key = self.permitted_key(principal, name.key, right)
        version = key.version(name.number)
        if version is None:
            raise not_found_or_forbidden(name)
        return key, version

    def under_way(self, rotation: Rotation, name: KeyName) -> tuple[Key, Rotation]:
        """A key and its rotation as they are stored now, if it still is this one.

        Raises:
            SignerError: ETAG_MISMATCH, it was called off or finished meanwhile.
        """
        key = self.key(name)
        if key.rotation is None or key.rotation.sequence != rotation.sequence:
            raise SignerError(Reason.ETAG_MISMATCH, f"the rotation of {name} ended meanwhile; look at the key again")
        return key, key.rotation


@dataclass(frozen=True, slots=True)
class WantedRotation:
    """What a RotateKey call asks for; None takes what is usual: now, and the rotation policy's overlap."""

    activate_time: Instant | None = None
    overlap_us: int | None = None
    etag: str = ""


class KeyChanges:
    """Opens changes."""

    def __init__(self, store: Store, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._governance = governance
        self._clock = clock

    @property
    def governance(self) -> Governance:
        """The newest epoch seen."""
        return self._governance.newest

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Change]:
        """Open a change; all of it becomes durable on leaving, or none.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        async with self._store.transaction() as transaction:
            now = not_before(self._clock(), transaction.last_time)
            change = Change(transaction, self._governance.within(transaction), now)
            yield change
            if change.entries:
                if change.command is not None:
                    remember(transaction, change.command, now)
                transaction.append(change.entries, now)
                transaction.raise_epoch()
        if change.entries:
            await self._governance.reload(self._store)
