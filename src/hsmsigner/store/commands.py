"""Rows of `key_commands`: which command a request_id stands for."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.ports import RequestKey
from hsmsigner.store.schema import key_commands as table


class SqlCommandTable:
    """`CommandTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, request: RequestKey) -> bytes | None:
        query = select(table.c.fingerprint).where(
            table.c.principal == request.principal, table.c.request_id == request.request_id
        )
        return self._connection.execute(query).scalar_one_or_none()

    def insert(self, request: RequestKey, fingerprint: bytes, now: Instant) -> None:
        self._connection.execute(
            insert(table).values(
                principal=request.principal,
                request_id=request.request_id,
                fingerprint=fingerprint,
                create_time=now,
            )
        )
