"""A public key as verifiers want it: PEM and JWK."""

from __future__ import annotations

import json
from base64 import encodebytes, urlsafe_b64encode

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsigner.domain.key import KeyVersion


def to_pem(public_key: bytes) -> str:
    """SubjectPublicKeyInfo in PEM (RFC 7468 section 13) from DER."""
    body = encodebytes(public_key).decode().replace("\n", "")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""])


def to_jwk(version: KeyVersion) -> dict[str, str] | None:
    """JSON Web Key (RFC 7517, 7518, 8037, 8812) with `kid`, `alg` and `use`; None where JOSE has no name for it."""
    if version.algorithm.jws is None:
        return None
    head = {"kid": str(version.name), "use": "sig", "alg": version.algorithm.jws}
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
    """JWK Set (RFC 7517 section 5) of those that JOSE has a name for."""
    found = [jwk for version in versions if (jwk := to_jwk(version)) is not None]
    return json.dumps({"keys": found}, separators=(",", ":"))


def _integer(value: int, size: int | None = None) -> str:
    return _base64url(value.to_bytes(size or (value.bit_length() + 7) // 8))


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
