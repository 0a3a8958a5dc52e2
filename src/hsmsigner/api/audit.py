"""AuditService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from hsmsigner.api import log_convert as convert
from hsmsigner.api.authn import Authenticator, current_caller, current_principal
from hsmsigner.api.convert import page_size, page_start
from hsmsigner.api.interceptors import Context
from hsmsigner.operations.audit import Audit
from hsmsigner.operations.log_watch import LogWatch
from hsmsigner.operations.ports import LogPage
from hsmsigner.operations.sealing import Sealing
from hsmsigner.pb import audit_pb2, audit_pb2_grpc


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Checks, asks the use case, writes the answer out."""

    def __init__(
        self,
        audit: Audit,
        log_watch: LogWatch,
        sealing: Sealing,
        *,
        authenticator: Authenticator,
        draining: asyncio.Event,
    ) -> None:
        self._audit = audit
        self._log_watch = log_watch
        self._sealing = sealing
        self._authenticator = authenticator
        self._draining = draining

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, context: Context
    ) -> audit_pb2.ListAuditRecordsResponse:
        size, wanted = page_size(request.page_size), convert.log_filter(request.filter)
        start = min(request.start_sequence, convert.MAX_SEQUENCE)
        if request.page_token:
            start = page_start(request.page_token)
        page = await self._audit.read(current_principal(), start, size, wanted)
        records = convert.records_that_fit(page.records)
        read_on = page.next_sequence if len(records) == len(page.records) else records[-1].sequence + 1
        return audit_pb2.ListAuditRecordsResponse(
            records=records,
            next_page_token=str(read_on) if read_on < page.tree_size else "",
            tree_head=audit_pb2.TreeHead(size=page.tree_size, root_hash=page.root_hash),
        )

    async def WatchAuditRecords(
        self, request: audit_pb2.WatchAuditRecordsRequest, context: Context
    ) -> AsyncIterator[audit_pb2.WatchAuditRecordsResponse]:
        caller = current_caller()
        start, wanted = convert.watch_start(request.start_sequence), convert.log_filter(request.filter)
        async with aclosing(self._log_watch.watch(caller.principal, start, wanted)) as pages:
            while (page := await self._next_page(pages)) is not None:
                # Days may have passed since the last record: a certificate that was revoked meanwhile sees no more.
                self._authenticator.recheck(caller)
                rest = page.records
                while records := convert.records_that_fit(rest):
                    rest = rest[len(records) :]
                    next_sequence = records[-1].sequence + 1 if rest else page.next_sequence
                    yield audit_pb2.WatchAuditRecordsResponse(records=records, next_sequence=next_sequence)
                if not page.records:
                    yield audit_pb2.WatchAuditRecordsResponse(next_sequence=page.next_sequence)

    async def _next_page(self, pages: AsyncGenerator[LogPage, None]) -> LogPage | None:
        """The next page; None when the appliance stops."""
        reading = asyncio.ensure_future(anext(pages))
        stopping = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((reading, stopping), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else None
        finally:
            stopping.cancel()
            if not reading.done():
                reading.cancel()
                # The generator cannot be closed while it runs.
                await asyncio.wait((reading,))

    async def GetCheckpoint(
        self, request: audit_pb2.GetCheckpointRequest, context: Context
    ) -> audit_pb2.GetCheckpointResponse:
        min_size = convert.sequence(request.min_size, "min_size")
        checkpoint = await self._audit.checkpoint(current_principal(), min_size)
        return audit_pb2.GetCheckpointResponse(
            checkpoint=convert.checkpoint_message(checkpoint), vkeys=self._audit.vkeys(current_principal())
        )

    async def ListCheckpoints(
        self, request: audit_pb2.ListCheckpointsRequest, context: Context
    ) -> audit_pb2.ListCheckpointsResponse:
        size, after = page_size(request.page_size), convert.sequence(request.after_size, "after_size")
        after = max(after, page_start(request.page_token))
        found = await self._audit.checkpoints(current_principal(), after, size + 1)
        return audit_pb2.ListCheckpointsResponse(
            checkpoints=map(convert.checkpoint_message, found[:size]),
            next_page_token=str(found[size - 1].size) if len(found) > size else "",
        )

    async def GetInclusionProof(
        self, request: audit_pb2.GetInclusionProofRequest, context: Context
    ) -> audit_pb2.GetInclusionProofResponse:
        wanted, tree_size = convert.wanted_record(request), convert.sequence(request.tree_size, "tree_size")
        proof = await self._audit.prove_inclusion(current_principal(), wanted, tree_size)
        return audit_pb2.GetInclusionProofResponse(
            record=audit_pb2.AuditRecord(sequence=proof.sequence, record=proof.record),
            hashes=proof.hashes,
            checkpoint=convert.checkpoint_message(proof.checkpoint),
        )

    async def GetConsistencyProof(
        self, request: audit_pb2.GetConsistencyProofRequest, context: Context
    ) -> audit_pb2.GetConsistencyProofResponse:
        old_size, new_size = (
            convert.sequence(request.old_size, "old_size"),
            convert.sequence(request.new_size, "new_size"),
        )
        proof = await self._audit.prove_consistency(current_principal(), old_size, new_size)
        return audit_pb2.GetConsistencyProofResponse(
            old_size=proof.old_size, new_size=proof.new_size, hashes=proof.hashes
        )

    async def GetTreeTile(
        self, request: audit_pb2.GetTreeTileRequest, context: Context
    ) -> audit_pb2.GetTreeTileResponse:
        level, number = convert.tile_level(request.level), convert.sequence(request.number, "number")
        hashes, tree_size = await self._audit.tile(current_principal(), level, number)
        return audit_pb2.GetTreeTileResponse(hashes=b"".join(hashes), tree_size=tree_size)

    async def GetLogStatus(
        self, request: audit_pb2.GetLogStatusRequest, context: Context
    ) -> audit_pb2.GetLogStatusResponse:
        return convert.status_message(await self._audit.status(current_principal()))

    async def SealAuditRecords(
        self, request: audit_pb2.SealAuditRecordsRequest, context: Context
    ) -> audit_pb2.SealAuditRecordsResponse:
        end = convert.sequence(request.end_sequence, "end_sequence")
        first = await self._sealing.seal(current_principal(), end, request.root_hash, request.archive)
        return audit_pb2.SealAuditRecordsResponse(first_sequence=first)
