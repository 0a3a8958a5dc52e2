"""Following the log: records as soon as they are durable, at each reader's own pace."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator

from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import require_right
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.growth import LogGrowth
from hsmsigner.operations.ports import BEYOND_THE_LOG, LogFilter, LogPage, Store

# What one watcher has in memory: whoever reads slowly has the store keep the rest.
RECORDS_AT_ONCE = 256
WATCHERS_OF_A_PRINCIPAL = 8
# Records that other processes write are found so soon.
LOOK_EVERY_S = 1.0
# Under load a watcher reads this often and gets more each time, instead of reading after every commit.
_READ_EVERY_S = 0.05
_SAY_WHERE_EVERY_S = 1.0


class LogWatch:
    """The use case behind WatchAuditRecords. Nothing is queued for anybody."""

    def __init__(self, store: Store, governance: GovernanceCache, growth: LogGrowth) -> None:
        self._store = store
        self._governance = governance
        self._growth = growth
        self._watchers = Counter[str]()

    async def watch(self, principal: Principal, start: int | None, wanted: LogFilter) -> AsyncGenerator[LogPage, None]:
        """Pages of records that fit, from `start` (or, with None, the next new record) on, without end.

        A page without records says how far the reading is.

        Raises:
            SignerError: FORBIDDEN (also when the right is taken away later), TOO_MANY_WATCHERS, NOT_IN_LOG,
                RECORDS_SEALED, AUDIT_UNAVAILABLE.
        """
        self._require(principal)
        if self._watchers[principal.text] >= WATCHERS_OF_A_PRINCIPAL:
            message = f"you watch the log {WATCHERS_OF_A_PRINCIPAL} times already; end one of those streams"
            raise SignerError(Reason.TOO_MANY_WATCHERS, message)
        self._watchers[principal.text] += 1
        try:
            async for page in self._pages(principal, start, wanted):
                yield page
        finally:
            self._watchers[principal.text] -= 1
            self._watchers += Counter()  # those at nothing go

    async def _pages(self, principal: Principal, start: int | None, wanted: LogFilter) -> AsyncGenerator[LogPage, None]:
        position, loop = await self._first_position(start), asyncio.get_running_loop()
        said_s = 0.0
        while True:
            began_s = loop.time()
            # Days may have passed since the last record: the policy in force now decides.
            self._require(principal)
            page = await self._store.read_log(position, RECORDS_AT_ONCE, wanted)
            is_news = page.next_sequence > position or not said_s
            position = max(position, page.next_sequence)
            if page.records or (is_news and loop.time() >= said_s + _SAY_WHERE_EVERY_S):
                said_s = loop.time()
                yield page
            if position >= page.tree_size:
                await self._growth.wait_beyond(position, LOOK_EVERY_S)
                await asyncio.sleep(max(0.0, began_s + _READ_EVERY_S - loop.time()))

    async def _first_position(self, start: int | None) -> int:
        size = (await self._store.read_log(BEYOND_THE_LOG, 1)).tree_size
        if start is not None and start > size:
            # Who has seen more than there is should hear of it, and not wait in silence until it is there again.
            message = f"the log has {size} records; if you have seen record {start - 1}, it was rolled back"
            raise SignerError(Reason.NOT_IN_LOG, message, field="start_sequence", metadata={"size": str(size)})
        return size if start is None else start

    def _require(self, principal: Principal) -> None:
        require_right(self._governance.newest, principal, Right.READ_AUDIT)
