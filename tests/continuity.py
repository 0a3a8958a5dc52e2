"""Versions with real keys, and the statements they make of each other: for tests of continuity and certificates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsigner.domain.algorithm import algorithm_named
from hsmsigner.domain.continuity import ContinuityStatement, plan_continuity
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.public_key import to_pem
from tests.fakes import new_key, sign_raw

START = Instant(1_800_000_000_000_000)
DAY = 86_400_000_000


@dataclass(frozen=True)
class Pair:
    """A version and its private half."""

    version: KeyVersion
    private_key: PrivateKeyTypes

    @property
    def pem(self) -> bytes:
        return to_pem(self.version.public_key).encode()

    def sign(self, data: bytes) -> bytes:
        return sign_raw(self.private_key, self.version.algorithm, data)


def make_pairs(count: int, algorithm: str = "ECDSA_P256_SHA256", key_id: str = "settlement-eu") -> list[Pair]:
    return [make_pair(number, algorithm, key_id) for number in range(1, count + 1)]


def make_pair(number: int = 1, algorithm: str = "ECDSA_P256_SHA256", key_id: str = "settlement-eu") -> Pair:
    private_key = new_key(algorithm_named(algorithm))
    public = private_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    version = KeyVersion(
        name=VersionName(KeyName(key_id), number),
        algorithm=algorithm_named(algorithm),
        state=KeyState.ACTIVE,
        cka_id=CkaId(bytes([number])),
        public_key=public,
        create_time=START,
        local=True,
        always_sensitive=True,
        never_extractable=True,
    )
    return Pair(version, private_key)


def statement_between(old: Pair, new: Pair, at: int | None = None, *, lead: int = 1000) -> ContinuityStatement:
    create_time = Instant(START + DAY * new.version.name.number if at is None else at)
    plan = plan_continuity(old.version, new.version, create_time, Instant(create_time + lead))
    return plan.finish(
        old.sign(plan.to_be_signed(old.version)),
        new.sign(plan.to_be_signed(new.version)),
    )


def chain_of(pairs: Sequence[Pair]) -> list[ContinuityStatement]:
    return [statement_between(old, new) for old, new in pairwise(pairs)]


def document_of(statements: Sequence[ContinuityStatement], key: str = "keys/settlement-eu") -> bytes:
    items = [{"signed_by_old": item.signed_by_old, "signed_by_new": item.signed_by_new} for item in statements]
    return json.dumps({"key": key, "statements": items}).encode()
