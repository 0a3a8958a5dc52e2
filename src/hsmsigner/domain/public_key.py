"""A public key as verifiers want it: PEM and JWK."""

from __future__ import annotations

import json
from base64 import encodebytes, urlsafe_b64encode
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsigner.domain.certificate import to_x5c
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND
from hsmsigner.domain.key import KeyVersion


def to_pem(public_key: bytes) -> str:
    """SubjectPublicKeyInfo in PEM (RFC 7468 section 13) from DER."""
    body = encodebytes(public_key).decode().replace("\n", "")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def to_jwk(version: KeyVersion) -> dict[str, Any] | None:
    """JSON Web Key (RFC 7517, 7518, 8037, 8812) with `kid`, `alg` and `use`; None where JOSE has no name for it.

    `x5c` is the attached certificate chain. `state` and `origin` are ours, and so are `nbf` and `exp`: from when and
    until when a signature is to be expected, in seconds since 1970 (as OpenID Federation writes them in its JWKs).
    """
    if version.algorithm.jws is None:
        return None
    head = {"kid": str(version.name), "use": "sig", "alg": version.algorithm.jws} | _life(version)
    key = load_der_public_key(version.public_key)
    if isinstance(key, rsa.RSAPublicKey):
        numbers = key.public_numbers()
        return {"kty": "RSA", "n": _integer(numbers.n), "e": _integer(numbers.e)} | head
    if isinstance(key, ec.EllipticCurvePublicKey):
        point, size = key.public_numbers(), version.algorithm.size
        curve = {32: "P-256", 48: "P-384", 66: "P-521"}[size] if key.curve.name != "secp256k1" else "secp256k1"
        return {"kty": "EC", "crv": curve, "x": _integer(point.x, size), "y": _integer(point.y, size)} | head
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        return {"kty": "OKP", "crv": version.algorithm.name.capitalize(), "x": _base64url(raw)} | head
    return None


def to_jwks(versions: list[KeyVersion]) -> str:
    """JWK Set (RFC 7517 section 5) of those that JOSE has a name for.

    Compromised versions are left out: a verifier that does not know our `state` would go on trusting them.
    """
    good = (version for version in versions if not version.is_compromised)
    found = [jwk for version in good if (jwk := to_jwk(version)) is not None]
    return json.dumps({"keys": found}, separators=(",", ":"))


def _life(version: KeyVersion) -> dict[str, Any]:
    life: dict[str, Any] = {"state": version.state.value, "origin": version.origin.value}
    if version.activate_time is not None:
        life["nbf"] = version.activate_time // MICROSECONDS_PER_SECOND
    if version.deactivate_time is not None:
        # Rounded up: a signature of the last second is still to be expected.
        life["exp"] = -(-version.deactivate_time // MICROSECONDS_PER_SECOND)
    if version.certificate_chain:
        life["x5c"] = to_x5c(version.certificate_chain)
    return life


def _integer(value: int, size: int | None = None) -> str:
    return _base64url(value.to_bytes(size or (value.bit_length() + 7) // 8))


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
