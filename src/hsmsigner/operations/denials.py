"""When refusals that were only counted get their record (domain/denial.py)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hsmsigner.domain import record
from hsmsigner.domain.denial import PERIOD_S, DenialLedger
from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.ports import Store, Transaction
from hsmsigner.operations.turn import Turn


class DenialPeriods:
    """One frontend's periods of counting. `wake` makes the committer turn when one is over, even if nobody asks."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.ledger = DenialLedger()
        self.is_over = False
        self._wake = wake
        self._timer: asyncio.TimerHandle | None = None

    def report_within(self, transaction: Transaction, turn: Turn) -> bool:
        """Write the records that are due; what this returns goes to `committed`."""
        if self.is_over:
            turn.report(transaction.denials.take())
        return self.is_over

    def committed(self, turn: Turn, *, is_reported: bool) -> None:
        """The turn is durable. Not before: what was rolled back has to be reported again."""
        if is_reported:
            self.is_over = False
            self.ledger.clear()
        if turn.denials and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._end)

    def _end(self) -> None:
        self.is_over, self._timer = True, None
        self._wake()


async def report_denials(store: Store, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
    """At start: the totals that an earlier run left become records.

    Raises:
        SignerError: AUDIT_UNAVAILABLE.
    """
    async with store.transaction() as transaction:
        revision = governance.within(transaction).policy.revision
        totals = transaction.denials.take()
        entries = [record.denials(total, revision) for total in totals]
        transaction.append(entries, not_before(clock(), transaction.last_time))
