"""JWS compact serialization (RFC 7515) and the signatures in it, under a SubjectPublicKeyInfo."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from hsmsigner.verifier.keccak import keccak256

# Several times a statement with the longest keys there are: hashing is slow where the library has no Keccak.
_LARGEST = 2**14
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "SHA256": hashes.SHA256(),
    "SHA384": hashes.SHA384(),
    "SHA512": hashes.SHA512(),
}
# Algorithm -> JOSE name, curve, length of one half of the raw signature in bytes. ES256K-KECCAK is the appliance's own.
_CURVES = {
    "ECDSA_P256_SHA256": ("ES256", "secp256r1", 32),
    "ECDSA_P384_SHA384": ("ES384", "secp384r1", 48),
    "ECDSA_P521_SHA512": ("ES512", "secp521r1", 66),
    "ECDSA_SECP256K1_SHA256": ("ES256K", "secp256k1", 32),
    "ECDSA_SECP256K1_KECCAK256": ("ES256K-KECCAK", "secp256k1", 32),
}
_EDWARDS = {"ED25519": ed25519.Ed25519PublicKey, "ED448": ed448.Ed448PublicKey}
_RSA = re.compile(r"RSA_(PKCS1|PSS)_(2048|3072|4096)_(SHA256|SHA384|SHA512)", re.ASCII)


class JwsError(Exception):
    """It cannot be read, or key, algorithm and header do not go together."""


@dataclass(frozen=True, slots=True)
class Jws:
    """A parsed JWS, nothing of it checked yet."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes

    def verifies(self, algorithm: str, public_key: bytes) -> bool:
        """Whether the signature is good under this key (SubjectPublicKeyInfo, DER) with this algorithm.

        Raises:
            JwsError: the algorithm is not known, or does not go with the key or with the header's `alg`.
        """
        try:
            key = load_der_public_key(public_key)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise JwsError(f"its public key cannot be read: {error}") from error
        try:
            if isinstance(key, ec.EllipticCurvePublicKey):
                self._verify_ecdsa(algorithm, key)
            elif isinstance(key, rsa.RSAPublicKey):
                self._verify_rsa(algorithm, key)
            elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
                self._verify_edwards(algorithm, key)
            else:
                raise _unfit(algorithm, self.header)
        except InvalidSignature:
            return False
        return True

    def _verify_ecdsa(self, algorithm: str, key: ec.EllipticCurvePublicKey) -> None:
        name, curve, size = _CURVES.get(algorithm, ("", "", 0))
        if self.header.get("alg") != name or key.curve.name != curve:
            raise _unfit(algorithm, self.header)
        if len(self.signature) != 2 * size:
            raise InvalidSignature
        der = encode_dss_signature(int.from_bytes(self.signature[:size]), int.from_bytes(self.signature[size:]))
        if name == "ES256K-KECCAK":
            # Only its length tells the library what kind of digest this is.
            key.verify(der, keccak256(self.signing_input), ec.ECDSA(Prehashed(hashes.SHA256())))
        else:
            key.verify(der, self.signing_input, ec.ECDSA(_HASHES[algorithm.rpartition("_")[2]]))

    def _verify_edwards(self, algorithm: str, key: ed25519.Ed25519PublicKey | ed448.Ed448PublicKey) -> None:
        if self.header.get("alg") != "EdDSA" or not isinstance(key, _EDWARDS.get(algorithm, ())):
            raise _unfit(algorithm, self.header)
        key.verify(self.signature, self.signing_input)

    def _verify_rsa(self, algorithm: str, key: rsa.RSAPublicKey) -> None:
        match = _RSA.fullmatch(algorithm)
        if match is None or key.key_size != int(match[2]):
            raise _unfit(algorithm, self.header)
        name = ("RS" if match[1] == "PKCS1" else "PS") + match[3].removeprefix("SHA")
        if self.header.get("alg") != name:
            raise _unfit(algorithm, self.header)
        chosen = _HASHES[match[3]]
        scheme = padding.PKCS1v15() if match[1] == "PKCS1" else padding.PSS(padding.MGF1(chosen), chosen.digest_size)
        key.verify(self.signature, self.signing_input, scheme, chosen)


def parse_jws(text: object) -> Jws:
    """Read a compact serialization.

    Raises:
        JwsError: it is none.
    """
    if not isinstance(text, str) or len(text) > _LARGEST or text.count(".") != 2:  # noqa: PLR2004 - three parts
        raise JwsError("it is not a JWS in compact serialization")
    protected, payload, signature = text.split(".")
    return Jws(
        parse_json(decode_base64url(protected)),
        decode_base64url(payload),
        f"{protected}.{payload}".encode(),
        decode_base64url(signature),
    )


def parse_json(content: bytes) -> dict[str, Any]:
    """Read a JSON object in which no name stands twice: that reads differently in different parsers.

    Raises:
        JwsError: it is none.
    """
    try:
        fields = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    # RecursionError: nesting deep enough to exhaust the parser.
    except (ValueError, RecursionError) as error:
        raise JwsError(f"not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise JwsError("not a JSON object")
    return fields


def decode_base64url(text: str) -> bytes:
    """Base64url without padding (RFC 7515 section 2), one way to write each value.

    Raises:
        JwsError: it is none.
    """
    try:
        content = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError as error:
        raise JwsError(f"not base64url: {error}") from error
    if urlsafe_b64encode(content).rstrip(b"=") != text.encode():
        raise JwsError("not base64url as it is written without padding")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields


def _unfit(algorithm: str, header: dict[str, Any]) -> JwsError:
    return JwsError(f"{algorithm[:80]!r} does not go with its public key or with `alg` {header.get('alg')!r}")
