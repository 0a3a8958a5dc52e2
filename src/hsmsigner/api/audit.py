"""AuditService."""

from __future__ import annotations

from hsmsigner.api.authn import current_principal
from hsmsigner.api.convert import page_size, page_start
from hsmsigner.api.interceptors import Context
from hsmsigner.operations.audit import Audit
from hsmsigner.pb import audit_pb2, audit_pb2_grpc

# A page never outgrows a gRPC message, however long the records are.
_MAX_PAGE_BYTES = 2 * 2**20
_MAX_SEQUENCE = 2**62


class AuditServicer(audit_pb2_grpc.AuditServiceServicer):
    """Checks, asks the use case, writes the answer out."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditRecords(
        self, request: audit_pb2.ListAuditRecordsRequest, context: Context
    ) -> audit_pb2.ListAuditRecordsResponse:
        size = page_size(request.page_size)
        start = page_start(request.page_token) if request.page_token else min(request.start_sequence, _MAX_SEQUENCE)
        page = await self._audit.read(current_principal(), start, size)
        answer = audit_pb2.ListAuditRecordsResponse(
            tree_head=audit_pb2.TreeHead(size=page.tree_size, root_hash=page.root_hash)
        )
        filled = 0
        for sequence, record in page.records:
            filled += len(record)
            if filled > _MAX_PAGE_BYTES and answer.records:
                break
            answer.records.add(sequence=sequence, record=record)
        if answer.records and answer.records[-1].sequence + 1 < page.tree_size:
            answer.next_page_token = str(answer.records[-1].sequence + 1)
        return answer
