"""Certificates and continuity statements for asyncio programs; `AsyncSignerClient` has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

from hsmsigner.client.channel import Connection, change, read
from hsmsigner.client.rotation import duration
from hsmsigner.pb import keys_pb2, resources_pb2

_TIMEOUT_S = 30.0
_PAGE_SIZE = 1000


class AsyncCertificateCalls:
    """What vouches for a public key, to others and among versions."""

    _connection: Connection

    async def create_certificate_signing_request(
        self,
        name: str,
        subject: str,
        *,
        dns_names: Sequence[str] = (),
        uris: Sequence[str] = (),
        ip_addresses: Sequence[str] = (),
        email_addresses: Sequence[str] = (),
        key_usages: Sequence[str] = (),
        extended_key_usages: Sequence[str] = (),
        self_signed_lifetime: timedelta | None = None,
    ) -> keys_pb2.CertificateSigningRequest:
        """A PKCS#10 request, signed by a key's primary or by a version. `subject` as in `CN=settlement-eu,O=Bank`.

        With `self_signed_lifetime`, for development, a certificate of its own instead.
        """
        request = keys_pb2.CreateCertificateSigningRequestRequest(
            name=name,
            subject=subject,
            dns_names=dns_names,
            uris=uris,
            ip_addresses=ip_addresses,
            email_addresses=email_addresses,
            key_usages=key_usages,
            extended_key_usages=extended_key_usages,
            self_signed_lifetime=None if self_signed_lifetime is None else duration(self_signed_lifetime),
        )
        return await change(self._connection.keys.CreateCertificateSigningRequest, request, _TIMEOUT_S)

    async def attach_certificate(
        self, name: str, certificate_chain: str, *, reason: str, etag: str = ""
    ) -> resources_pb2.KeyVersion:
        """Attach a certificate chain (PEM, leaf first) to the version whose public key the leaf certifies."""
        request = keys_pb2.AttachCertificateRequest(
            name=name, certificate_chain=certificate_chain, etag=etag, reason=reason
        )
        return await change(self._connection.keys.AttachCertificate, request, _TIMEOUT_S)

    async def list_continuity_statements(self, name: str) -> AsyncIterator[resources_pb2.ContinuityStatement]:
        """The continuity statements of a key, oldest first."""
        page_token = ""
        while True:
            page = await self.continuity_statement_page(name, page_token)
            for statement in page.statements:
                yield statement
            if not (page_token := page.next_page_token):
                return

    async def continuity_statement_page(
        self, name: str, page_token: str = ""
    ) -> keys_pb2.ListContinuityStatementsResponse:
        """One page of them."""
        request = keys_pb2.ListContinuityStatementsRequest(parent=name, page_size=_PAGE_SIZE, page_token=page_token)
        return await read(self._connection.keys.ListContinuityStatements, request, _TIMEOUT_S)
