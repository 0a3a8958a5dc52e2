"""Continuity statements: two versions of one key vouch for each other, as proto/hsmsigner/v1/resources.proto says.

Both sign the same JSON payload as JWS. The protected header begins with `typ`, so that the signed bytes begin as no
message of a caller may begin (formats.plan_signature): holding the right to sign is not enough to forge one.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.formats import CONTINUITY_TYPE, SignaturePlan, plan_jws
from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import KeyVersion, VersionName

# ECDSA_SECP256K1_KECCAK256 has no name in JOSE; this one is ours.
_KECCAK_JWS = "ES256K-KECCAK"


@dataclass(frozen=True, slots=True)
class ContinuityStatement:
    """A finished statement: the same payload, signed by the old and by the new version (JWS compact serialization)."""

    old_version: VersionName
    new_version: VersionName
    signed_by_old: str
    signed_by_new: str


@dataclass(frozen=True, slots=True)
class ContinuityPlan:
    """What both versions have to sign."""

    old_version: VersionName
    new_version: VersionName
    _by_old: SignaturePlan
    _by_new: SignaturePlan

    def to_be_signed(self, version: KeyVersion) -> bytes:
        """What the token gets for this side: digest, or message for EdDSA.

        Raises:
            ValueError: the version is neither the old nor the new one.
        """
        if version.name == self.old_version:
            return self._by_old.to_be_signed
        if version.name == self.new_version:
            return self._by_new.to_be_signed
        raise ValueError(f"{version.name} has no part in this statement")

    def finish(self, old_raw: bytes, new_raw: bytes) -> ContinuityStatement:
        """Write the statement from the token's raw signatures."""
        return ContinuityStatement(
            self.old_version,
            self.new_version,
            self._by_old.encode(old_raw).decode("ascii"),
            self._by_new.encode(new_raw).decode("ascii"),
        )


def plan_continuity(old: KeyVersion, new: KeyVersion, create_time: Instant, activate_time: Instant) -> ContinuityPlan:
    """Work out what `old` and `new` have to sign.

    The same arguments give the same bytes, so that a crash between the two signatures is finished, not begun anew.
    An activation that was due earlier takes place when the statement is made.
    """
    payload = json.dumps(
        {
            "type": CONTINUITY_TYPE,
            "key": str(old.name.key),
            "old": _described(old),
            "new": _described(new),
            "create_time": format_instant(create_time),
            "activate_time": format_instant(max(create_time, activate_time)),
        },
        separators=(",", ":"),
    ).encode()
    return ContinuityPlan(old.name, new.name, _side(old, payload), _side(new, payload))


def _side(version: KeyVersion, payload: bytes) -> SignaturePlan:
    header = {"typ": CONTINUITY_TYPE, "alg": _jws_name(version.algorithm), "kid": str(version.name)}
    return plan_jws(version.algorithm, header, payload)


def _jws_name(algorithm: SigningAlgorithm) -> str:
    return algorithm.jws or _KECCAK_JWS


def _described(version: KeyVersion) -> dict[str, str]:
    return {
        "name": str(version.name),
        "algorithm": version.algorithm.name,
        "public_key": urlsafe_b64encode(version.public_key).rstrip(b"=").decode(),
    }
