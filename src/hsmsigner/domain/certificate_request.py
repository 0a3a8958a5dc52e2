"""PKCS#10 certification requests (RFC 2986): what the token has to sign, and the request written out around it.

For development also self-signed certificates, of the same parts.
"""

from __future__ import annotations

import hashlib
from base64 import encodebytes
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import algos, core, csr, keys
from asn1crypto import x509 as asn1_x509

from hsmsigner.domain.algorithm import HashName, Padding, SigningAlgorithm
from hsmsigner.domain.certificate_names import WantedCertificate, build_extensions, build_subject
from hsmsigner.domain.formats import encode_der
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import KeyVersion
from hsmsigner.errors import Reason, SignerError, invalid_field

_SHORTEST_US = 60 * MICROSECONDS_PER_SECOND
_LONGEST_US = 366 * 86_400 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class CertificateRequestPlan:
    """`to_be_signed` is for the token (digest, or message for EdDSA); `finish` makes PEM of its raw signature."""

    to_be_signed: bytes
    finish: Callable[[bytes], str]


def plan_certificate_request(version: KeyVersion, wanted: WantedCertificate) -> CertificateRequestPlan:
    """Build the CertificationRequestInfo of RFC 2986 section 4.1 for a version.

    Raises:
        SignerError: INVALID_FIELD, or ALGORITHM_NOT_SUPPORTED where X.509 has no name for the signature.
    """
    algorithm = version.algorithm
    signature_algorithm = _signature_algorithm(algorithm)
    subject, extensions = build_subject(wanted.subject), build_extensions(wanted)
    info = csr.CertificationRequestInfo(
        {
            "version": "v1",
            "subject": subject,
            "subject_pk_info": keys.PublicKeyInfo.load(version.public_key),
            "attributes": [{"type": "extension_request", "values": [extensions]}],
        }
    )

    def finish(raw: bytes) -> str:
        fields = {
            "certification_request_info": info,
            "signature_algorithm": signature_algorithm,
            "signature": _encoded(algorithm, raw),
        }
        return _pem("CERTIFICATE REQUEST", csr.CertificationRequest(fields).dump())

    return CertificateRequestPlan(algorithm.to_be_signed(info.dump()), finish)


def plan_self_signed(
    version: KeyVersion, wanted: WantedCertificate, begin: Instant, lifetime_us: int
) -> CertificateRequestPlan:
    """Build the TBSCertificate of RFC 5280 section 4.1.2 in which a version certifies itself.

    Raises:
        SignerError: INVALID_FIELD, or ALGORITHM_NOT_SUPPORTED where X.509 has no name for the signature.
    """
    if not _SHORTEST_US <= lifetime_us <= _LONGEST_US:
        raise invalid_field("self_signed_lifetime", "must be 1 minute to 366 days")
    if not wanted.subject:
        raise invalid_field("subject", "must not be empty: it is the issuer too")
    algorithm = version.algorithm
    signature_algorithm = _signature_algorithm(algorithm)
    subject, extensions = build_subject(wanted.subject), build_extensions(wanted)
    tbs = asn1_x509.TbsCertificate(
        {
            "version": "v3",
            # Unique for this key and moment, and positive.
            "serial_number": int.from_bytes(hashlib.sha256(version.public_key + str(begin).encode()).digest()[:15]) + 1,
            "signature": signature_algorithm,
            "issuer": subject,
            "validity": {"not_before": _time(begin), "not_after": _time(Instant(begin + lifetime_us))},
            "subject": subject,
            "subject_public_key_info": keys.PublicKeyInfo.load(version.public_key),
            "extensions": extensions,
        }
    )

    def finish(raw: bytes) -> str:
        fields = {
            "tbs_certificate": tbs,
            "signature_algorithm": signature_algorithm,
            "signature_value": _encoded(algorithm, raw),
        }
        return _pem("CERTIFICATE", asn1_x509.Certificate(fields).dump())

    return CertificateRequestPlan(algorithm.to_be_signed(tbs.dump()), finish)


def _encoded(algorithm: SigningAlgorithm, raw: bytes) -> bytes:
    return encode_der(raw) if algorithm.padding is Padding.ECDSA else raw


def _pem(label: str, der: bytes) -> str:
    body = encodebytes(der).decode().replace("\n", "")
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


def _time(instant: Instant) -> asn1_x509.Time:
    """RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050; whole seconds."""
    moment = datetime.fromtimestamp(instant // MICROSECONDS_PER_SECOND, UTC)
    return asn1_x509.Time({"utc_time" if moment.year < 2050 else "general_time": moment})  # noqa: PLR2004 - the RFC's


def _signature_algorithm(algorithm: SigningAlgorithm) -> algos.SignedDigestAlgorithm:
    """AlgorithmIdentifier: RFC 4055 section 5 and 3.1 for RSA, RFC 5758 section 3.2 for ECDSA, RFC 8410 for EdDSA.

    Raises:
        SignerError: ALGORITHM_NOT_SUPPORTED.
    """
    if algorithm.hash_name is HashName.KECCAK256:
        message = f"{algorithm.name} has no name in X.509: no certificate can be made for it"
        raise SignerError(Reason.ALGORITHM_NOT_SUPPORTED, message, field="name")
    if algorithm.hash_name is None:
        return algos.SignedDigestAlgorithm({"algorithm": algorithm.name.lower()})
    hash_name = algorithm.hash_name.value.lower()
    if algorithm.padding is Padding.ECDSA:
        return algos.SignedDigestAlgorithm({"algorithm": f"{hash_name}_ecdsa"})
    if algorithm.padding is Padding.PKCS1:
        return algos.SignedDigestAlgorithm({"algorithm": f"{hash_name}_rsa", "parameters": core.Null()})
    digest = algos.DigestAlgorithm({"algorithm": hash_name, "parameters": core.Null()})
    parameters = algos.RSASSAPSSParams(
        {
            "hash_algorithm": digest,
            "mask_gen_algorithm": algos.MaskGenAlgorithm({"algorithm": "mgf1", "parameters": digest}),
            "salt_length": algorithm.hash_name.size,
        }
    )
    return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pss", "parameters": parameters})
