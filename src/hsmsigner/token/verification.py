"""Check a raw signature under a public key with `cryptography`, before it leaves the worker (P3)."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsigner.domain.algorithm import HashName, KeyKind, Padding, SigningAlgorithm
from hsmsigner.token.faults import KeyRefusedError

# signature (raw), data (digest, or message for EdDSA) -> the signature as it may leave; raises InvalidSignature.
Verifier = Callable[[bytes, bytes], bytes]

SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

_HASHES: dict[HashName, hashes.HashAlgorithm] = {
    HashName.SHA256: hashes.SHA256(),
    HashName.SHA384: hashes.SHA384(),
    HashName.SHA512: hashes.SHA512(),
    # `Prehashed` only checks the length, and Keccak-256 has that of SHA-256.
    HashName.KECCAK256: hashes.SHA256(),
}
_HIGH_BIT = 0x80


def verifier(public_key: bytes, algorithm: SigningAlgorithm) -> Verifier:
    """Load a SubjectPublicKeyInfo (DER) for verifying; loading costs as much as verifying, so keep the result.

    Raises:
        KeyRefusedError: not a public key, or not one of this algorithm.
    """
    try:
        key = load_der_public_key(public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyRefusedError("the expected public key cannot be read") from error
    if isinstance(key, rsa.RSAPublicKey) and (algorithm.kind, algorithm.size) == (KeyKind.RSA, key.key_size):
        return _rsa_verifier(key, algorithm)
    if isinstance(key, ec.EllipticCurvePublicKey) and algorithm.curve == key.curve.name:
        return _ecdsa_verifier(key, algorithm)
    if isinstance(key, ed25519.Ed25519PublicKey) and algorithm.curve == "ed25519":
        return _eddsa_verifier(key, algorithm)
    if isinstance(key, ed448.Ed448PublicKey) and algorithm.curve == "ed448":
        return _eddsa_verifier(key, algorithm)
    raise KeyRefusedError(f"the expected public key is not one of {algorithm.name}")


def _check_size(signature: bytes, algorithm: SigningAlgorithm) -> None:
    if len(signature) != algorithm.signature_size:
        raise InvalidSignature


def _hash(algorithm: SigningAlgorithm) -> hashes.HashAlgorithm:
    if algorithm.hash_name is None:
        raise KeyRefusedError(f"{algorithm.name} takes no digest")
    return _HASHES[algorithm.hash_name]


def _rsa_verifier(key: rsa.RSAPublicKey, algorithm: SigningAlgorithm) -> Verifier:
    hash_algorithm = _hash(algorithm)
    prehashed = Prehashed(hash_algorithm)
    scheme: padding.AsymmetricPadding = padding.PKCS1v15()
    if algorithm.padding is Padding.PSS:
        scheme = padding.PSS(padding.MGF1(hash_algorithm), salt_length=hash_algorithm.digest_size)

    def verify(signature: bytes, data: bytes) -> bytes:
        _check_size(signature, algorithm)
        key.verify(signature, data, scheme, prehashed)
        return signature

    return verify


def _ecdsa_verifier(key: ec.EllipticCurvePublicKey, algorithm: SigningAlgorithm) -> Verifier:
    scheme = ec.ECDSA(Prehashed(_hash(algorithm)))
    is_secp256k1 = algorithm.curve == "secp256k1"

    def verify(signature: bytes, data: bytes) -> bytes:
        _check_size(signature, algorithm)
        if is_secp256k1:
            signature = with_low_s(signature)
        key.verify(der_from_raw(signature), data, scheme)
        return signature

    return verify


def _eddsa_verifier(key: ed25519.Ed25519PublicKey | ed448.Ed448PublicKey, algorithm: SigningAlgorithm) -> Verifier:
    def verify(signature: bytes, data: bytes) -> bytes:
        _check_size(signature, algorithm)
        key.verify(signature, data)
        return signature

    return verify


def with_low_s(signature: bytes) -> bytes:
    """Put s of a secp256k1 signature (r || s, 64 bytes) into the lower half; both halves verify (BIP 62 rule 5)."""
    s = int.from_bytes(signature[32:], "big")
    if SECP256K1_ORDER // 2 < s < SECP256K1_ORDER:
        return signature[:32] + (SECP256K1_ORDER - s).to_bytes(32, "big")
    return signature


def der_from_raw(signature: bytes) -> bytes:
    """Encode r || s as Ecdsa-Sig-Value (RFC 3279 section 2.2.3). Written here because it runs once per signature."""
    half = len(signature) // 2
    r = signature[:half].lstrip(b"\0") or b"\0"
    s = signature[half:].lstrip(b"\0") or b"\0"
    if r[0] & _HIGH_BIT:
        r = b"\0" + r
    if s[0] & _HIGH_BIT:
        s = b"\0" + s
    body = b"\x02%c%b\x02%c%b" % (len(r), r, len(s), s)
    return b"\x30%c%b" % (len(body), body) if len(body) < _HIGH_BIT else b"\x30\x81%c%b" % (len(body), body)
