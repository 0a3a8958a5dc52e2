"""The connection: channel options, the stubs on it, and single calls with their errors translated."""

from __future__ import annotations

import asyncio
import time
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hsmsigner.client.credentials import Profile
from hsmsigner.client.errors import SigningClientError, error_of_call
from hsmsigner.client.multiplexer import SignStream, StreamLimits
from hsmsigner.pb import audit_pb2_grpc, keys_pb2_grpc, policy_pb2_grpc, signing_pb2, signing_pb2_grpc

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

# Answers, and the largest single message that a server may be configured to take; see also `values.REQUEST_BYTES`.
_MESSAGE_BYTES = 65 * 2**20
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
    # A peer that vanished without a word is noticed after 40 s while calls are under way.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Ours is the pause between attempts (multiplexer); gRPC's own, up to 2 minutes, must not outlast it.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 2_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Two clients in one process have two connections.
    ("grpc.use_local_subchannel_pool", 1),
)


class Connection:
    """One channel to one server. Build it and use it on one event loop."""

    def __init__(self, profile: Profile) -> None:
        self._channel = grpc.aio.secure_channel(
            profile.server, profile.credentials.channel_credentials(), options=_OPTIONS
        )
        self.signing: signing_pb2_grpc.SigningServiceAsyncStub = signing_pb2_grpc.SigningServiceStub(self._channel)
        self.keys: keys_pb2_grpc.KeyServiceAsyncStub = keys_pb2_grpc.KeyServiceStub(self._channel)
        self.policy: policy_pb2_grpc.PolicyServiceAsyncStub = policy_pb2_grpc.PolicyServiceStub(self._channel)
        self.audit: audit_pb2_grpc.AuditServiceAsyncStub = audit_pb2_grpc.AuditServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)
        # Not the stub's method: frames are already bytes (values.PreparedRequest).
        self._stream_sign: grpc.aio.StreamStreamMultiCallable[bytes, signing_pb2.StreamSignResponse] = (
            self._channel.stream_stream(
                "/hsmsigner.v1.SigningService/StreamSign",
                response_deserializer=signing_pb2.StreamSignResponse.FromString,
            )
        )

    def open_stream(self) -> SignStream:
        """Begin a StreamSign; it fails when it is read, if the server cannot be reached."""
        return self._stream_sign()

    async def health(self, service: str, timeout_s: float) -> bool:
        """Whether the service says SERVING; an unknown service is not serving.

        Raises:
            SigningClientError: no answer.
        """
        try:
            answer = await self._health.Check(health_pb2.HealthCheckRequest(service=service), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise error_of_call(error, changes_something=False) from error
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def close(self) -> None:
        """Close the channel; calls under way on it are cancelled."""
        await self._channel.close()


async def read(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout_s: float
) -> _Response:
    """Call a method that changes nothing.

    Raises:
        SigningClientError: as the server said, or Unavailable when it could not be reached.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error, changes_something=False) from error


async def change(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response], request: _Request, timeout_s: float
) -> _Response:
    """Call a method that changes something, once.

    Raises:
        SigningClientError: as the server said, or OutcomeUnknown when the call broke.
    """
    try:
        return await method(request, timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise error_of_call(error, changes_something=True) from error


async def change_until_answered(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    timeout_s: float,
    *,
    broken_for_s: float | None = None,
) -> _Response:
    """The same for a request with `request_id`s: sent again, unchanged, while it is told "not now" or breaks.

    `broken_for_s` is how long broken connections are put up with, where that is less than `timeout_s`.

    Raises:
        SigningClientError: the answer, or the last obstacle when the time is up.
    """
    begin = time.monotonic()
    deadline = begin + timeout_s
    broken_until = begin + (timeout_s if broken_for_s is None else broken_for_s)
    limits = StreamLimits()
    failures = 0
    while True:
        try:
            return await change(method, request, deadline - time.monotonic())
        except SigningClientError as error:
            pause_s = limits.pause_s(failures, error.retry_after_s or 0.0)
            next_try = time.monotonic() + pause_s
            is_broken = error.reason == "CONNECTION_LOST"
            if not (is_broken or error.is_worth_repeating) or next_try >= (broken_until if is_broken else deadline):
                raise
        failures += 1
        await asyncio.sleep(pause_s)
