"""Who the client is and whom it trusts: mTLS credentials, and the profile file that names them.

The server speaks TLS 1.3 only, and it is the server's certificate that this side insists on, so no downgrade can
succeed. gRPC offers no per-channel setting for it; the process-wide environment variable is left to the application.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc
import yaml

_FIELDS = ("server", "ca", "certificate", "private_key")


class ProfileError(Exception):
    """A profile or a file it names cannot be used; the text says which and what would be right."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The client's certificate chain and private key, and the CA that the server must be issued by; all PEM."""

    ca: bytes
    certificate: bytes
    private_key: bytes

    def __repr__(self) -> str:
        return "Credentials(hidden)"

    @classmethod
    def from_files(cls, ca: Path, certificate: Path, private_key: Path) -> Credentials:
        """Read three PEM files.

        Raises:
            ProfileError: one cannot be read, or is not PEM of the kind expected.
        """
        return cls(
            _read_pem(ca, "ca", "CERTIFICATE"),
            _read_pem(certificate, "certificate", "CERTIFICATE"),
            _read_pem(private_key, "private_key", "PRIVATE KEY"),
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """As gRPC wants them."""
        return grpc.ssl_channel_credentials(self.ca, self.private_key, self.certificate)


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the server is (`host:port`), and the credentials for it."""

    server: str
    credentials: Credentials

    @classmethod
    def load(cls, path: Path) -> Profile:
        """Read a profile; paths in it are relative to the folder it lies in.

        Raises:
            ProfileError: unreadable, not YAML, a field missing, unknown or not text, or a file it names unusable.
        """
        fields = _read_fields(path)
        base = path.resolve().parent
        credentials = Credentials.from_files(*(base / fields[name] for name in _FIELDS[1:]))
        return cls(fields["server"], credentials)


def _read_fields(path: Path) -> dict[str, str]:
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ProfileError(f"cannot read profile {path}: {error.strerror}") from error
    # PyYAML lets through what odd dates and deep nesting raise.
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ProfileError(f"profile {path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ProfileError(f"profile {path} must be a YAML mapping with {', '.join(_FIELDS)}")
    if missing := [name for name in _FIELDS if name not in raw]:
        raise ProfileError(f"profile {path} lacks {', '.join(missing)}")
    if unknown := [str(name) for name in raw if name not in _FIELDS]:
        raise ProfileError(f"profile {path} has unknown fields: {', '.join(unknown)}; known are {', '.join(_FIELDS)}")
    if wrong := [name for name in _FIELDS if not isinstance(raw[name], str) or not raw[name]]:
        raise ProfileError(f"profile {path}: {', '.join(wrong)} must be text")
    return {name: raw[name] for name in _FIELDS}


def _read_pem(path: Path, field: str, kind: str) -> bytes:
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise ProfileError(f"{field}: cannot read {path}: {error.strerror}") from error
    # The header may say EC PRIVATE KEY or RSA PRIVATE KEY (RFC 7468 section 10, OpenSSL's older forms).
    if b"-----BEGIN " not in pem or f"{kind}-----".encode() not in pem:
        raise ProfileError(f"{field}: {path} holds no PEM {kind}")
    return pem
