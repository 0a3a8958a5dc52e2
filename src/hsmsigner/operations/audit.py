"""Reading the audit log, and proofs that nobody changed it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from hsmsigner.domain.key import LOG_KEY
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.access import require_right
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.log_key import vkeys
from hsmsigner.operations.log_status import LogSources, LogStatus
from hsmsigner.operations.ports import BEYOND_THE_LOG, NO_FILTER, Checkpoint, LogFilter, LogPage, Store, TreeHead

# One request_id has one outcome; only somebody who abuses it makes more records about it than twice this. He cannot
# have made them both before and after it.
_RECORDS_AT_EITHER_END = 100


@dataclass(frozen=True, slots=True)
class SignatureSha256:
    """SHA-256 of a raw signature, as the record of its making has it: 32 bytes."""

    digest: bytes


# By what a record is asked for: its sequence number, its request, its signature.
WantedRecord = int | RequestId | SignatureSha256


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """A record, its checkpoint, and the hashes that lead from one to the other (RFC 9162 section 2.1.3)."""

    sequence: int
    record: bytes
    hashes: Sequence[bytes]
    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Two tree sizes, and the hashes that lead from one to the other (RFC 9162 section 2.1.4)."""

    old_size: int
    new_size: int
    hashes: Sequence[bytes]


