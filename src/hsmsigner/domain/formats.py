"""How a signature is written: one pure encoder per format, and what the token has to sign for it.

A plan is made before anything is debited, so that a format that does not fit is refused with nothing debited.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from enum import Enum, unique

import coincurve
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import Struct

from hsmsigner.domain.algorithm import HashName, Padding, SigningAlgorithm
from hsmsigner.domain.key import KeyVersion
from hsmsigner.domain.policy import InputKind
from hsmsigner.errors import Reason, SignerError, invalid_field


@unique
class OutputFormat(Enum):
    """Formats of proto/hsmsigner/v1/signing.proto."""

    RAW = "RAW"
    DER = "DER"
    JWS_COMPACT = "JWS_COMPACT"
    JWS_DETACHED = "JWS_DETACHED"
    ETHEREUM = "ETHEREUM"


_JWS = frozenset({OutputFormat.JWS_COMPACT, OutputFormat.JWS_DETACHED})

# How the JWS signing input of every continuity statement begins (domain/continuity.py). No message of a caller may:
# whoever may sign raw messages could otherwise make the key vouch for a successor of his own.
CONTINUITY_TYPE = "hsmsigner-continuity-v1"
_RESERVED = urlsafe_b64encode(f'{{"typ":"{CONTINUITY_TYPE}",'.encode())


class SignaturePlan(Struct, frozen=True, gc=False):
    """What the token gets (`to_be_signed`: digest, or message for EdDSA), and how its raw answer is written out."""

    to_be_signed: bytes
    encode: Callable[[bytes], bytes]


def plan_signature(version: KeyVersion, kind: InputKind, body: bytes, output_format: OutputFormat) -> SignaturePlan:
    """Work out what has to be signed and how the answer will be written.

    Raises:
        SignerError: FORMAT_NOT_SUPPORTED when algorithm, input and format do not go together, INVALID_FIELD for a
            digest of the wrong length and for a message that only a rotation signs.
    """
    algorithm = version.algorithm
    if kind is InputKind.DIGEST:
        _check_digest(algorithm, body)
    if output_format in _JWS:
        return _plan_jws(version, kind, body, output_format)
    if kind is InputKind.MESSAGE and body.startswith(_RESERVED):
        raise invalid_field("message", "begins as a continuity statement, which only a rotation signs")
    to_be_signed = body if kind is InputKind.DIGEST else algorithm.to_be_signed(body)
    if output_format is OutputFormat.RAW:
        return SignaturePlan(to_be_signed, bytes)
    if output_format is OutputFormat.DER and algorithm.padding is Padding.ECDSA:
        return SignaturePlan(to_be_signed, encode_der)
    if output_format is OutputFormat.ETHEREUM and algorithm.hash_name is HashName.KECCAK256:
        return SignaturePlan(to_be_signed, lambda raw: encode_ethereum(raw, to_be_signed, version.public_key))
    raise _not_supported(algorithm, output_format)


def encode_der(raw: bytes) -> bytes:
    """Ecdsa-Sig-Value in DER (RFC 3279 section 2.2.3) from r || s."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))


def encode_ethereum(raw: bytes, digest: bytes, public_key: bytes) -> bytes:
    """Write r || s || v, 65 bytes: s in the lower half (EIP-2), v = 27 + recovery id (Yellow Paper, appendix F).

    The token does not say which of the candidate points it used, so both are tried against the key.

    Args:
        raw: r || s, 64 bytes, s already low.
        digest: the 32 bytes that were signed.
        public_key: SubjectPublicKeyInfo in DER; its last 65 bytes are the uncompressed point (SEC 1 section 2.3.3).

    Raises:
        SignerError: SIGNATURE_INVALID when no recovery id leads back to the key.
    """
    for recovery_id in range(4):
        try:
            point = coincurve.PublicKey.from_signature_and_message(raw + bytes([recovery_id]), digest, hasher=None)
        except ValueError:  # no point has this x
            continue
        if point.format(compressed=False) == public_key[-65:]:
            return raw + bytes([27 + recovery_id])
    raise SignerError(Reason.SIGNATURE_INVALID, "the signature does not lead back to the key; nothing was released")


def _plan_jws(version: KeyVersion, kind: InputKind, body: bytes, output_format: OutputFormat) -> SignaturePlan:
    algorithm = version.algorithm
    if algorithm.jws is None or kind is InputKind.DIGEST:
        raise _not_supported(algorithm, output_format)
    header = {"alg": algorithm.jws, "kid": str(version.name)}
    return plan_jws(algorithm, header, body, is_detached=output_format is OutputFormat.JWS_DETACHED)


def plan_jws(
    algorithm: SigningAlgorithm, header: Mapping[str, str], payload: bytes, *, is_detached: bool = False
) -> SignaturePlan:
    """JWS compact serialization (RFC 7515 section 7.1); detached leaves the payload out (appendix F)."""
    protected = _base64url(json.dumps(header, separators=(",", ":")).encode())
    encoded = _base64url(payload)
    shown = b"" if is_detached else encoded
    return SignaturePlan(
        algorithm.to_be_signed(protected + b"." + encoded),
        lambda raw: b".".join((protected, shown, _base64url(raw))),
    )


def _base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def _check_digest(algorithm: SigningAlgorithm, digest: bytes) -> None:
    if algorithm.hash_name is None:
        raise SignerError(
            Reason.FORMAT_NOT_SUPPORTED, f"{algorithm.name} signs the message itself; send `message`", field="digest"
        )
    if len(digest) != algorithm.hash_name.size:
        raise SignerError(
            Reason.INVALID_FIELD,
            f"digest: must be {algorithm.hash_name.size} bytes for {algorithm.name}, not {len(digest)}",
            field="digest",
        )


def _not_supported(algorithm: SigningAlgorithm, output_format: OutputFormat) -> SignerError:
    fits = {
        OutputFormat.DER: "DER is for ECDSA keys",
        OutputFormat.ETHEREUM: "ETHEREUM is for ECDSA_SECP256K1_KECCAK256 keys",
    }.get(output_format, "JWS takes a message, and an algorithm that JOSE knows")
    return SignerError(
        Reason.FORMAT_NOT_SUPPORTED,
        f"output format {output_format.value} does not go with this {algorithm.name} request: {fits}",
        field="output_format",
    )
