"""Bytes that a client of ours would never send, over real mTLS to a whole appliance: typed errors, bounded memory."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import google_crc32c
import grpc
import pytest

from hsmsigner.pb import signing_pb2, signing_pb2_grpc
from tests.e2e.appliance import KEY, Appliance, running_appliance

DETAILS = "grpc-status-details-bin"
UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    with running_appliance(tmp_path_factory.mktemp("wire")) as running:
        yield running


def channel(appliance: Appliance, who: str = "engine") -> grpc.Channel:
    tls = appliance.state / "tls"
    files = [(tls / name).read_bytes() for name in ("ca.pem", f"{who}-key.pem", f"{who}.pem")]
    options = [*UNBOUNDED, ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"127.0.0.1:{appliance.port}", grpc.ssl_channel_credentials(*files), options)


def jws_request(message: bytes) -> signing_pb2.SignRequest:
    return signing_pb2.SignRequest(
        name=KEY,
        request_id=str(uuid.uuid4()),
        message=message,
        input_crc32c=google_crc32c.value(message),
        output_format=signing_pb2.OUTPUT_FORMAT_JWS_COMPACT,
    )


def is_typed(error: grpc.RpcError) -> bool:
    return any(item[0] == DETAILS for item in error.trailing_metadata() or ())  # type: ignore[index]  # a named tuple


def resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.parametrize("body", [b"\x0a\x02\xff\xfe", b"\x0a\xff"], ids=["not UTF-8", "cut off"])
def test_bytes_that_are_no_message_get_a_typed_error(appliance: Appliance, body: bytes) -> None:
    with channel(appliance) as connection:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = connection.unary_unary("/hsmsigner.v1.SigningService/Sign")
        with pytest.raises(grpc.RpcError) as refused:
            call(body, timeout=10)
    assert refused.value.code() is not grpc.StatusCode.UNKNOWN
    assert is_typed(refused.value)
    assert "<class" not in str(refused.value.details())


def test_a_batch_that_was_signed_can_also_be_answered(appliance: Appliance) -> None:
    batch = signing_pb2.BatchSignRequest(requests=[jws_request(os.urandom(2**20)) for _ in range(7)])
    with channel(appliance) as connection:
        stub = signing_pb2_grpc.SigningServiceStub(connection)
        answer = stub.BatchSign(batch, timeout=60)
    assert len(answer.results) == 7


def test_a_client_without_a_grant_cannot_fill_the_frontends_memory(appliance: Appliance) -> None:
    (frontend,) = appliance.children("frontend")

    def ask() -> None:
        request = signing_pb2.GetPublicKeyRequest(name="k" * (48 * 2**20))
        with channel(appliance, "stranger") as connection, suppress(grpc.RpcError):
            signing_pb2_grpc.SigningServiceStub(connection).GetPublicKey(request, timeout=30)

    before = resident_mib(frontend)
    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert resident_mib(frontend) - before < 300
