"""A real gRPC server over real mTLS, whose answers a test writes as a function."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import google_crc32c
import grpc
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from hsmsigner.api.server import MAX_REQUEST_BYTES
from hsmsigner.client import Credentials, Profile
from hsmsigner.pb import (
    audit_pb2,
    audit_pb2_grpc,
    keys_pb2,
    keys_pb2_grpc,
    resources_pb2,
    signing_pb2,
    signing_pb2_grpc,
)
from tests.e2e.appliance import free_port

PRINCIPAL: Final = "spiffe://dev.hsmsigner/settlement/engine-1"

# What a behaviour may give instead of a result.
SILENCE: Final = "no answer, ever"
BREAK: Final = "break the stream"


@dataclass(frozen=True)
class EndStream:
    """End the whole stream with this status."""

    status: status_pb2.Status


Outcome = signing_pb2.SignResult | EndStream | str
# Gets the request and how often its id was seen before.
Behaviour = Callable[[signing_pb2.SignRequest, int], Outcome]


def signed(request: signing_pb2.SignRequest, **changes: Any) -> signing_pb2.SignResult:
    """A good answer; `changes` are fields to falsify."""
    signature = b"signed:" + (request.message or request.digest)
    fields: dict[str, Any] = {
        "name": f"{request.name}/versions/1",
        "request_id": request.request_id,
        "signature": signature,
        "signature_crc32c": google_crc32c.value(signature),
        "audit_sequence": 7,
        "policy_revision": 3,
        "protection_level": 1,
        "algorithm": 19,
    }
    return signing_pb2.SignResult(
        request_id=request.request_id, response=signing_pb2.SignResponse(**{**fields, **changes})
    )


def status(
    reason: str,
    code: grpc.StatusCode,
    metadata: Mapping[str, str] | None = None,
    retry_s: float | None = None,
    details: Iterable[Any] = (),
) -> status_pb2.Status:
    """A refusal as the appliance writes it."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="hsmsigner.v1", metadata=dict(metadata or {}))
    messages = [info, *details]
    if retry_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        messages.append(error_details_pb2.RetryInfo(retry_delay=delay))
    packed = []
    for message in messages:
        packed.append(AnyMessage())
        packed[-1].Pack(message)
    return status_pb2.Status(code=code.value[0], message=f"the words for {reason}", details=packed)


def refused(request: signing_pb2.SignRequest, refusal: status_pb2.Status) -> signing_pb2.SignResult:
    return signing_pb2.SignResult(request_id=request.request_id, error=refusal)


@dataclass(frozen=True)
class Authority:
    """A throw-away CA and the credentials of one client."""

    ca: trustme.CA
    server: trustme.LeafCert
    credentials: Credentials

    @classmethod
    def make(cls) -> Authority:
        ca = trustme.CA(key_type=trustme.KeyType.ECDSA)
        certificate, private_key = _issue_client(ca)
        credentials = Credentials(ca.cert_pem.bytes(), certificate, private_key)
        return cls(ca, ca.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA), credentials)


def _issue_client(ca: trustme.CA) -> tuple[bytes, bytes]:
    """Certificate and key in PEM; trustme itself writes no URI names."""
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    issuer_key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(issuer.not_valid_before_utc)
        .not_valid_after(issuer.not_valid_after_utc)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(PRINCIPAL)]), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    private_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), private_key


