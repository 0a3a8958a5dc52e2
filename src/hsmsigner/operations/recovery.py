"""Start-up: make the store tell the truth about what an earlier run left unfinished."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from hsmsigner.domain import record
from hsmsigner.domain.instant import Instant, format_instant, not_before
from hsmsigner.domain.record import Entry
from hsmsigner.operations.ports import RequestState, Store, Transaction

_AT_ONCE = 1000


async def interrupt_dangling(store: Store, clock: Callable[[], Instant]) -> int:
    """Turn every authorization without an outcome into `sign.interrupted`; returns how many there were.

    Nobody knows whether their signatures were made; none was released (P3), and their debits stay. Runs only while
    nothing is in flight. A crash here loses nothing: what is left is found again at the next start.

    Raises:
        SignerError: AUDIT_UNAVAILABLE.
    """
    total = 0
    while True:
        async with store.transaction() as transaction:
            found = _interrupt_some(transaction, not_before(clock(), transaction.last_time))
        total += found
        if found < _AT_ONCE:
            return total


def _interrupt_some(transaction: Transaction, now: Instant) -> int:
    dangling = transaction.requests.find_authorized(_AT_ONCE)
    transaction.append(
        [
            record.outcome(
                "interrupted", row.key.principal, row.key.request_id, row.version, row.sequence, cause="restart"
            )
            for row in dangling
        ],
        now,
    )
    transaction.requests.update([replace(row, state=RequestState.INTERRUPTED) for row in dangling])
    return len(dangling)


async def record_resumption(store: Store, clock: Callable[[], Instant], since: Instant) -> None:
    """`appliance.resumed`: the log can be written again, and this record is the proof; `since` then it could not.

    Raises:
        SignerError: AUDIT_UNAVAILABLE; it cannot.
    """
    fields = {"since": format_instant(since)}
    async with store.transaction() as transaction:
        transaction.append([Entry("appliance.resumed", fields)], not_before(clock(), transaction.last_time))


async def record_start(store: Store, clock: Callable[[], Instant], version: str, interrupted: int) -> None:
    """`appliance.started`: a gap in service shows in the log.

    Raises:
        SignerError: AUDIT_UNAVAILABLE.
    """
    async with store.transaction() as transaction:
        fields = {"version": version, "interrupted_found": interrupted}
        transaction.append([Entry("appliance.started", fields)], not_before(clock(), transaction.last_time))
