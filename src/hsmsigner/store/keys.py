"""Rows of `keys` and `key_versions`. A version whose public key is still NULL is being made."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import PendingKey, RequestKey
from hsmsigner.store.schema import key_versions as versions
from hsmsigner.store.schema import keys

_KEY = (keys.c.key_id, keys.c.algorithm, keys.c.create_time, keys.c.primary_number)
_VERSION = (
    versions.c.key_id,
    versions.c.number,
    versions.c.state,
    versions.c.cka_id,
    versions.c.public_key,
    versions.c.create_time,
    versions.c.local,
    versions.c.always_sensitive,
    versions.c.never_extractable,
)


class SqlKeyTable:
    """`KeyTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load_all(self) -> list[Key]:
        by_key: dict[str, list[Any]] = defaultdict(list)
        complete = select(*_VERSION).where(versions.c.public_key.is_not(None))
        for row in self._connection.execute(complete.order_by(versions.c.key_id, versions.c.number)):
            by_key[row.key_id].append(row)
        made = select(*_KEY).where(keys.c.primary_number.is_not(None)).order_by(keys.c.key_id)
        return [_key(row, by_key[row.key_id]) for row in self._connection.execute(made)]

    def load_pending(self) -> list[PendingKey]:
        query = (
            select(keys.c.key_id, keys.c.algorithm, keys.c.principal, keys.c.request_id, versions.c.cka_id)
            .join(versions, versions.c.key_id == keys.c.key_id)
            .where(versions.c.public_key.is_(None))
            .order_by(keys.c.key_id)
        )
        return [
            PendingKey(
                KeyName(row.key_id),
                ALGORITHMS[row.algorithm],
                CkaId(row.cka_id),
                RequestKey(row.principal, RequestId(row.request_id)),
            )
            for row in self._connection.execute(query)
        ]

    def request_for(self, name: KeyName) -> RequestKey | None:
        query = select(keys.c.principal, keys.c.request_id).where(keys.c.key_id == name.key_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else RequestKey(row.principal, RequestId(row.request_id))

    def insert_pending(self, pending: PendingKey, now: Instant) -> None:
        self._connection.execute(
            insert(keys).values(
                key_id=pending.name.key_id,
                algorithm=pending.algorithm.name,
                create_time=now,
                primary_number=None,
                principal=pending.request.principal,
                request_id=pending.request.request_id,
            )
        )
        self._connection.execute(
            insert(versions).values(
                key_id=pending.name.key_id,
                number=1,
                cka_id=pending.cka_id,
                state=KeyState.PRE_ACTIVATION.value,
                create_time=now,
                public_key=None,
                local=False,
                always_sensitive=False,
                never_extractable=False,
            )
        )

    def complete(self, version: KeyVersion) -> None:
        key_id = version.name.key.key_id
        changed = self._connection.execute(
            update(versions)
            .where(versions.c.key_id == key_id, versions.c.number == version.name.number)
            .where(versions.c.public_key.is_(None))
            .values(
                state=version.state.value,
                public_key=version.public_key,
                local=version.local,
                always_sensitive=version.always_sensitive,
                never_extractable=version.never_extractable,
            )
        )
        if changed.rowcount != 1:
            raise _settled_meanwhile(version.name.key)
        self._connection.execute(update(keys).where(keys.c.key_id == key_id).values(primary_number=version.name.number))

    def delete_pending(self, name: KeyName) -> None:
        gone = self._connection.execute(
            delete(versions).where(versions.c.key_id == name.key_id, versions.c.public_key.is_(None))
        )
        if gone.rowcount != 1:
            raise _settled_meanwhile(name)
        self._connection.execute(delete(keys).where(keys.c.key_id == name.key_id, keys.c.primary_number.is_(None)))


def _settled_meanwhile(name: KeyName) -> SignerError:
    return SignerError(Reason.KEY_EXISTS, f"{name} was completed or given up meanwhile")


def _key(row: Any, version_rows: list[Any]) -> Key:
    name, algorithm = KeyName(row.key_id), ALGORITHMS[row.algorithm]
    return Key(
        name,
        algorithm,
        Instant(row.create_time),
        row.primary_number,
        tuple(
            KeyVersion(
                VersionName(name, version.number),
                algorithm,
                KeyState(version.state),
                CkaId(version.cka_id),
                version.public_key,
                Instant(version.create_time),
                version.local,
                version.always_sensitive,
                version.never_extractable,
            )
            for version in version_rows
        ),
    )
