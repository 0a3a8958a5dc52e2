"""The gRPC server of one frontend: services, limits, TLS, and stopping without losing an answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from hsmsigner.api.audit import AuditServicer
from hsmsigner.api.authn import Authenticator
from hsmsigner.api.convert import Converter
from hsmsigner.api.health import Health
from hsmsigner.api.interceptors import Edge
from hsmsigner.api.key_service import KeyService, KeyUseCases
from hsmsigner.api.policy import PolicyServicer
from hsmsigner.api.signing import SigningServicer
from hsmsigner.api.tls import CertificateFiles
from hsmsigner.config import Settings
from hsmsigner.errors import ConfigurationError
from hsmsigner.operations.audit import Audit
from hsmsigner.operations.log_watch import LogWatch
from hsmsigner.operations.policy import Policies
from hsmsigner.operations.sealing import Sealing
from hsmsigner.operations.sign import Signing
from hsmsigner.pb import audit_pb2_grpc, keys_pb2_grpc, policy_pb2_grpc, signing_pb2_grpc

# gRPC reads a whole message into memory before anybody is asked whether the caller may: this bounds what a client
# without any grant can make us hold. A batch of large messages must be cut accordingly.
MAX_REQUEST_BYTES = 8 * 2**20
_SERVICES = ("SigningService", "KeyService", "PolicyService", "AuditService")


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the services call."""

    signing: Signing
    keys: KeyUseCases
    policies: Policies
    audit: Audit
    log_watch: LogWatch
    sealing: Sealing


class ApiServer:
    """Listens, serves, and stops in order."""

    def __init__(
        self,
        settings: Settings,
        use_cases: UseCases,
        authenticator: Authenticator,
        certificates: CertificateFiles,
        health: Health,
    ) -> None:
        self._settings = settings
        self._health = health
        self._draining = asyncio.Event()
        self._server = grpc.aio.server(interceptors=[Edge(authenticator)], options=_options(settings))
        self._add_services(use_cases, authenticator)
        self._credentials = certificates.server_credentials()

    async def start(self) -> str:
        """Listen; returns host:port as it really is.

        Raises:
            ConfigurationError: the port is taken or the address is not ours.
        """
        listen = self._settings.listen
        try:
            port = self._server.add_secure_port(listen, self._credentials)
        except RuntimeError as error:
            raise ConfigurationError(
                f"cannot listen on {listen}: the port is taken or the address is not of this machine; "
                "stop what listens there or change `listen`"
            ) from error
        await self._server.start()
        return f"{listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Take no new calls, answer what was taken in, then close; what takes longer than the grace is cut."""
        self._draining.set()
        await self._health.leave()
        await self._server.stop(self._settings.limits.stop_grace_s)

    def _add_services(self, use_cases: UseCases, authenticator: Authenticator) -> None:
        settings, server = self._settings, self._server
        converter = Converter(settings.limits.message_bytes, settings.token.protection_level)
        signing = SigningServicer(use_cases.signing, use_cases.keys.keys, converter, authenticator, self._draining)
        signing_pb2_grpc.add_SigningServiceServicer_to_server(signing, server)
        keys = KeyService(
            use_cases.keys,
            converter=converter,
            authenticator=authenticator,
            draining=self._draining,
        )
        keys_pb2_grpc.add_KeyServiceServicer_to_server(keys, server)
        policy_pb2_grpc.add_PolicyServiceServicer_to_server(PolicyServicer(use_cases.policies), server)
        audit = AuditServicer(
            use_cases.audit,
            use_cases.log_watch,
            use_cases.sealing,
            authenticator=authenticator,
            draining=self._draining,
        )
        audit_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        if settings.reflection:
            names = [f"hsmsigner.v1.{service}" for service in _SERVICES]
            names += [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, server)


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max(MAX_REQUEST_BYTES, settings.limits.message_bytes + 2**16)),
        # What was signed must also be answered, JWS with their payloads included.
        ("grpc.max_send_message_length", -1),
        # Without it a second server could share the port unnoticed, and half of the calls would go there.
        ("grpc.so_reuseport", 0),
        ("grpc.max_connection_idle_ms", 3_600_000),
        # Whoever does not finish the handshake soon makes room; calls beyond this many on one connection wait.
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.max_concurrent_streams", 1024),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
