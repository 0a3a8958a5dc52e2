"""Who calls: the client certificate that the TLS handshake proved, as a principal."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from cryptography import x509

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.principal import Principal, principal_from_certificate
from hsmsigner.errors import Reason, SignerError

# Certificates seen; each costs a parse once, not per call.
_CACHE_LIMIT = 4096

_caller: ContextVar[Caller] = ContextVar("caller")


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal, and until when and as which certificate it is one. `fingerprint` is SHA-256 of the DER, hex."""

    principal: Principal
    fingerprint: str
    not_before: Instant
    not_after: Instant


def current_principal() -> Principal:
    """The principal of the RPC that is being served."""
    return _caller.get().principal


def current_caller() -> Caller:
    """The caller of the RPC that is being served, for streams that check it again."""
    return _caller.get()


class Authenticator:
    """Turns the peer's certificate into a caller, and refuses expired and revoked ones at every call.

    The handshake has checked the chain, but a connection outlives its handshake: what expires or is revoked later is
    refused at the next call or stream frame.
    """

    def __init__(self, is_revoked: Callable[[str], bool], clock: Callable[[], Instant]) -> None:
        self._is_revoked = is_revoked
        self._clock = clock
        self._known: dict[bytes, Caller] = {}

    def enter(self, auth_context: Mapping[str, Iterable[bytes]]) -> Caller:
        """Authenticate the RPC's peer and make it the current caller.

        Raises:
            SignerError: UNAUTHENTICATED.
        """
        pem = b"".join(auth_context.get("x509_pem_cert", ()))
        caller = self._known.get(pem)
        if caller is None:
            caller = _read_certificate(pem)
            if len(self._known) >= _CACHE_LIMIT:
                self._known.clear()
            self._known[pem] = caller
        self.recheck(caller)
        _caller.set(caller)
        return caller

    def recheck(self, caller: Caller) -> None:
        """See that the certificate is still good.

        Raises:
            SignerError: UNAUTHENTICATED.
        """
        if not caller.not_before <= self._clock() <= caller.not_after:
            raise SignerError(Reason.UNAUTHENTICATED, "the client certificate is not valid at this time; renew it")
        if self._is_revoked(caller.fingerprint):
            raise SignerError(Reason.UNAUTHENTICATED, "the client certificate is revoked")


def _read_certificate(pem: bytes) -> Caller:
    if not pem:
        raise SignerError(Reason.UNAUTHENTICATED, "a client certificate is required")
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
        certificate = x509.load_der_x509_certificate(der)
        names = _alternative_names(certificate)
        common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except (ValueError, x509.UnsupportedGeneralNameType) as error:
        raise SignerError(Reason.UNAUTHENTICATED, "the client certificate cannot be read") from error
    principal = principal_from_certificate(
        names.get_values_for_type(x509.UniformResourceIdentifier) if names else [],
        names.get_values_for_type(x509.DNSName) if names else [],
        str(common_names[0].value) if len(common_names) == 1 else None,
    )
    return Caller(
        principal,
        hashlib.sha256(der).hexdigest(),
        Instant(int(certificate.not_valid_before_utc.timestamp()) * MICROSECONDS_PER_SECOND),
        Instant(int(certificate.not_valid_after_utc.timestamp()) * MICROSECONDS_PER_SECOND),
    )


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