class Audit:
    """The use cases behind AuditService, but for watching. `next_checkpoint_s` is when the next one is due at most."""

    def __init__(
        self,
        store: Store,
        governance: GovernanceCache,
        *,
        origin: str,
        next_checkpoint_s: float,
        sources: LogSources | None = None,
    ) -> None:
        self._store = store
        self._governance = governance
        self._origin = origin
        self._next_checkpoint_s = next_checkpoint_s
        self._sources = sources or LogSources()

    async def read(self, principal: Principal, start: int, limit: int, wanted: LogFilter = NO_FILTER) -> LogPage:
        """Up to `limit` records that fit, from sequence number `start` on, and the tree when they were read.

        Raises:
            SignerError: FORBIDDEN, RECORDS_SEALED, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        return await self._store.read_log(start, limit, wanted)

    async def checkpoint(self, principal: Principal, min_size: int = 0) -> Checkpoint:
        """The newest signed checkpoint, or the oldest that has at least `min_size` records.

        Raises:
            SignerError: FORBIDDEN, CHECKPOINT_PENDING, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        return await self._newest(min_size) if not min_size else await self._first(min_size)

    async def checkpoints(self, principal: Principal, after_size: int, limit: int) -> Sequence[Checkpoint]:
        """Up to `limit` signed checkpoints larger than `after_size`, in order.

        Raises:
            SignerError: FORBIDDEN, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        return await self._store.read_checkpoints(after_size, limit)

    def vkeys(self, principal: Principal) -> list[str]:
        """Verification keys of the log, the first one ever first.

        Raises:
            SignerError: FORBIDDEN.
        """
        self._require(principal)
        return vkeys(self._governance.newest.key(LOG_KEY), self._origin)

    async def prove_inclusion(self, principal: Principal, wanted: WantedRecord, tree_size: int = 0) -> InclusionProof:
        """One record, and the proof that it is in the tree of a checkpoint: of this size, or the newest (0).

        Raises:
            SignerError: FORBIDDEN, NOT_IN_LOG, CHECKPOINT_PENDING, RECORDS_SEALED, AUDIT_UNAVAILABLE; INVALID_FIELD,
                also for a request_id that several principals had something signed under.
        """
        self._require(principal)
        sequence, record = await self._find(wanted)
        checkpoint = await self._of_size(tree_size) if tree_size else await self._newest(sequence + 1)
        if sequence >= checkpoint.size:
            message = f"must be above {sequence}, which is the record's sequence number"
            raise invalid_field("tree_size", message)
        hashes = await self._store.inclusion_proof(sequence, checkpoint.size)
        return InclusionProof(sequence, record, hashes, checkpoint)

    async def prove_consistency(self, principal: Principal, old_size: int, new_size: int = 0) -> ConsistencyProof:
        """The proof that a tree begins with an older one; 0 as the new size takes the newest checkpoint's.

        Raises:
            SignerError: FORBIDDEN, NOT_IN_LOG, CHECKPOINT_PENDING, INVALID_FIELD, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        size = new_size or (await self._newest(old_size)).size
        if old_size > size:
            raise invalid_field("old_size", f"must not be above new_size, {size}")
        try:
            return ConsistencyProof(old_size, size, await self._store.consistency_proof(old_size, size))
        except LookupError as error:
            raise _not_in_log(f"the log does not have {size} records") from error

    async def tile(self, principal: Principal, level: int, number: int) -> tuple[list[bytes], int]:
        """Up to 256 hashes of a tile, and the size of the tree they were read from.

        Raises:
            SignerError: FORBIDDEN, NOT_IN_LOG, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        try:
            return await self._store.read_tile(level, number)
        except LookupError as error:
            raise _not_in_log(f"the tree has no tile {number} of level {level}") from error

    async def status(self, principal: Principal) -> LogStatus:
        """How the log, its checkpoints and their witnesses stand.

        Raises:
            SignerError: FORBIDDEN, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        page = await self._store.read_log(BEYOND_THE_LOG, 1)
        newest = await self._store.read_newest_checkpoint()
        quorum = self._sources.quorum
        witnessed = await self._store.read_newest_checkpoint(quorum) if quorum else None
        head = TreeHead(page.tree_size, page.root_hash)
        return LogStatus(self._origin, head, page.first_sequence, newest, witnessed, self._sources)

    def _require(self, principal: Principal) -> None:
        require_right(self._governance.newest, principal, Right.READ_AUDIT)

    async def _newest(self, min_size: int) -> Checkpoint:
        checkpoint = await self._store.read_newest_checkpoint()
        if checkpoint is None or checkpoint.size < min_size:
            raise self._pending(min_size)
        return checkpoint

    async def _first(self, min_size: int) -> Checkpoint:
        found = await self._store.read_checkpoints(min_size - 1, 1)
        if not found:
            raise self._pending(min_size)
        return found[0]

    async def _of_size(self, size: int) -> Checkpoint:
        found = await self._store.read_checkpoints(size - 1, 1)
        if not found or found[0].size != size:
            raise _not_in_log(f"no checkpoint has {size} records; take the size of one that has, or 0", "tree_size")
        return found[0]

    def _pending(self, min_size: int) -> SignerError:
        message = f"no checkpoint of {max(min_size, 1)} records or more was made yet"
        return SignerError(Reason.CHECKPOINT_PENDING, message, retry_after_s=self._next_checkpoint_s)

    async def _find(self, wanted: WantedRecord) -> tuple[int, bytes]:
        match wanted:
            case int():
                return await self._record(wanted)
            case SignatureSha256(digest):
                sequences = await self._store.find_by_signature(digest)
                if not sequences:
                    raise _not_in_log("no record is about a signature with that hash", "signature_sha256")
                return await self._record(sequences[-1])
            case _:
                return await self._newest_about(wanted)

    async def _newest_about(self, request_id: RequestId) -> tuple[int, bytes]:
        """The signature that was released, else the newest record about the request.

        Ids belong to principals: neither a refusal nor a signature of somebody else under the same id may stand for
        the one that is meant.
        """
        sequences = await self._store.find_by_request(request_id)
        if not sequences:
            raise _not_in_log("no record is about a request with that request_id", "request_id")
        ends = dict.fromkeys((*sequences[:_RECORDS_AT_EITHER_END], *sequences[-_RECORDS_AT_EITHER_END:]))
        signed: dict[str, tuple[int, bytes]] = {}
        for sequence in ends:
            record = await self._record(sequence)
            fields = json.loads(record[1])
            if fields.get("type") == "sign.completed":
                signed[str(fields.get("principal"))] = record
        if len(signed) > 1:
            found = ", ".join(f"{sequence} ({principal})" for principal, (sequence, _) in sorted(signed.items()))
            message = f"stands for signatures of several principals; ask for one of the records {found}"
            raise invalid_field("request_id", message)
        return next(iter(signed.values())) if signed else await self._record(sequences[-1])

    async def _record(self, sequence: int) -> tuple[int, bytes]:
        records = (await self._store.read_log(sequence, 1)).records
        if not records or records[0][0] != sequence:
            raise _not_in_log(f"the log has no record {sequence} yet", "sequence")
        return records[0]


def _not_in_log(message: str, field: str | None = None) -> SignerError:
    return SignerError(Reason.NOT_IN_LOG, message, field=field)
