"""Keys and their versions: names, states, and what the token said of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, unique
from functools import lru_cache
from typing import NewType

from msgspec import Struct

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.rotation_policy import NO_ROTATION, Rotation, RotationPolicy
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


@unique
class KeyOrigin(Enum):
    """How a private key came to the token."""

    GENERATED = "GENERATED"
    ADOPTED = "ADOPTED"


class KeyName(Struct, frozen=True, gc=False):
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


# The log's own key: signs checkpoints and nothing else, whatever the policy says.
LOG_KEY = KeyName("audit-log")


class VersionName(Struct, frozen=True, gc=False):
    """`keys/{key}/versions/{n}`, n from 1."""

    key: KeyName
    number: int

    def __str__(self) -> str:
        return _version_text(self.key.key_id, self.number)


# Names are written out several times for every signature.
@lru_cache(maxsize=4096)
def _version_text(key_id: str, number: int) -> str:
    return f"keys/{key_id}/versions/{number}"


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
    """One key pair on the token. `public_key` is SubjectPublicKeyInfo in DER (RFC 5280 section 4.1).

    `activate_time`, `deactivate_time` and `destroy_time` say when it happened or, in the future, when it will.
    `scheduled_from` is the state before DESTROY_SCHEDULED; a DEACTIVATED version that has one was restored. Once
    `is_destroying`, the pair may be gone from the token, and there is no way back.
    `signature_count` is as of the last load: it changes with every signature, without a new `revision`.
    """

    name: VersionName
    algorithm: SigningAlgorithm
    state: KeyState
    cka_id: CkaId
    public_key: bytes
    create_time: Instant
    local: bool
    always_sensitive: bool
    never_extractable: bool
    origin: KeyOrigin = KeyOrigin.GENERATED
    allow_unprotected: bool = False
    activate_time: Instant | None = None
    deactivate_time: Instant | None = None
    destroy_time: Instant | None = None
    scheduled_from: KeyState | None = None
    is_destroying: bool = False
    # When the token was first found to lack the pair; None while it has it.
    missing_time: Instant | None = None
    certificate_chain: str = ""
    signature_count: int = 0
    revision: int = 1

    @property
    def is_protected(self) -> bool:
        """Whether the private key was made on the token and never could leave it (P1)."""
        return self.local and self.always_sensitive and self.never_extractable

    @property
    def is_compromised(self) -> bool:
        """Whether it was marked COMPROMISED, which stays true when it is destroyed."""
        is_gone = self.state in (KeyState.DESTROY_SCHEDULED, KeyState.DESTROYED)
        return KeyState.COMPROMISED in (self.state, self.scheduled_from if is_gone else None)

    @property
    def is_missing(self) -> bool:
        """Whether the token was found to lack the pair, which was not destroyed."""
        return self.missing_time is not None and self.state is not KeyState.DESTROYED and not self.is_destroying

    @property
    def is_in_key_sets(self) -> bool:
        """Whether verifiers are told of it unasked, or a key set would grow with every rotation for ever.

        A destroyed version is found by its name alone, unless it was compromised: that must not be lost sight of.
        """
        return self.state is not KeyState.DESTROYED or self.is_compromised

    @property
    def etag(self) -> str:
        """Changes with every change of the version (AIP-154)."""
        return f"v{self.revision}"


@dataclass(frozen=True, slots=True)
class Key:
    """A logical key: one algorithm, versions oldest first, and the number of the primary among them.

    `rotation` is the one under way; its version is not among `versions` before the token has made it.
    """

    name: KeyName
    algorithm: SigningAlgorithm
    create_time: Instant
    primary_number: int
    versions: tuple[KeyVersion, ...]
    rotation_policy: RotationPolicy = NO_ROTATION
    rotation: Rotation | None = None
    revision: int = 1

    @property
    def primary(self) -> KeyVersion:
        """The version used when none is named."""
        return self.versions[self.primary_number - 1]

    @property
    def etag(self) -> str:
        """Changes with every change of the key or of its versions (AIP-154)."""
        return f"k{self.revision}"

    def version(self, number: int) -> KeyVersion | None:
        """The version with this number, if there is one."""
        return self.versions[number - 1] if 1 <= number <= len(self.versions) else None
