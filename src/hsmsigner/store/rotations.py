"""Rows of `rotations`, `continuity_statements` and `leases`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hsmsigner.domain.continuity import ContinuityStatement
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyName, VersionName
from hsmsigner.domain.rotation_policy import Rotation
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import RequestKey
from hsmsigner.store.schema import continuity_statements as statements
from hsmsigner.store.schema import leases, rotations

_COLUMNS = (
    rotations.c.sequence,
    rotations.c.number,
    rotations.c.principal,
    rotations.c.request_id,
    rotations.c.reason,
    rotations.c.start_time,
    rotations.c.activate_time,
    rotations.c.publish_lead_us,
    rotations.c.overlap_us,
    rotations.c.continuity_time,
    rotations.c.is_vouched,
    rotations.c.finish_time,
    rotations.c.failure,
)
_UNDER_WAY = select(rotations.c.key_id, *_COLUMNS).where(rotations.c.finish_time.is_(None))


class SqlRotationTable:
    """`RotationTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, name: KeyName, rotation: Rotation) -> None:
        self._connection.execute(insert(rotations).values(key_id=name.key_id, **asdict(rotation)))

    def save(self, rotation: Rotation) -> None:
        self._connection.execute(
            update(rotations)
            .where(rotations.c.sequence == rotation.sequence)
            .values(
                principal=rotation.principal,
                request_id=rotation.request_id,
                reason=rotation.reason,
                activate_time=rotation.activate_time,
                continuity_time=rotation.continuity_time,
                is_vouched=rotation.is_vouched,
                finish_time=rotation.finish_time,
                failure=rotation.failure,
            )
        )

    def find(self, name: KeyName, request: RequestKey) -> Rotation | None:
        query = (
            select(*_COLUMNS)
            .where(rotations.c.key_id == name.key_id, rotations.c.principal == request.principal)
            .where(rotations.c.request_id == request.request_id)
            .order_by(rotations.c.sequence.desc())
            .limit(1)
        )
        row = self._connection.execute(query).one_or_none()
        return None if row is None else Rotation(*row)


def load_under_way(connection: Connection, key_id: str | None = None) -> dict[str, Rotation]:
    """Unfinished rotations by key id; of one key, or of all."""
    query = _UNDER_WAY if key_id is None else _UNDER_WAY.where(rotations.c.key_id == key_id)
    return {key: Rotation(*rest) for key, *rest in _rows(connection.execute(query))}


def _rows(result: Iterable[Any]) -> Iterable[Any]:
    return result


class SqlContinuityTable:
    """`ContinuityTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def insert(self, statement: ContinuityStatement, sequence: int) -> None:
        self._connection.execute(
            delete(statements)
            .where(statements.c.key_id == statement.new_version.key.key_id)
            .where(statements.c.old_number == statement.old_version.number)
            .where(statements.c.new_number == statement.new_version.number)
        )
        self._connection.execute(
            insert(statements).values(
                sequence=sequence,
                key_id=statement.new_version.key.key_id,
                old_number=statement.old_version.number,
                new_number=statement.new_version.number,
                signed_by_old=statement.signed_by_old,
                signed_by_new=statement.signed_by_new,
            )
        )

    def list(self, name: KeyName, start: int, limit: int) -> list[ContinuityStatement]:
        query = (
            select(
                statements.c.old_number, statements.c.new_number, statements.c.signed_by_old, statements.c.signed_by_new
            )
            .where(statements.c.key_id == name.key_id)
            .order_by(statements.c.sequence)
            .offset(start)
            .limit(limit)
        )
        return [
            ContinuityStatement(VersionName(name, old), VersionName(name, new), by_old, by_new)
            for old, new, by_old, by_new in self._connection.execute(query)
        ]


class SqlLeaseTable:
    """`LeaseTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def take(self, name: str, holder: str, now: Instant, duration_us: int) -> bool:
        expire_time = now + duration_us
        query = select(leases.c.holder, leases.c.expire_time).where(leases.c.name == name)
        row = self._connection.execute(query).one_or_none()
        if row is not None:
            is_ours = row.holder == holder
            if is_ours and now + duration_us // 2 < row.expire_time <= expire_time:
                # Prolonged only when half of it is gone: an idle appliance need not write every second.
                return True
            if not is_ours and now < row.expire_time <= expire_time:
                return False
            as_seen = (leases.c.holder == row.holder, leases.c.expire_time == row.expire_time)
            values = {"holder": holder, "expire_time": expire_time}
            done = self._connection.execute(update(leases).where(leases.c.name == name, *as_seen).values(**values))
            return done.rowcount == 1
        try:
            self._connection.execute(insert(leases).values(name=name, holder=holder, expire_time=expire_time))
        except IntegrityError as error:
            raise SignerError(Reason.ETAG_MISMATCH, "another frontend took the lease at the same moment") from error
        return True
