"""Certificates of a version: the checks before one is attached, and what others want to know of it."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant, format_instant
from hsmsigner.errors import Reason, SignerError, invalid_field

_MOST_CERTIFICATES = 10
_MOST_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class CertificateChain:
    """A chain that was checked: PEM, leaf first, nothing between the certificates; when the first of them expires."""

    pem: str
    expire_time: Instant
    subject: str
    issuer: str
    serial_number: int


def check_certificate_chain(text: str, public_key: bytes, now: Instant) -> CertificateChain:
    """See that the leaf certifies exactly this public key (SubjectPublicKeyInfo, DER) and that each link holds.

    Whether the last issuer is trusted is for whoever uses the certificate to say.

    Raises:
        SignerError: INVALID_FIELD when it cannot be read, CERTIFICATE_INVALID when it does not hold.
    """
    chain = _parse(text)
    leaf = chain[0]
    if _public_key(leaf) != public_key:
        raise _invalid("the first certificate is of another public key; attach the one that was made for this version")
    for number, certificate in enumerate(chain, start=1):
        if certificate.not_valid_after_utc <= certificate.not_valid_before_utc:
            raise _invalid(f"certificate {number} ends before it begins")
        if _expiry(certificate) <= now:
            raise _invalid(f"certificate {number} expired at {format_instant(_expiry(certificate))}")
    below = 0  # issuers under this one that are not self-issued (RFC 5280 section 6.1.4 l, m)
    for number, (certificate, issuer) in enumerate(pairwise(chain), start=1):
        below += number > 1 and certificate.subject != certificate.issuer
        _check_link(number, certificate, issuer, below)
    return CertificateChain(
        "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain),
        min(map(_expiry, chain)),
        leaf.subject.rfc4514_string(),
        leaf.issuer.rfc4514_string(),
        leaf.serial_number,
    )


def chain_expire_time(pem: str) -> Instant:
    """When the first certificate of an attached chain expires."""
    return min(map(_expiry, x509.load_pem_x509_certificates(pem.encode())))


def to_x5c(pem: str) -> list[str]:
    """An attached chain as the `x5c` member of a JWK (RFC 7517 section 4.7)."""
    certificates = x509.load_pem_x509_certificates(pem.encode())
    return [b64encode(certificate.public_bytes(Encoding.DER)).decode() for certificate in certificates]


def _parse(text: str) -> list[x509.Certificate]:
    if not text or len(text) > _MOST_CHARACTERS:
        raise invalid_field("certificate_chain", f"must be PEM of 1-{_MOST_CHARACTERS} characters")
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        for certificate in chain:
            # Read lazily: what is malformed in them comes out here.
            _ = (certificate.subject, certificate.issuer, certificate.extensions)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise invalid_field("certificate_chain", "must be certificates in PEM, leaf first") from error
    if len(chain) > _MOST_CERTIFICATES:
        raise invalid_field("certificate_chain", f"must be 1-{_MOST_CERTIFICATES} certificates, not {len(chain)}")
    return chain


def _check_link(number: int, certificate: x509.Certificate, issuer: x509.Certificate, below: int) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm) as error:
        raise _invalid(f"certificate {number} was not issued by certificate {number + 1}") from error
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise _invalid(f"certificate {number + 1} is not that of an issuer (basic constraints)")
    if constraints.path_length is not None and below > constraints.path_length:
        allowed = constraints.path_length
        raise _invalid(f"certificate {number + 1} allows {allowed} issuers under it, and the chain has {below}")
    with suppress(x509.ExtensionNotFound):
        # Without the extension, every use is allowed (RFC 5280 section 4.2.1.3).
        if not issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            raise _invalid(f"certificate {number + 1} must not sign certificates (key usage)")


def _public_key(certificate: x509.Certificate) -> bytes:
    try:
        return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _invalid("the first certificate has a public key that cannot be read") from error


def _expiry(certificate: x509.Certificate) -> Instant:
    return Instant(round(certificate.not_valid_after_utc.timestamp()) * MICROSECONDS_PER_SECOND)


def _invalid(message: str) -> SignerError:
    return SignerError(Reason.CERTIFICATE_INVALID, f"certificate_chain: {message}", field="certificate_chain")
