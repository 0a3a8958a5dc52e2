"""Keys and their versions: names, states, and what the token said of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique
from typing import NewType

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.errors import invalid_field

CkaId = NewType("CkaId", bytes)

_KEY_ID = re.compile(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_NAME = re.compile(r"keys/(?P<key>[^/]{1,63})(?:/versions/(?P<version>[1-9][0-9]{0,8}))?", re.ASCII)


@unique
class KeyState(Enum):
    """Life of a key version (NIST SP 800-57 Part 1 section 7). Only ACTIVE signs."""

    PRE_ACTIVATION = "PRE_ACTIVATION"
    ACTIVE = "ACTIVE"
    SUSPENDED = "SUSPENDED"
    DEACTIVATED = "DEACTIVATED"
    COMPROMISED = "COMPROMISED"
    DESTROY_SCHEDULED = "DESTROY_SCHEDULED"
    DESTROYED = "DESTROYED"


@dataclass(frozen=True, slots=True)
class KeyName:
    """`keys/{key}`; always valid once it exists."""

    key_id: str

    @classmethod
    def from_id(cls, key_id: str, field: str = "key_id") -> KeyName:
        """Check a bare key id.

        Raises:
            SignerError: INVALID_FIELD.
        """
        if not _KEY_ID.fullmatch(key_id):
            raise invalid_field(
                field,
                "must be 1-63 characters of a-z, 0-9 and hyphen, begin with a letter and not end with a hyphen",
            )
        return cls(key_id)

    @classmethod
    def parse(cls, text: str, field: str = "name") -> KeyName:
        """Read `keys/{key}`.

        Raises:
            SignerError: INVALID_FIELD, also for a version's name.
        """
        name = parse_name(text, field)
        if isinstance(name, VersionName):
            raise invalid_field(field, "must name a key, as in keys/settlement-eu, not a version")
        return name

    def __str__(self) -> str:
        return f"keys/{self.key_id}"


@dataclass(frozen=True, slots=True)
class VersionName:
    """`keys/{key}/versions/{n}`, n from 1."""

    key: KeyName
    number: int

    def __str__(self) -> str:
        return f"{self.key}/versions/{self.number}"


def parse_name(text: str, field: str = "name") -> KeyName | VersionName:
    """Read the name of a key or of a version.

    Raises:
        SignerError: INVALID_FIELD.
    """
    match = _NAME.fullmatch(text)
    if match is None or not _KEY_ID.fullmatch(match["key"]):
        raise invalid_field(field, "must be keys/{key} or keys/{key}/versions/{n}, as in keys/settlement-eu")
    key = KeyName(match["key"])
    return key if match["version"] is None else VersionName(key, int(match["version"]))


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One key pair on the token. `public_key` is SubjectPublicKeyInfo in DER (RFC 5280 section 4.1)."""

    name: VersionName
    algorithm: SigningAlgorithm
    state: KeyState
    cka_id: CkaId
    public_key: bytes
    create_time: Instant
    local: bool
    always_sensitive: bool
    never_extractable: bool


@dataclass(frozen=True, slots=True)
class Key:
    """A logical key: one algorithm, versions oldest first, and the number of the primary among them."""

    name: KeyName
    algorithm: SigningAlgorithm
    create_time: Instant
    primary_number: int
    versions: tuple[KeyVersion, ...]

    @property
    def primary(self) -> KeyVersion:
        """The version used when none is named."""
        return self.versions[self.primary_number - 1]

    def version(self, number: int) -> KeyVersion | None:
        """The version with this number, if there is one."""
        return self.versions[number - 1] if 1 <= number <= len(self.versions) else None
