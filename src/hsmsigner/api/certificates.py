"""The methods of KeyService about certificates and continuity."""

from __future__ import annotations

from hsmsigner.api.authn import current_principal
from hsmsigner.api.convert import Converter, duration_us, page_size, page_start
from hsmsigner.api.interceptors import Context
from hsmsigner.domain.certificate_names import WantedCertificate
from hsmsigner.domain.key import KeyName, VersionName, parse_name
from hsmsigner.errors import invalid_field
from hsmsigner.operations.certificates import Certificates
from hsmsigner.pb import keys_pb2, resources_pb2


class CertificateMethods:
    """Checks, asks the use case, writes the answer out."""

    _certificates: Certificates
    _converter: Converter

    async def CreateCertificateSigningRequest(
        self, request: keys_pb2.CreateCertificateSigningRequestRequest, context: Context
    ) -> keys_pb2.CertificateSigningRequest:
        wanted = WantedCertificate(
            request.subject,
            tuple(request.dns_names),
            tuple(request.uris),
            tuple(request.ip_addresses),
            tuple(request.email_addresses),
            tuple(request.key_usages),
            tuple(request.extended_key_usages),
        )
        is_self_signed = request.HasField("self_signed_lifetime")
        version, pem = await self._certificates.create_request(
            current_principal(),
            parse_name(request.name),
            wanted,
            self_signed_us=duration_us(request.self_signed_lifetime, "self_signed_lifetime")
            if is_self_signed
            else None,
        )
        written = {"certificate" if is_self_signed else "pem": pem}
        return keys_pb2.CertificateSigningRequest(name=str(version.name), **written)

    async def AttachCertificate(
        self, request: keys_pb2.AttachCertificateRequest, context: Context
    ) -> resources_pb2.KeyVersion:
        name = parse_name(request.name)
        if not isinstance(name, VersionName):
            raise invalid_field("name", "must name a version, as in keys/settlement-eu/versions/2")
        version = await self._certificates.attach(
            current_principal(), name, request.certificate_chain, etag=request.etag, reason=request.reason
        )
        return self._converter.key_version(version)

    async def ListContinuityStatements(
        self, request: keys_pb2.ListContinuityStatementsRequest, context: Context
    ) -> keys_pb2.ListContinuityStatementsResponse:
        size, start = page_size(request.page_size), page_start(request.page_token)
        name = KeyName.parse(request.parent, "parent")
        # One more than a page, to know whether there is another.
        found = await self._certificates.continuity(current_principal(), name, start, size + 1)
        statements = [
            resources_pb2.ContinuityStatement(
                old_version=str(statement.old_version),
                new_version=str(statement.new_version),
                signed_by_old=statement.signed_by_old,
                signed_by_new=statement.signed_by_new,
            )
            for statement in found[:size]
        ]
        return keys_pb2.ListContinuityStatementsResponse(
            statements=statements, next_page_token=str(start + size) if len(found) > size else ""
        )
