"""PKCS#10 certification requests (RFC 2986): what the token has to sign, and the request written out around it.

For development also self-signed certificates, of the same parts.
"""

from __future__ import annotations

import hashlib
import re
from base64 import encodebytes
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from asn1crypto import algos, core, csr, keys
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.x509.oid import NameOID

from hsmsigner.domain.algorithm import HashName, Padding, SigningAlgorithm
from hsmsigner.domain.formats import encode_der
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import KeyVersion
from hsmsigner.errors import Reason, SignerError, invalid_field

_SHORTEST_US = 60 * MICROSECONDS_PER_SECOND
_LONGEST_US = 366 * 86_400 * MICROSECONDS_PER_SECOND
_MOST_NAMES = 100
_LONGEST_TEXT = 1000
_DNS_NAME = re.compile(
    r"(?:\*\.)?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
    re.ASCII | re.IGNORECASE,
)
_ANY, _PRINTABLE, _ASCII = re.compile(r".*", re.DOTALL), re.compile(r"[A-Za-z0-9 '()+,./:=?-]*"), re.compile(r"[ -~]*")
# Attributes that are no UTF8String (RFC 5280 appendix A.1): with other characters, nobody could read the request.
_ALPHABETS = {
    NameOID.COUNTRY_NAME: _PRINTABLE,
    NameOID.JURISDICTION_COUNTRY_NAME: _PRINTABLE,
    NameOID.SERIAL_NUMBER: _PRINTABLE,
    NameOID.DN_QUALIFIER: _PRINTABLE,
    NameOID.DOMAIN_COMPONENT: _ASCII,
    NameOID.EMAIL_ADDRESS: _ASCII,
}
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]{0,17})){1,30}", re.ASCII)
_KEY_USAGES = ("digital_signature", "content_commitment", "key_cert_sign", "crl_sign")
_ALL_KEY_USAGES = (
    *_KEY_USAGES, "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class WantedCertificate:
    """What a certification request asks for, as the caller wrote it. Names of the fields are those of the proto."""

    subject: str
    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    email_addresses: tuple[str, ...] = ()
    key_usages: tuple[str, ...] = ()
    extended_key_usages: tuple[str, ...] = ()


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
    subject, extensions = _subject(wanted.subject), _extensions(wanted)
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
    subject, extensions = _subject(wanted.subject), _extensions(wanted)
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


def _subject(text: str) -> asn1_x509.Name:
    if len(text) > _LONGEST_TEXT:
        raise invalid_field("subject", f"must have at most {_LONGEST_TEXT} characters")
    try:
        name = x509.Name.from_rfc4514_string(text)
        for attribute in name:
            if not _ALPHABETS.get(attribute.oid, _ANY).fullmatch(str(attribute.value)):
                raise ValueError(attribute.oid.dotted_string)  # noqa: TRY301 - one answer for both
        return asn1_x509.Name.load(name.public_bytes())
    except ValueError as error:
        raise invalid_field(
            "subject", "must be a distinguished name (RFC 4514), as in CN=settlement-eu,O=Bank,C=DE"
        ) from error


def _extensions(wanted: WantedCertificate) -> asn1_x509.Extensions:
    """Key usage always, extended key usage and alternative names where wanted (RFC 5280 section 4.2.1)."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [(_key_usage(wanted.key_usages), True)]
    if wanted.extended_key_usages:
        extensions.append((_extended_key_usage(wanted.extended_key_usages), False))
    names = list(_alternative_names(wanted))
    if names:
        # Critical when nothing else names the subject (section 4.2.1.6).
        extensions.append((x509.SubjectAlternativeName(names), not wanted.subject))
    elif not wanted.subject:
        raise invalid_field("subject", "must not be empty without an alternative name")
    return asn1_x509.Extensions(
        [
            {
                "extn_id": extension.oid.dotted_string,
                "critical": is_critical,
                "extn_value": core.ParsableOctetString(extension.public_bytes()),
            }
            for extension, is_critical in extensions
        ]
    )


def _key_usage(usages: tuple[str, ...]) -> x509.KeyUsage:
    chosen = usages or ("digital_signature",)
    for usage in chosen:
        if usage not in _KEY_USAGES:
            raise invalid_field("key_usages", f"must be among {', '.join(_KEY_USAGES)}, not {usage[:40]!r}")
    return x509.KeyUsage(**{usage: usage in chosen for usage in _ALL_KEY_USAGES})


def _extended_key_usage(usages: tuple[str, ...]) -> x509.ExtendedKeyUsage:
    if len(usages) > _MOST_NAMES or len(set(usages)) != len(usages):
        raise invalid_field("extended_key_usages", f"must be at most {_MOST_NAMES}, each once")
    for usage in usages:
        if not _OID.fullmatch(usage):
            raise invalid_field(
                "extended_key_usages", f"must be dotted OIDs, as in 1.3.6.1.5.5.7.3.8, not {usage[:40]!r}"
            )
    try:
        return x509.ExtendedKeyUsage(x509.ObjectIdentifier(usage) for usage in usages)
    except ValueError as error:
        raise invalid_field("extended_key_usages", "must be dotted OIDs, as in 1.3.6.1.5.5.7.3.8") from error


def _alternative_names(wanted: WantedCertificate) -> Iterator[x509.GeneralName]:
    texts = (*wanted.dns_names, *wanted.uris, *wanted.ip_addresses, *wanted.email_addresses)
    if len(texts) > _MOST_NAMES or any(len(text) > _LONGEST_TEXT for text in texts):
        raise invalid_field("dns_names", f"at most {_MOST_NAMES} names of {_LONGEST_TEXT} characters together")
    for text in wanted.dns_names:
        if not _DNS_NAME.fullmatch(text):
            raise invalid_field("dns_names", f"{text[:80]!r} is no DNS name")
        yield x509.DNSName(text)
    for text in wanted.uris:
        yield x509.UniformResourceIdentifier(_checked_uri(text))
    for text in wanted.ip_addresses:
        yield x509.IPAddress(_checked_ip_address(text))
    for text in wanted.email_addresses:
        try:
            if "@" not in text or not text.isprintable() or " " in text:
                raise ValueError(text)  # noqa: TRY301 - one answer for both
            yield x509.RFC822Name(text)
        except ValueError as error:
            raise invalid_field("email_addresses", f"{text[:80]!r} is no address") from error


def _checked_ip_address(text: str) -> IPv4Address | IPv6Address:
    if "%" not in text:  # a zone has no place in a certificate, and would be lost
        with suppress(ValueError):
            return ip_address(text)
    raise invalid_field("ip_addresses", f"{text[:80]!r} is no address")


def _checked_uri(text: str) -> str:
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise invalid_field("uris", f"{text[:80]!r} is no URI") from error
    if not (
        parts.scheme and (parts.netloc or parts.path) and text.isascii() and text.isprintable() and " " not in text
    ):
        raise invalid_field("uris", f"{text[:80]!r} is no URI with a scheme")
    return text
