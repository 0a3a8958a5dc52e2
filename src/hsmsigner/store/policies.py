"""Rows of `policy_revisions`; written once, never changed."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, insert, select

from hsmsigner.operations.ports import PolicyRevision
from hsmsigner.store.schema import policy_revisions as table

_NEWEST = (
    select(
        table.c.revision,
        table.c.document,
        table.c.sha256,
        table.c.publish_time,
        table.c.publisher,
        table.c.comment,
    )
    .order_by(table.c.revision.desc())
    .limit(1)
)


class SqlPolicyTable:
    """`PolicyTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def newest(self) -> PolicyRevision | None:
        row = self._connection.execute(_NEWEST).one_or_none()
        return None if row is None else PolicyRevision(*row)

    def insert(self, revision: PolicyRevision) -> None:
        self._connection.execute(insert(table).values(asdict(revision)))
