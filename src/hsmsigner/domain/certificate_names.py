"""What a certificate is wanted to say: its subject, its other names and its uses, checked and written in ASN.1."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.x509.oid import NameOID

from hsmsigner.errors import invalid_field

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


def build_subject(text: str) -> asn1_x509.Name:
    """A distinguished name as RFC 4514 writes it.

    Raises:
        SignerError: INVALID_FIELD.
    """
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


def build_extensions(wanted: WantedCertificate) -> asn1_x509.Extensions:
    """Key usage always, extended key usage and alternative names where wanted (RFC 5280 section 4.2.1).

    Raises:
        SignerError: INVALID_FIELD.
    """
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