class FakeServer(signing_pb2_grpc.SigningServiceServicer, audit_pb2_grpc.AuditServiceServicer):
    """SigningService as the test says, in a thread of its own. `seen` counts the requests by id, on any way."""

    def __init__(self, authority: Authority, behave: Behaviour | None = None) -> None:
        self.authority = authority
        self.behave: Behaviour = behave or (lambda request, _: signed(request))
        # Answers are held back until so many wait, and are then sent in reverse.
        self.hold = 1
        self.seen: Counter[str] = Counter()
        self.was_asked = threading.Event()
        self.frames: list[int] = []
        self.principals: set[str] = set()
        self.streams = 0
        self.watches = 0
        # What a watch gives: (epoch, names of versions); or a refusal, which ends it.
        self.key_set: tuple[int, list[str]] | status_pb2.Status = (1, ["keys/a/versions/1"])
        # Not one that the kernel chooses: while the server restarts, another process could be given it.
        self.port = free_port()
        self._loop: asyncio.AbstractEventLoop
        self._server: grpc.aio.Server
        self._thread: threading.Thread

    @property
    def profile(self) -> Profile:
        return Profile(f"127.0.0.1:{self.port}", self.authority.credentials)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, args=(started,))
        self._thread.start()
        assert started.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(None), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def restart(self) -> None:
        """Break every connection, and come back on the same port."""
        self.__exit__()
        self.__enter__()

    def _serve(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        started.set()
        self._loop.run_forever()

    async def _start(self) -> None:
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_REQUEST_BYTES)]
        )
        signing_pb2_grpc.add_SigningServiceServicer_to_server(self, self._server)
        answers = health.aio.HealthServicer()
        await answers.set("hsmsigner.v1.SigningService", health_pb2.HealthCheckResponse.NOT_SERVING)
        audit_pb2_grpc.add_AuditServiceServicer_to_server(self, self._server)
        service = FakeKeyService(self)  # type: ignore[abstract] # gRPC answers UNIMPLEMENTED to the rest
        keys_pb2_grpc.add_KeyServiceServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(answers, self._server)
        leaf = self.authority.server
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        credentials = grpc.ssl_server_credentials(
            [(leaf.private_key_pem.bytes(), chain)], self.authority.ca.cert_pem.bytes(), require_client_auth=True
        )
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self._server.start()

    def _outcome(self, request: signing_pb2.SignRequest) -> Outcome:
        times = self.seen[request.request_id]
        self.seen[request.request_id] += 1
        self.was_asked.set()
        return self.behave(request, times)

    async def Sign(self, request: signing_pb2.SignRequest, context: Any) -> signing_pb2.SignResponse:  # noqa: N802
        outcome = self._outcome(request)
        if outcome == SILENCE:
            await asyncio.Event().wait()
        if not isinstance(outcome, signing_pb2.SignResult):
            await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            raise AssertionError  # noqa: TRY004 - never reached; tells the type checker that abort raises
        if outcome.WhichOneof("outcome") == "error":
            context.set_trailing_metadata((("grpc-status-details-bin", outcome.error.SerializeToString()),))
            code = next(code for code in grpc.StatusCode if code.value[0] == outcome.error.code)
            await context.abort(code, outcome.error.message)
        return outcome.response

    async def BatchSign(  # noqa: N802
        self, request: signing_pb2.BatchSignRequest, _context: Any
    ) -> signing_pb2.BatchSignResponse:
        outcomes = [self._outcome(item) for item in request.requests]
        return signing_pb2.BatchSignResponse(
            results=[item for item in outcomes if isinstance(item, signing_pb2.SignResult)]
        )

    async def StreamSign(  # noqa: N802
        self, request_iterator: AsyncIterator[signing_pb2.StreamSignRequest], context: Any
    ) -> AsyncIterator[signing_pb2.StreamSignResponse]:
        self.streams += 1
        self.principals.update(
            value.decode() for value in context.auth_context().get("x509_subject_alternative_name", ())
        )
        held: list[signing_pb2.SignResult] = []
        async for frame in request_iterator:
            self.frames.append(len(frame.requests))
            for request in frame.requests:
                outcome = self._outcome(request)
                if isinstance(outcome, signing_pb2.SignResult):
                    held.append(outcome)
                elif isinstance(outcome, EndStream):
                    details = outcome.status.SerializeToString()
                    context.set_trailing_metadata((("grpc-status-details-bin", details),))
                    await context.abort(grpc.StatusCode.PERMISSION_DENIED, outcome.status.message)
                elif outcome == BREAK:
                    yield signing_pb2.StreamSignResponse(results=held)
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            if len(held) >= self.hold:
                yield signing_pb2.StreamSignResponse(results=held[::-1])
                held.clear()

    async def GetPublicKey(  # noqa: N802
        self, request: signing_pb2.GetPublicKeyRequest, _context: Any
    ) -> resources_pb2.PublicKey:
        return resources_pb2.PublicKey(name=request.name, der=b"der", der_crc32c=1)

    async def ListPublicKeys(  # noqa: N802
        self, request: signing_pb2.ListPublicKeysRequest, _context: Any
    ) -> signing_pb2.ListPublicKeysResponse:
        page = int(request.page_token or 0)
        key = resources_pb2.PublicKey(
            name=f"keys/k{page}/versions/1", der=b"der", der_crc32c=google_crc32c.value(b"der")
        )
        return signing_pb2.ListPublicKeysResponse(public_keys=[key], next_page_token=str(page + 1) if page < 2 else "")

    async def ListAuditRecords(  # noqa: N802
        self, request: audit_pb2.ListAuditRecordsRequest, _context: Any
    ) -> audit_pb2.ListAuditRecordsResponse:
        start = int(request.page_token or request.start_sequence)
        records = [audit_pb2.AuditRecord(sequence=number) for number in range(start, min(start + request.page_size, 7))]
        token = str(start + request.page_size) if start + request.page_size < 7 else ""
        head = audit_pb2.TreeHead(size=start + 100)
        return audit_pb2.ListAuditRecordsResponse(records=records, next_page_token=token, tree_head=head)


class FakeKeyService(keys_pb2_grpc.KeyServiceServicer):
    """Watching, and one verb that answers with what it was asked; the rest is UNIMPLEMENTED."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def WatchKeys(  # noqa: N802
        self, _request: keys_pb2.WatchKeysRequest, context: Any
    ) -> AsyncIterator[keys_pb2.WatchKeysResponse]:
        self._server.watches += 1
        sent: object = None
        while True:
            wanted = self._server.key_set
            if isinstance(wanted, status_pb2.Status):
                context.set_trailing_metadata((("grpc-status-details-bin", wanted.SerializeToString()),))
                await context.abort(grpc.StatusCode.PERMISSION_DENIED, wanted.message)
            elif wanted != sent:
                sent, (epoch, names) = wanted, wanted
                yield keys_pb2.WatchKeysResponse(
                    epoch=epoch,
                    public_keys=[
                        resources_pb2.PublicKey(name=name, der=b"der", der_crc32c=google_crc32c.value(b"der"))
                        for name in names
                    ],
                )
            await asyncio.sleep(0.01)

    async def ListContinuityStatements(  # noqa: N802
        self, request: keys_pb2.ListContinuityStatementsRequest, _context: Any
    ) -> keys_pb2.ListContinuityStatementsResponse:
        page = int(request.page_token or 0)
        statement = resources_pb2.ContinuityStatement(old_version=f"{request.parent}/versions/{page + 1}")
        return keys_pb2.ListContinuityStatementsResponse(
            statements=[statement], next_page_token=str(page + 1) if page < 2 else ""
        )

    async def UpdateKey(  # noqa: N802
        self, request: keys_pb2.UpdateKeyRequest, _context: Any
    ) -> resources_pb2.Key:
        return resources_pb2.Key(name=request.name, rotation_policy=request.rotation_policy)
