"""Who calls, as the TLS handshake proved it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hsmsigner.errors import Reason, SignerError

_MAX_LENGTH = 512
_SPIFFE = "spiffe://"
_NAMELESS = frozenset({_SPIFFE, "dns:", "cn:"})


@dataclass(frozen=True, slots=True)
class Principal:
    """`spiffe://…`, `dns:…` or `cn:…`; the appliance itself is `appliance`, which no certificate can spell."""

    text: str

    def __str__(self) -> str:
        return self.text


APPLIANCE = Principal("appliance")


def principal_from_certificate(uris: Sequence[str], dns_names: Sequence[str], common_name: str | None) -> Principal:
    """Name a caller: its SPIFFE URI SAN, else its DNS SAN, else its CN.

    Ambiguity is refused rather than resolved: a certificate with two SPIFFE ids, or without one and with two DNS names,
    would let its holder choose who to be (SPIFFE X509-SVID section 2 allows exactly one URI SAN).

    Raises:
        SignerError: UNAUTHENTICATED.
    """
    spiffe = [uri for uri in uris if uri.startswith(_SPIFFE)]
    for names, prefix in ((spiffe, ""), (dns_names, "dns:"), ([common_name] if common_name else [], "cn:")):
        if len(names) > 1:
            raise SignerError(Reason.UNAUTHENTICATED, "the client certificate names more than one principal")
        if names:
            return _checked(prefix + str(names[0]))
    raise SignerError(Reason.UNAUTHENTICATED, "the client certificate has no SPIFFE id, DNS name or common name")


def _checked(text: str) -> Principal:
    if text in _NAMELESS:
        raise SignerError(Reason.UNAUTHENTICATED, "the client certificate's name is empty")
    # Printable ASCII without spaces or the characters that patterns and quota counters give a meaning.
    if len(text) > _MAX_LENGTH or not all("!" <= character <= "~" and character not in "*|" for character in text):
        raise SignerError(Reason.UNAUTHENTICATED, "the client certificate's name has characters that are not allowed")
    return Principal(text)
