"""Reading the log: pages with the tree head that came with the last one, and what may be asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from hsmsigner.client.errors import InvalidRequest
from hsmsigner.pb import audit_pb2

# Gets a start sequence, used only without a page token, and a page token.
AsyncFetch = Callable[[int, str], Awaitable[audit_pb2.ListAuditRecordsResponse]]
Fetch = Callable[[int, str], audit_pb2.ListAuditRecordsResponse]

_OUTCOME = "AUDIT_OUTCOME_"
OUTCOMES = tuple(name.removeprefix(_OUTCOME) for name in audit_pb2.AuditOutcome.keys()[1:])


def audit_filter(
    *,
    key: str = "",
    principal: str = "",
    types: Sequence[str] = (),
    outcome: str = "",
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> audit_pb2.AuditFilter:
    """Which records are wanted; all that is given must hold. `outcome` as in DENIED, times with their zone.

    Raises:
        InvalidRequest: no such outcome, or a time without its zone.
    """
    if outcome and outcome not in OUTCOMES:
        raise InvalidRequest("INVALID_FIELD", f"outcome must be one of {', '.join(OUTCOMES)}")
    wanted = audit_pb2.AuditFilter(key=key, principal=principal, types=types)
    if outcome:
        wanted.outcome = audit_pb2.AuditOutcome.Value(_OUTCOME + outcome)
    if start_time is not None:
        wanted.start_time.CopyFrom(_timestamp(start_time))
    if end_time is not None:
        wanted.end_time.CopyFrom(_timestamp(end_time))
    return wanted


def _timestamp(time: datetime) -> Timestamp:
    if time.tzinfo is None:
        raise InvalidRequest("INVALID_FIELD", "times need their zone, as in datetime.now(UTC)")
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp


class AsyncAuditRecords:
    """Iterates once over `AuditRecord`; `tree_head` is that of the newest page read, None before the first."""

    def __init__(self, fetch: AsyncFetch, start_sequence: int) -> None:
        self._fetch = fetch
        self._start_sequence = start_sequence
        self.tree_head: audit_pb2.TreeHead | None = None

    async def __aiter__(self) -> AsyncIterator[audit_pb2.AuditRecord]:
        page_token = ""
        while True:
            page = await self._fetch(self._start_sequence, page_token)
            self.tree_head = page.tree_head
            for record in page.records:
                yield record
            page_token = page.next_page_token
            if not page_token:
                return


class AuditRecords:
    """The same for threads."""

    def __init__(self, fetch: Fetch, start_sequence: int) -> None:
        self._fetch = fetch
        self._start_sequence = start_sequence
        self.tree_head: audit_pb2.TreeHead | None = None

    def __iter__(self) -> Iterator[audit_pb2.AuditRecord]:
        page_token = ""
        while True:
            page = self._fetch(self._start_sequence, page_token)
            self.tree_head = page.tree_head
            yield from page.records
            page_token = page.next_page_token
            if not page_token:
                return
