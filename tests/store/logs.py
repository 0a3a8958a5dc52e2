"""Logs to read, as stores hold them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.record import Entry
from hsmsigner.operations.ports import LogFilter, LogReader, Store
from hsmsigner.transparency.merkle import leaf_hash
from tests.rfc9162 import NaiveTree

NOW = 1_800_000_000_000_000
TYPES = ("sign.authorized", "sign.completed", "sign.denied", "sign.failed", "sign.interrupted", "key.created",
         "key.rotation_started", "appliance.started")  # fmt: skip
KEYS = ("keys/a", "keys/a/versions/1", "keys/a/versions/12", "keys/ab", "keys/b/versions/1", "")
PRINCIPALS = ("spiffe://test/engine", 'spiffe://test/"quoted"/ü', "")


def signature_of(number: int) -> bytes:
    return hashlib.sha256(b"signature %d" % number).digest()


def made_up(number: int) -> Entry:
    """Entry `number` of a log in which kinds come and go, and request_ids come back."""
    kind, key, principal = TYPES[number % 8], KEYS[number // 8 % 6], PRINCIPALS[number // 700 % 3]
    fields: dict[str, object] = {"number": number, "request_id": f"request-{number // 3 % 400}"}
    fields |= {"key": key} if key else {}
    fields |= {"principal": principal} if principal else {}
    if kind == "key.created":
        fields["version"] = "keys/a/versions/12"
    if kind == "sign.completed":
        fields["signature_sha256"] = signature_of(number).hex()
    return Entry(kind, fields)


async def write(store: Store, first: int, count: int) -> None:
    """Entries `first` on, all of one microsecond."""
    async with store.transaction() as transaction:
        transaction.append([made_up(number) for number in range(first, first + count)], Instant(NOW + first))


async def read_all(reader: LogReader, wanted: LogFilter | None = None, limit: int = 1000) -> list[tuple[int, bytes]]:
    """Everything that fits, page by page."""
    records: list[tuple[int, bytes]] = []
    start = 0
    while True:
        page = await reader.read_log(start, limit, wanted or LogFilter())
        assert len(page.records) <= limit
        assert start < page.next_sequence or page.tree_size == start
        records += page.records
        start = page.next_sequence
        if start >= page.tree_size:
            return records


def rfc_tree(records: Sequence[tuple[int, bytes]]) -> NaiveTree:
    return NaiveTree([leaf_hash(record) for _, record in records])


def parsed(records: Sequence[tuple[int, bytes]]) -> list[dict[str, object]]:
    return [json.loads(record) for _, record in records]
