"""Reading the log from a record on, page by page, with the tree head that came with the last page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from hsmsigner.pb import audit_pb2

# Gets a start sequence, used only without a page token, and a page token.
AsyncFetch = Callable[[int, str], Awaitable[audit_pb2.ListAuditRecordsResponse]]
Fetch = Callable[[int, str], audit_pb2.ListAuditRecordsResponse]


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
