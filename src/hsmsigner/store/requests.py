"""Rows of `sign_requests`: idempotency and recovery."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.signing import RequestId
from hsmsigner.operations.ports import RequestKey, RequestState, StoredRequest
from hsmsigner.store.prepared import Prepared, PreparedLookup
from hsmsigner.store.schema import sign_requests as table

_COLUMNS = (
    table.c.request_key,
    table.c.sequence,
    table.c.fingerprint,
    table.c.state,
    table.c.version,
    table.c.policy_revision,
    table.c.authorize_time,
    table.c.expire_time,
    table.c.completed_sequence,
    table.c.signature,
)
_RESULT = ("state", "completed_sequence", "signature")
_FIXED = ("request_key", "sequence", "fingerprint", "version", "policy_revision", "authorize_time", "expire_time")
_FIND = PreparedLookup(select(*_COLUMNS), table.c.request_key)
_FIND_AUTHORIZED = (
    select(*_COLUMNS).where(table.c.state == "AUTHORIZED").order_by(table.c.sequence).limit(bindparam("most"))
)
_INSERT = Prepared(insert(table), (*_FIXED, *_RESULT))
_UPDATE = Prepared(
    update(table)
    .where(table.c.sequence == bindparam("row"))
    .values({name: bindparam(f"new_{name}") for name in _RESULT}),
    (*(f"new_{name}" for name in _RESULT), "row"),
)
_OLDEST = select(table.c.sequence, table.c.state, table.c.expire_time).order_by(table.c.sequence)


class SqlRequestTable:
    """`RequestTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, keys: Iterable[RequestKey]) -> dict[RequestKey, StoredRequest]:
        texts = [_text(key) for key in keys]
        if not texts:
            return {}
        return {row.key: row for row in map(_stored, _FIND.fetch(self._connection, texts))}

    def find_authorized(self, limit: int) -> list[StoredRequest]:
        return [_stored(row) for row in self._connection.execute(_FIND_AUTHORIZED, {"most": limit})]

    def insert(self, requests: Sequence[StoredRequest]) -> None:
        if requests:
            _INSERT.run(
                self._connection,
                [(*_fixed(row), *_result(row)) for row in requests],
            )

    def update(self, requests: Sequence[StoredRequest]) -> None:
        if requests:
            _UPDATE.run(self._connection, [(*_result(row), row.sequence) for row in requests])

    def delete(self, sequences: Sequence[int]) -> None:
        if sequences:
            self._connection.execute(delete(table).where(table.c.sequence.in_(sequences)))

    def delete_expired(self, now: Instant, limit: int) -> int:
        # Rows lie in order of time, so the first one still wanted ends the search.
        expired = []
        for row in self._connection.execute(_OLDEST.limit(limit)):
            if row.expire_time > now:
                break
            if row.state != RequestState.AUTHORIZED.value:
                expired.append(row.sequence)
        self.delete(expired)
        return len(expired)


def _text(key: RequestKey) -> str:
    return f"{key.request_id}|{key.principal}"


def _stored(row: Iterable[Any]) -> StoredRequest:
    # By position, in the order of _COLUMNS: this runs for every row of every retry.
    text, sequence, fingerprint, state, *rest = row
    request_id, _, principal = text.partition("|")
    return StoredRequest(
        RequestKey(principal, RequestId(request_id)), sequence, fingerprint, RequestState(state), *rest
    )


def _fixed(row: StoredRequest) -> tuple[object, ...]:
    """Values of the columns `_FIXED`, in its order."""
    return (
        _text(row.key),
        row.sequence,
        row.fingerprint,
        row.version,
        row.policy_revision,
        row.authorize_time,
        row.expire_time,
    )


def _result(row: StoredRequest) -> tuple[object, ...]:
    """Values of the columns `_RESULT`, in its order."""
    return row.state.value, row.completed_sequence, row.signature
