"""From the attributes of a public key object to SubjectPublicKeyInfo, whatever form the token keeps its point in."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute
from pkcs11.types import Object

from hsmsigner.domain.algorithm import KeyKind
from hsmsigner.token.faults import KeyRefusedError
from hsmsigner.token.mechanism import TokenMechanism

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "secp256r1": ec.SECP256R1,
    "secp384r1": ec.SECP384R1,
    "secp521r1": ec.SECP521R1,
    "secp256k1": ec.SECP256K1,
}
_OCTET_STRING = 0x04
_BIT_STRING = 0x03
_SHORT_LENGTH = 0x80


def public_key_info(public: Object, row: TokenMechanism) -> bytes:
    """Describe a public key object as SubjectPublicKeyInfo in DER (RFC 5280 section 4.1).

    Raises:
        KeyRefusedError: it is not a key of this algorithm.
        pkcs11.exceptions.PKCS11Error: the token could not be asked.
    """
    if public[Attribute.KEY_TYPE] != row.key_type:
        raise KeyRefusedError(f"the public key on the token is not of the type that {row.algorithm.name} uses")
    try:
        key = _rsa_key(public, row) if row.algorithm.kind is KeyKind.RSA else _curve_key(public, row)
    except ValueError as error:
        raise KeyRefusedError(f"the public key on the token is not a valid {row.algorithm.name} key") from error
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _rsa_key(public: Object, row: TokenMechanism) -> rsa.RSAPublicKey:
    modulus = int.from_bytes(public[Attribute.MODULUS], "big")
    exponent = int.from_bytes(public[Attribute.PUBLIC_EXPONENT], "big")
    if modulus.bit_length() != row.algorithm.size:
        raise KeyRefusedError(
            f"the modulus has {modulus.bit_length()} bits, {row.algorithm.name} takes {row.algorithm.size}"
        )
    return rsa.RSAPublicNumbers(exponent, modulus).public_key()


def _curve_key(
    public: Object, row: TokenMechanism
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey:
    if bytes(public[Attribute.EC_PARAMS]) not in row.curve_parameters:
        raise KeyRefusedError(f"the public key on the token is not on {row.algorithm.curve}")
    encoded = bytes(public[Attribute.EC_POINT])
    size = row.algorithm.size
    if row.algorithm.kind is KeyKind.EC:
        point = decode_point(encoded, 2 * size + 1)
        return ec.EllipticCurvePublicKey.from_encoded_point(_CURVES[row.algorithm.curve](), point)
    point = decode_point(encoded, size)
    if row.algorithm.curve == "ed25519":
        return ed25519.Ed25519PublicKey.from_public_bytes(point)
    return ed448.Ed448PublicKey.from_public_bytes(point)


def decode_point(encoded: bytes, size: int) -> bytes:
    """Take a point of `size` bytes out of CKA_EC_POINT: DER OCTET STRING, DER BIT STRING or the bare bytes.

    Which of the three is told by the length, as the point's own length is known.

    Raises:
        ValueError: none of the three.
    """
    if len(encoded) == size:
        return encoded
    if encoded == _der(_OCTET_STRING, encoded[-size:]) or encoded == _der(_BIT_STRING, b"\0" + encoded[-size:]):
        return encoded[-size:]
    raise ValueError("CKA_EC_POINT is in no form that is known")


def _der(tag: int, content: bytes) -> bytes:
    # Points are at most 134 bytes, so the long form never needs more than one byte.
    length = bytes((len(content),)) if len(content) < _SHORT_LENGTH else bytes((0x81, len(content)))
    return bytes((tag,)) + length + content
