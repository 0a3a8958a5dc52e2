"""Retention: records that an archive has leave the store; their hashes stay, so that every proof can still be given."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable

from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.record import Entry
from hsmsigner.errors import SignerError, invalid_field
from hsmsigner.operations.access import require_right
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.ports import Store

_log = logging.getLogger(__name__)

# Whole segments of an export (docs/log-format.md).
SEGMENT = 65_536
LONGEST_ARCHIVE = 1000
# Deleted in one transaction: a few milliseconds in which nothing is signed.
_DELETED_AT_ONCE = 2000
_PAUSE_S = 0.02


class Sealing:
    """The use case behind SealAuditRecords. `clean` also finishes what an earlier run left half deleted."""

    def __init__(self, store: Store, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._governance = governance
        self._clock = clock

    async def seal(self, principal: Principal, end_sequence: int, root_hash: bytes, archive: str) -> int:
        """Take records below `end_sequence` out; returns the first sequence number that is still here.

        From the moment it is recorded the records count as gone; a crash while they are deleted leaves only rubbish,
        which the next start removes. Asking again for what is sealed already changes nothing.

        Raises:
            SignerError: FORBIDDEN, INVALID_FIELD, AUDIT_UNAVAILABLE.
        """
        require_right(self._governance.newest, principal, Right.SEAL_AUDIT)
        if end_sequence % SEGMENT or end_sequence < 0:
            raise invalid_field("end_sequence", f"must be a multiple of {SEGMENT}: whole segments are sealed")
        if not archive.strip() or len(archive) > LONGEST_ARCHIVE:
            raise invalid_field("archive", f"must say where the archive lies, in 1-{LONGEST_ARCHIVE} characters")
        if not await self._is_root(end_sequence, root_hash):
            raise invalid_field(
                "root_hash", "is not the root of this log at end_sequence; is the archive of this log, and verified?"
            )
        async with self._store.transaction() as transaction:
            first = transaction.retention.first_sequence
            if end_sequence > first:
                newest = transaction.checkpoints.newest_signed()
                if newest is None or newest.size < end_sequence:
                    size = 0 if newest is None else newest.size
                    raise invalid_field("end_sequence", f"must not be above the newest checkpoint's size, {size}")
                first = end_sequence
                transaction.retention.begin_with(first)
                fields = {"principal": principal.text, "first_sequence": first, "root": root_hash.hex(),
                          "archive": archive}  # fmt: skip
                now = not_before(self._clock(), transaction.last_time)
                transaction.append([Entry("log.sealed", fields)], now)
        await self.clean()
        return first

    async def clean(self) -> None:
        """Delete what is sealed, a little at a time, so that signing goes on.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        while True:
            async with self._store.transaction() as transaction:
                if not transaction.retention.delete_below(_DELETED_AT_ONCE):
                    return
            await asyncio.sleep(_PAUSE_S)

    async def clean_at_start(self) -> None:
        """Finish what an earlier run left; what cannot be done now is done at the next seal or start."""
        try:
            await self.clean()
        except SignerError as error:
            _log.warning("sealed records could not be deleted yet: %s", error.message)

    async def _is_root(self, size: int, root_hash: bytes) -> bool:
        try:
            return hmac.compare_digest(await self._store.root_at(size), root_hash)
        except LookupError:
            return False
