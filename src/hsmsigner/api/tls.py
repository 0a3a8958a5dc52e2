"""mTLS, TLS 1.3 only, with certificates that reload by themselves."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from hsmsigner.config import TlsSettings
from hsmsigner.errors import ConfigurationError

_log = logging.getLogger(__name__)


class CertificateFiles:
    """The files of `TlsSettings`; `refresh` reads again what changed, and keeps the last good ones when it cannot."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files for the first time.

        Raises:
            ConfigurationError: a file is missing, unreadable, or the key is not the certificate's.
        """
        self._settings = settings
        self._stamps = self._read_stamps()
        self._configuration = self._load()
        self._is_new = False
        self._revoked = self._load_revoked()

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials whose certificates every new handshake takes from the newest files."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration,
            self._fetch,  # type: ignore[arg-type]  # gRPC takes None for "as before"; its stubs do not know
            require_client_authentication=True,
        )

    def is_revoked(self, fingerprint: str) -> bool:
        """Whether a client certificate (SHA-256 of its DER, hex) is on the revocation list."""
        return fingerprint in self._revoked

    def refresh(self) -> None:
        """Look whether files changed; called from time to time, never per request."""
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        try:
            configuration, revoked = self._load(), self._load_revoked()
        except ConfigurationError as error:
            # Half-written files are normal while somebody replaces them; the next look finds them whole.
            _log.warning("new certificates are not usable yet, the old ones stay: %s", error)
            return
        self._configuration, self._revoked, self._stamps, self._is_new = configuration, revoked, stamps, True
        _log.info("certificates reloaded", extra={"revoked": len(revoked)})

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # Called by gRPC at each handshake, from its own thread; None means "as before".
        if not self._is_new:
            return None
        self._is_new = False
        return self._configuration

    def _read_stamps(self) -> tuple[tuple[int, int] | None, ...]:
        settings = self._settings
        files = (settings.certificate, settings.private_key, settings.client_ca, settings.revoked)
        return tuple(_stamp(path) for path in files)

    def _load(self) -> grpc.ServerCertificateConfiguration:
        settings = self._settings
        certificate, key = _read(settings.certificate), _read(settings.private_key)
        client_ca = _read(settings.client_ca)
        try:
            public_key = x509.load_pem_x509_certificates(certificate)[0].public_key()
            matches = load_pem_private_key(key, None).public_key() == public_key
            x509.load_pem_x509_certificates(client_ca)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"a TLS file is not usable PEM: {error}") from error
        if not matches:
            raise ConfigurationError(f"{settings.private_key} is not the key of {settings.certificate}")
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def _load_revoked(self) -> frozenset[str]:
        if self._settings.revoked is None:
            return frozenset()
        text = _read(self._settings.revoked).decode("utf-8-sig", "replace")
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        path = self._settings.revoked
        return frozenset(_fingerprint(line, number, path) for number, line in enumerate(lines, 1) if line)


def _fingerprint(line: str, number: int, path: Path) -> str:
    """One line as hex, also as `openssl x509 -fingerprint -sha256` prints it; a line that revokes nobody is a fault."""
    text = re.sub(r"^sha256 fingerprint=|[:\s]", "", line, flags=re.IGNORECASE).lower()
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigurationError(
            f"{path} line {number} is no SHA-256 fingerprint; "
            "`openssl x509 -noout -fingerprint -sha256 -in CERT` prints one"
        )
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error


def _stamp(path: Path | None) -> tuple[int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_ino) if status else None
