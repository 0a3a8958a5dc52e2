"""Reading the audit log."""

from __future__ import annotations

from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.operations.access import require_right
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.ports import LogPage, Store


class Audit:
    """The use cases behind AuditService."""

    def __init__(self, store: Store, governance: GovernanceCache) -> None:
        self._store = store
        self._governance = governance

    async def read(self, principal: Principal, start: int, limit: int) -> LogPage:
        """Up to `limit` records from sequence number `start` on, and the tree when they were read.

        Raises:
            SignerError: FORBIDDEN, AUDIT_UNAVAILABLE.
        """
        require_right(self._governance.newest, principal, Right.READ_AUDIT)
        return await self._store.read_log(start, limit)
