"""The log and its proofs for threads; `SignerClient` has them. Words as in `AsyncAuditCalls`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from hsmsigner.client.aio_audit import NEW_RECORDS, PAGE_SIZE
from hsmsigner.client.audit import AuditRecords
from hsmsigner.client.sync_keys import Calls
from hsmsigner.pb import audit_pb2


class AuditCalls(Calls):
    """Records, checkpoints and proofs; `wanted` is made by `audit_filter`."""

    def list_audit_records(
        self, start_sequence: int = 0, page_size: int = PAGE_SIZE, wanted: audit_pb2.AuditFilter | None = None
    ) -> AuditRecords:
        """The log from a record on; `tree_head` of what it gives is that of the last page read."""

        def fetch(start: int, page_token: str) -> audit_pb2.ListAuditRecordsResponse:
            return self.audit_page(start, page_size, page_token, wanted)

        return AuditRecords(fetch, start_sequence)

    def audit_page(
        self,
        start_sequence: int = 0,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        wanted: audit_pb2.AuditFilter | None = None,
    ) -> audit_pb2.ListAuditRecordsResponse:
        """One page of the log, as the server sent it."""
        return self._run(self._client.audit_page(start_sequence, page_size, page_token, wanted))

    def watch_audit_records(
        self, start_sequence: int = NEW_RECORDS, wanted: audit_pb2.AuditFilter | None = None
    ) -> Iterator[audit_pb2.WatchAuditRecordsResponse]:
        """Records from one on (NEW_RECORDS: from now on) and each new one; goes on by itself after a break."""
        answers = self._client.watch_audit_records(start_sequence, wanted)
        try:
            while True:
                yield self._run(_next(answers))
        except GeneratorExit:
            # Nobody is waiting for the next one: the call can be ended in order.
            self._run(answers.aclose())
            raise

    def get_checkpoint(self, min_size: int = 0) -> audit_pb2.GetCheckpointResponse:
        """The newest checkpoint (or the oldest that has `min_size`), and the log's verification keys."""
        return self._run(self._client.get_checkpoint(min_size))

    def list_checkpoints(self, after_size: int = 0) -> Iterator[audit_pb2.Checkpoint]:
        """Checkpoints larger than `after_size`, in order of size."""
        page_token = ""
        while True:
            page = self._run(self._client.checkpoint_page(after_size, page_token))
            yield from page.checkpoints
            if not (page_token := page.next_page_token):
                return

    def get_inclusion_proof(
        self,
        *,
        sequence: int | None = None,
        request_id: str | None = None,
        signature_sha256: bytes | None = None,
        tree_size: int = 0,
    ) -> audit_pb2.GetInclusionProofResponse:
        """One record, named in one of three ways, with its proof and checkpoint."""
        return self._run(
            self._client.get_inclusion_proof(
                sequence=sequence, request_id=request_id, signature_sha256=signature_sha256, tree_size=tree_size
            )
        )

    def get_consistency_proof(self, old_size: int, new_size: int = 0) -> audit_pb2.GetConsistencyProofResponse:
        """That the tree of `old_size` is the beginning of that of `new_size` (0: of the newest checkpoint)."""
        return self._run(self._client.get_consistency_proof(old_size, new_size))

    def get_tree_tile(self, level: int, number: int) -> audit_pb2.GetTreeTileResponse:
        """Hashes of one tile of the tree."""
        return self._run(self._client.get_tree_tile(level, number))

    def get_log_status(self) -> audit_pb2.GetLogStatusResponse:
        """How log, checkpoints, witnesses and the token's memory stand."""
        return self._run(self._client.get_log_status())

    def seal_audit_records(
        self, end_sequence: int, root_hash: bytes, archive: str
    ) -> audit_pb2.SealAuditRecordsResponse:
        """Take records below `end_sequence`, which `archive` has, out of the store. Asking again does no harm."""
        return self._run(self._client.seal_audit_records(end_sequence, root_hash, archive))


async def _next(
    answers: AsyncIterator[audit_pb2.WatchAuditRecordsResponse],
) -> audit_pb2.WatchAuditRecordsResponse:
    return await anext(answers)
