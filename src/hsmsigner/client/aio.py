"""The client for asyncio programs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from hsmsigner.client.aio_audit import AsyncAuditCalls
from hsmsigner.client.aio_certificates import AsyncCertificateCalls
from hsmsigner.client.aio_keys import AsyncKeyCalls
from hsmsigner.client.channel import Connection, change, change_until_answered, read
from hsmsigner.client.credentials import Profile
from hsmsigner.client.errors import ChecksumMismatch, SigningClientError
from hsmsigner.client.multiplexer import Multiplexer
from hsmsigner.client.values import (
    PreparedRequest,
    Signature,
    SignItem,
    batch_call,
    prepare,
    read_response,
    read_result,
)
from hsmsigner.pb import policy_pb2, signing_pb2

_ADMIN_TIMEOUT_S = 30.0


class AsyncSignerClient(AsyncKeyCalls, AsyncCertificateCalls, AsyncAuditCalls):
    """One connection to an appliance. Build it, and call every method, on one event loop.

    Every method raises `SigningClientError`, by its subclasses as `errors.py` explains them. A call whose outcome is
    unknown may be made again with the same `request_id`.
    """

    def __init__(self, profile: Profile) -> None:
        self._connection = Connection(profile)
        self._multiplexer = Multiplexer(self._connection.open_stream)
        self._loop = asyncio.get_running_loop()

    @classmethod
    def from_profile(cls, path: Path) -> Self:
        """Connect as a profile file says.

        Raises:
            ProfileError: the profile cannot be used.
        """
        return cls(Profile.load(path))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls still waiting end with CLIENT_CLOSED."""
        await self._multiplexer.close()
        await self._connection.close()

    async def sign(
        self,
        name: str,
        message: bytes | None = None,
        *,
        digest: bytes | None = None,
        request_id: str | None = None,
        output_format: str = "RAW",
        labels: Mapping[str, str] | None = None,
        validate_only: bool = False,
        timeout_s: float = 30.0,
        unary: bool = False,
    ) -> Signature:
        """Sign one message (or digest) with a key, within `timeout_s`, retries included.

        Goes over the client's one stream, or as a call of its own with `unary`, or where it is very large.
        """
        request = prepare(SignItem(name, message, digest, request_id, output_format, labels, validate_only))
        if unary or request.is_large:
            return await self.sign_alone(request, timeout_s)
        waiter: asyncio.Future[Signature] = self._loop.create_future()
        self._multiplexer.submit(request, waiter, time.monotonic() + timeout_s)
        return await waiter

    async def sign_alone(self, request: PreparedRequest, timeout_s: float) -> Signature:
        """Sign in a call of its own; for the sync client, which prepares requests itself."""
        response = await change_until_answered(self._connection.signing.Sign, request.message(), timeout_s)
        answer = read_response(request, response)
        if isinstance(answer, ChecksumMismatch):
            raise answer
        return answer

    @property
    def multiplexer(self) -> Multiplexer:
        """For the sync client, which hands requests over itself."""
        return self._multiplexer

    async def batch_sign(
        self, items: Sequence[SignItem], *, all_or_nothing: bool = False, timeout_s: float = 30.0
    ) -> list[Signature | SigningClientError]:
        """Sign 1 to 1024 items, 8 MiB in all, in one call; one outcome per item, in order.

        Items are not retried by themselves.
        """
        requests = [prepare(item) for item in items]
        call = batch_call(requests, all_or_nothing=all_or_nothing)
        response = await change_until_answered(self._connection.signing.BatchSign, call, timeout_s)
        if len(response.results) != len(requests):
            raise ChecksumMismatch(
                "UNREADABLE_ANSWER", f"{len(requests)} items were sent, {len(response.results)} came back"
            )
        return [_outcome(request, result) for request, result in zip(requests, response.results, strict=True)]

    async def get_policy(self) -> policy_pb2.Policy:
        """The revision in force."""
        return await read(self._connection.policy.GetPolicy, policy_pb2.GetPolicyRequest(), _ADMIN_TIMEOUT_S)

    async def validate_policy(self, document: str) -> policy_pb2.ValidatePolicyResponse:
        """Every fault of a document, which is not published."""
        request = policy_pb2.ValidatePolicyRequest(document=document)
        return await read(self._connection.policy.ValidatePolicy, request, _ADMIN_TIMEOUT_S)

    async def publish_policy(
        self, document: str, *, comment: str, expected_revision: int = 0, allow_lockout: bool = False
    ) -> policy_pb2.Policy:
        """Put a document in force. Never repeated by itself: it has no `request_id`."""
        request = policy_pb2.PublishPolicyRequest(
            document=document, comment=comment, expected_revision=expected_revision, allow_lockout=allow_lockout
        )
        return await change(self._connection.policy.PublishPolicy, request, _ADMIN_TIMEOUT_S)

    async def health(self, service: str = "", timeout_s: float = 5.0) -> bool:
        """Whether the appliance (or one of its services, as in `hsmsigner.v1.SigningService`) can do its work."""
        return await self._connection.health(service, timeout_s)


def _outcome(request: PreparedRequest, result: signing_pb2.SignResult) -> Signature | SigningClientError:
    if result.request_id != request.request_id:
        return ChecksumMismatch(
            "UNREADABLE_ANSWER", f"asked as {request.request_id}, answered as {result.request_id[:64]!r}"
        )
    return read_result(request, result)
