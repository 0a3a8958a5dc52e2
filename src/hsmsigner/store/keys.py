"""Rows of `keys` and `key_versions`. A version whose public key is still NULL is being made."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import PendingKey, RequestKey
from hsmsigner.store.key_rows import KEYS, VERSIONS, mutable_columns, to_key
from hsmsigner.store.prepared import Prepared
from hsmsigner.store.rotations import load_under_way
from hsmsigner.store.schema import key_versions as versions
from hsmsigner.store.schema import keys

_COUNT = Prepared(
    update(versions)
    .where(versions.c.key_id == bindparam("of_key"), versions.c.number == bindparam("of_number"))
    .values(signature_count=versions.c.signature_count + bindparam("more")),
    ("more", "of_key", "of_number"),
)


class SqlKeyTable:
    """`KeyTable` of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load_all(self) -> list[Key]:
        by_key: dict[str, list[Any]] = defaultdict(list)
        for row in self._connection.execute(VERSIONS):
            by_key[row.key_id].append(row)
        under_way = load_under_way(self._connection)
        return [to_key(row, by_key[row.key_id], under_way.get(row.key_id)) for row in self._connection.execute(KEYS)]

    def load(self, name: KeyName) -> Key | None:
        row = self._connection.execute(KEYS.where(keys.c.key_id == name.key_id)).one_or_none()
        if row is None:
            return None
        found = self._connection.execute(VERSIONS.where(versions.c.key_id == name.key_id)).all()
        return to_key(row, found, load_under_way(self._connection, name.key_id).get(name.key_id))

    def load_pending(self) -> list[PendingKey]:
        query = (
            select(
                keys.c.key_id,
                keys.c.algorithm,
                keys.c.principal,
                keys.c.request_id,
                versions.c.cka_id,
                versions.c.number,
            )
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
                row.number,
            )
            for row in self._connection.execute(query)
        ]

    def request_for(self, name: KeyName) -> RequestKey | None:
        query = select(keys.c.principal, keys.c.request_id).where(keys.c.key_id == name.key_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else RequestKey(row.principal, RequestId(row.request_id))

    def owner_of(self, cka_id: CkaId) -> VersionName | None:
        query = select(versions.c.key_id, versions.c.number).where(versions.c.cka_id == cka_id)
        row = self._connection.execute(query).one_or_none()
        return None if row is None else VersionName(KeyName(row.key_id), row.number)

    def insert_pending(self, pending: PendingKey, now: Instant) -> None:
        if pending.number == 1:
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
                number=pending.number,
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
        changed = self._connection.execute(
            update(versions)
            .where(*_is(version.name), versions.c.public_key.is_(None))
            .values(
                public_key=version.public_key,
                local=version.local,
                always_sensitive=version.always_sensitive,
                never_extractable=version.never_extractable,
                origin=version.origin.value,
                allow_unprotected=version.allow_unprotected,
                **mutable_columns(version),
            )
        )
        if changed.rowcount != 1:
            raise _changed(f"{version.name} was completed or given up meanwhile")
        if version.name.number == 1:
            self._connection.execute(
                update(keys).where(keys.c.key_id == version.name.key.key_id).values(primary_number=1)
            )
        else:
            self._raise_key_revision(version.name.key)

    def save_version(self, version: KeyVersion) -> KeyVersion:
        changed = self._connection.execute(
            update(versions)
            .where(*_is(version.name), versions.c.revision == version.revision)
            .values(revision=version.revision + 1, **mutable_columns(version))
        )
        if changed.rowcount != 1:
            raise _changed(f"{version.name} was changed meanwhile; look at it and decide again")
        self._raise_key_revision(version.name.key)
        return replace(version, revision=version.revision + 1)

    def save_key(self, key: Key) -> Key:
        changed = self._connection.execute(
            update(keys)
            .where(keys.c.key_id == key.name.key_id, keys.c.revision == key.revision)
            .values(
                primary_number=key.primary_number,
                rotation_policy=json.dumps(
                    {name: value for name, value in asdict(key.rotation_policy).items() if value}
                ),
                revision=key.revision + 1,
            )
        )
        if changed.rowcount != 1:
            raise _changed(f"{key.name} was changed meanwhile; look at it and decide again")
        return replace(key, revision=key.revision + 1)

    def delete_pending(self, version: VersionName) -> None:
        gone = self._connection.execute(delete(versions).where(*_is(version), versions.c.public_key.is_(None)))
        if gone.rowcount != 1:
            raise _changed(f"{version} was completed or given up meanwhile")
        if version.number == 1:
            of_key = keys.c.key_id == version.key.key_id
            self._connection.execute(delete(keys).where(of_key, keys.c.primary_number.is_(None)))

    def count_signatures(self, counts: Mapping[VersionName, int]) -> None:
        if counts:
            rows = [(more, name.key.key_id, name.number) for name, more in counts.items()]
            _COUNT.run(self._connection, rows)

    def signature_counts(self) -> dict[VersionName, int]:
        query = (
            select(versions.c.key_id, versions.c.number, versions.c.signature_count)
            .join(keys, keys.c.key_id == versions.c.key_id)
            .where(versions.c.number == keys.c.primary_number, keys.c.rotation_policy.contains("max_signatures"))
        )
        return {
            VersionName(KeyName(key_id), number): count for key_id, number, count in self._connection.execute(query)
        }

    def _raise_key_revision(self, name: KeyName) -> None:
        self._connection.execute(update(keys).where(keys.c.key_id == name.key_id).values(revision=keys.c.revision + 1))


def read_signature_counts(connection: Connection, name: KeyName) -> dict[int, int]:
    """Signatures authorized so far, by version number of one key."""
    query = select(versions.c.number, versions.c.signature_count).where(versions.c.key_id == name.key_id)
    return {number: count for number, count in connection.execute(query)}  # noqa: C416 - rows are not pairs to mypy


def _is(name: VersionName) -> tuple[Any, ...]:
    return versions.c.key_id == name.key.key_id, versions.c.number == name.number


def _changed(message: str) -> SignerError:
    return SignerError(Reason.ETAG_MISMATCH, message)
