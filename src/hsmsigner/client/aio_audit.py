"""The log and its proofs for asyncio programs; `AsyncSignerClient` has them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import grpc

from hsmsigner.client.audit import AsyncAuditRecords
from hsmsigner.client.channel import Connection, change, read
from hsmsigner.client.errors import Unavailable, error_of_call
from hsmsigner.client.multiplexer import StreamLimits
from hsmsigner.pb import audit_pb2

_TIMEOUT_S = 30.0
# Deleting many millions of records takes its time.
_SEAL_TIMEOUT_S = 600.0
PAGE_SIZE = 1000
NEW_RECORDS = -1


class AsyncAuditCalls:
    """Records, checkpoints and proofs; `wanted` is made by `audit_filter`."""

    _connection: Connection

    def list_audit_records(
        self, start_sequence: int = 0, page_size: int = PAGE_SIZE, wanted: audit_pb2.AuditFilter | None = None
    ) -> AsyncAuditRecords:
        """The log from a record on; `tree_head` of what it gives is that of the last page read."""

        async def fetch(start: int, page_token: str) -> audit_pb2.ListAuditRecordsResponse:
            return await self.audit_page(start, page_size, page_token, wanted)

        return AsyncAuditRecords(fetch, start_sequence)

    async def audit_page(
        self,
        start_sequence: int = 0,
        page_size: int = PAGE_SIZE,
        page_token: str = "",
        wanted: audit_pb2.AuditFilter | None = None,
    ) -> audit_pb2.ListAuditRecordsResponse:
        """One page of the log, as the server sent it."""
        request = audit_pb2.ListAuditRecordsRequest(
            start_sequence=start_sequence, page_size=page_size, page_token=page_token, filter=wanted
        )
        return await read(self._connection.audit.ListAuditRecords, request, _TIMEOUT_S)

    async def watch_audit_records(
        self, start_sequence: int = NEW_RECORDS, wanted: audit_pb2.AuditFilter | None = None
    ) -> AsyncGenerator[audit_pb2.WatchAuditRecordsResponse, None]:
        """Records from one on (NEW_RECORDS: from now on) and each new one; goes on by itself after a break.

        Raises:
            SigningClientError: the server says no, and would again.
        """
        limits, failures = StreamLimits(), 0
        while True:
            request = audit_pb2.WatchAuditRecordsRequest(start_sequence=start_sequence, filter=wanted)
            try:
                async for answer in self._connection.audit.WatchAuditRecords(request):
                    failures, start_sequence = 0, answer.next_sequence
                    yield answer
            except grpc.aio.AioRpcError as error:
                refusal = error_of_call(error, changes_something=False)
                if not isinstance(refusal, Unavailable):
                    raise refusal from error
            await asyncio.sleep(limits.pause_s(failures))
            failures += 1

    async def get_checkpoint(self, min_size: int = 0) -> audit_pb2.GetCheckpointResponse:
        """The newest checkpoint (or the oldest that has `min_size`), and the log's verification keys."""
        request = audit_pb2.GetCheckpointRequest(min_size=min_size)
        return await read(self._connection.audit.GetCheckpoint, request, _TIMEOUT_S)

    async def list_checkpoints(self, after_size: int = 0) -> AsyncGenerator[audit_pb2.Checkpoint, None]:
        """Checkpoints larger than `after_size`, in order of size."""
        page_token = ""
        while True:
            page = await self.checkpoint_page(after_size, page_token)
            for checkpoint in page.checkpoints:
                yield checkpoint
            if not (page_token := page.next_page_token):
                return

    async def checkpoint_page(self, after_size: int = 0, page_token: str = "") -> audit_pb2.ListCheckpointsResponse:
        """Checkpoints in order of size, one page of them."""
        request = audit_pb2.ListCheckpointsRequest(page_size=PAGE_SIZE, page_token=page_token, after_size=after_size)
        return await read(self._connection.audit.ListCheckpoints, request, _TIMEOUT_S)

    async def get_inclusion_proof(
        self,
        *,
        sequence: int | None = None,
        request_id: str | None = None,
        signature_sha256: bytes | None = None,
        tree_size: int = 0,
    ) -> audit_pb2.GetInclusionProofResponse:
        """One record, named in one of three ways, with its proof and checkpoint."""
        request = audit_pb2.GetInclusionProofRequest(tree_size=tree_size)
        if sequence is not None:
            request.sequence = sequence
        if request_id is not None:
            request.request_id = request_id
        if signature_sha256 is not None:
            request.signature_sha256 = signature_sha256
        return await read(self._connection.audit.GetInclusionProof, request, _TIMEOUT_S)

    async def get_consistency_proof(self, old_size: int, new_size: int = 0) -> audit_pb2.GetConsistencyProofResponse:
        """That the tree of `old_size` is the beginning of that of `new_size` (0: of the newest checkpoint)."""
        request = audit_pb2.GetConsistencyProofRequest(old_size=old_size, new_size=new_size)
        return await read(self._connection.audit.GetConsistencyProof, request, _TIMEOUT_S)

    async def get_tree_tile(self, level: int, number: int) -> audit_pb2.GetTreeTileResponse:
        """Hashes of one tile of the tree."""
        request = audit_pb2.GetTreeTileRequest(level=level, number=number)
        return await read(self._connection.audit.GetTreeTile, request, _TIMEOUT_S)

    async def get_log_status(self) -> audit_pb2.GetLogStatusResponse:
        """How log, checkpoints, witnesses and the token's memory stand."""
        return await read(self._connection.audit.GetLogStatus, audit_pb2.GetLogStatusRequest(), _TIMEOUT_S)

    async def seal_audit_records(
        self, end_sequence: int, root_hash: bytes, archive: str
    ) -> audit_pb2.SealAuditRecordsResponse:
        """Take records below `end_sequence`, which `archive` has, out of the store. Asking again does no harm."""
        request = audit_pb2.SealAuditRecordsRequest(end_sequence=end_sequence, root_hash=root_hash, archive=archive)
        return await change(self._connection.audit.SealAuditRecords, request, _SEAL_TIMEOUT_S)
