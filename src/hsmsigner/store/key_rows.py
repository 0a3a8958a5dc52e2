"""Keys and versions as they are read from their rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from hsmsigner.domain.algorithm import ALGORITHMS, SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyOrigin, KeyState, KeyVersion, VersionName
from hsmsigner.domain.rotation_policy import Rotation, RotationPolicy
from hsmsigner.store.schema import key_versions as versions
from hsmsigner.store.schema import keys

KEYS = (
    select(
        keys.c.key_id,
        keys.c.algorithm,
        keys.c.create_time,
        keys.c.primary_number,
        keys.c.rotation_policy,
        keys.c.revision,
    )
    .where(keys.c.primary_number.is_not(None))
    .order_by(keys.c.key_id)
)
VERSIONS = (
    select(
        versions.c.key_id,
        versions.c.number,
        versions.c.state,
        versions.c.cka_id,
        versions.c.public_key,
        versions.c.create_time,
        versions.c.local,
        versions.c.always_sensitive,
        versions.c.never_extractable,
        versions.c.origin,
        versions.c.allow_unprotected,
        versions.c.activate_time,
        versions.c.deactivate_time,
        versions.c.destroy_time,
        versions.c.scheduled_from,
        versions.c.is_destroying,
        versions.c.missing_time,
        versions.c.certificate_chain,
        versions.c.signature_count,
        versions.c.revision,
    )
    .where(versions.c.public_key.is_not(None))
    .order_by(versions.c.key_id, versions.c.number)
)


def mutable_columns(version: KeyVersion) -> dict[str, object]:
    """What of a version may change, but for its count and revision."""
    return {
        "state": version.state.value,
        "activate_time": version.activate_time,
        "deactivate_time": version.deactivate_time,
        "destroy_time": version.destroy_time,
        "scheduled_from": None if version.scheduled_from is None else version.scheduled_from.value,
        "is_destroying": version.is_destroying,
        "missing_time": version.missing_time,
        "certificate_chain": version.certificate_chain,
    }


def to_key(row: Any, version_rows: Iterable[Any], rotation: Rotation | None) -> Key:
    """A key from its row of KEYS, its rows of VERSIONS, and its rotation under way."""
    name, algorithm = KeyName(row.key_id), ALGORITHMS[row.algorithm]
    return Key(
        name,
        algorithm,
        Instant(row.create_time),
        row.primary_number,
        tuple(_version(version, name, algorithm) for version in version_rows),
        RotationPolicy(**json.loads(row.rotation_policy)),
        rotation,
        row.revision,
    )


def _version(row: Any, name: KeyName, algorithm: SigningAlgorithm) -> KeyVersion:
    # By position, in the order of VERSIONS and of KeyVersion: this runs for every version at every change of epoch.
    _, number, state, cka_id, public_key, create_time, local, sensitive, unextractable, origin, *rest = row
    allow_unprotected, activate_time, deactivate_time, destroy_time, scheduled_from, *others = rest
    return KeyVersion(
        VersionName(name, number),
        algorithm,
        KeyState(state),
        CkaId(cka_id),
        public_key,
        Instant(create_time),
        local,
        sensitive,
        unextractable,
        KeyOrigin(origin),
        allow_unprotected,
        activate_time,
        deactivate_time,
        destroy_time,
        None if scheduled_from is None else KeyState(scheduled_from),
        *others,
    )
