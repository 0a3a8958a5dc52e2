"""The server's certificate, its key, the clients' CA and the revocation list."""

from __future__ import annotations

import re
import stat
from collections.abc import Generator, Iterator
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

from hsmsigner.config import TlsSettings
from hsmsigner.doctor.finding import Finding, fault, fine, warning

_EXPIRES_SOON = timedelta(days=30)
_FINGERPRINT = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)
_PEM_KIND = {"tls.certificate": "certificate chain", "tls.client_ca": "CA certificate"}


def check_certificates(tls: TlsSettings, now: datetime) -> Iterator[Finding]:
    """Check every TLS file; `now` is aware of its zone."""
    chain = yield from _certificates("tls.certificate", tls.certificate, now)
    if chain:
        yield from _private_key(tls.private_key, chain[0])
    yield from _certificates("tls.client_ca", tls.client_ca, now)
    if tls.revoked is not None:
        yield _revocation_list(tls.revoked)


def _certificates(check: str, path: Path, now: datetime) -> Generator[Finding, None, list[x509.Certificate]]:
    """Yield findings, return the certificates."""
    try:
        certificates = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        yield fault(check, f"{path} cannot be read: {error.strerror}", f"put the {_PEM_KIND[check]} there, in PEM")
        return []
    except ValueError:
        yield fault(check, f"{path} is not a PEM certificate", f"put the {_PEM_KIND[check]} there, in PEM")
        return []
    for certificate in certificates:
        yield _validity(check, path, certificate, now)
    return certificates


def _validity(check: str, path: Path, certificate: x509.Certificate, now: datetime) -> Finding:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    name = f"{certificate.subject.rfc4514_string()} in {path}"
    if now < begins:
        return fault(
            check,
            f"{name} is not valid before {begins:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M}",
            "set this machine's clock, or issue the certificate anew",
        )
    if now > ends:
        return fault(
            check,
            f"{name} expired at {ends:%Y-%m-%d %H:%M} UTC",
            "issue a new one and put it in its place; a running server reads it by itself",
        )
    if ends - now < _EXPIRES_SOON:
        return warning(
            check,
            f"{name} expires in {(ends - now).days} days, at {ends:%Y-%m-%d %H:%M} UTC",
            "issue a new one and put it in its place; a running server reads it by itself",
        )
    return fine(check, f"{name} is valid until {ends:%Y-%m-%d}")


def _private_key(path: Path, certificate: x509.Certificate) -> Iterator[Finding]:
    check = "tls.private_key"
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        mode = path.stat().st_mode
    except OSError as error:
        yield fault(
            check, f"{path} cannot be read: {error.strerror}", "put the certificate's private key there, in PEM"
        )
        return
    except (ValueError, TypeError):
        yield fault(
            check, f"{path} is not an unencrypted PEM private key", "put the certificate's private key there, in PEM"
        )
        return
    if _spki(key.public_key()) != _spki(certificate.public_key()):
        yield fault(
            check,
            f"{path} is not the key of the certificate",
            "put the key and the certificate that were made together in place",
        )
    elif mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(check, f"{path} can be read by others than its owner", f"chmod 600 {path}")
    else:
        yield fine(check, f"{path} belongs to the certificate")


def _spki(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def _revocation_list(path: Path) -> Finding:
    check = "tls.revoked"
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        return fault(check, f"{path} cannot be read ({type(error).__name__})", "make it, empty if nothing is revoked")
    entries = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for number, entry in enumerate(entries, start=1):
        if not _FINGERPRINT.fullmatch(entry.replace(":", "")):
            return fault(
                check,
                f"entry {number} of {path} is not a SHA-256 fingerprint",
                "write 64 hex digits per line, as `openssl x509 -fingerprint -sha256` prints them",
            )
    return fine(check, f"{path} revokes {len(entries)} certificates")
