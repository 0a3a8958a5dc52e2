"""The client for programs with threads: the asyncio client on an event loop of its own, in one background thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from hsmsigner.client.aio import AsyncSignerClient
from hsmsigner.client.credentials import Profile
from hsmsigner.client.errors import OutcomeUnknown, SigningClientError, Unavailable
from hsmsigner.client.sync_audit import AuditCalls
from hsmsigner.client.sync_keys import CertificateCalls, KeyCalls
from hsmsigner.client.values import PreparedRequest, Signature, SignItem, prepare
from hsmsigner.pb import policy_pb2

_Result = TypeVar("_Result")

# The loop answers every call at its deadline; a thread waits this much longer before it calls the loop dead.
_SLACK_S = 10.0


class SignerClient(KeyCalls, CertificateCalls, AuditCalls):
    """One connection to an appliance, for any number of threads; their sign() calls share one stream.

    Methods and errors are those of `AsyncSignerClient`. Not to be used in a child after a fork.
    """

    def __init__(self, profile: Profile) -> None:
        self._inbox: deque[tuple[PreparedRequest, Future[Signature], float]] = deque()
        self._is_woken = False
        self._is_closed = False
        self._loop = _new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hsmsigner-client", daemon=True)
        self._thread.start()
        self._client = asyncio.run_coroutine_threadsafe(_connect(profile), self._loop).result()

    @classmethod
    def from_profile(cls, path: Path) -> Self:
        """Connect as a profile file says.

        Raises:
            ProfileError: the profile cannot be used.
        """
        return cls(Profile.load(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread; calls still waiting end with CLIENT_CLOSED."""
        if self._is_closed:
            return
        self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        await self._client.close()
        # A thread that got past the check of _is_closed has its call answered here, by the closed multiplexer.
        self._hand_over()

    def sign(
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
        """Sign one message (or digest) with a key, within `timeout_s`, retries included."""
        # Prepared in the caller's thread, so that a wrong request is its caller's error and costs the loop nothing.
        request = prepare(SignItem(name, message, digest, request_id, output_format, labels, validate_only))
        if unary or request.is_large:
            return self._run(self._client.sign_alone(request, timeout_s))
        waiter: Future[Signature] = Future()
        self._post(request, waiter, time.monotonic() + timeout_s)
        try:
            return waiter.result(timeout_s + _SLACK_S)
        except TimeoutError:
            raise OutcomeUnknown("NO_ANSWER_IN_TIME", f"no answer to {request.request_id} in time") from None

    def _post(self, request: PreparedRequest, waiter: Future[Signature], deadline: float) -> None:
        if self._is_closed:
            raise Unavailable("CLIENT_CLOSED", "the client was closed; nothing was sent")
        self._inbox.append((request, waiter, deadline))
        # Append, then look; the loop resets, then takes. In this order no request is left behind, and a burst from
        # many threads costs one wake-up.
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._hand_over)

    def _hand_over(self) -> None:
        self._is_woken = False
        while self._inbox:
            self._client.multiplexer.submit(*self._inbox.popleft())

    def batch_sign(
        self, items: Sequence[SignItem], *, all_or_nothing: bool = False, timeout_s: float = 30.0
    ) -> list[Signature | SigningClientError]:
        """Sign 1 to 1024 items, 8 MiB in all, in one call; one outcome per item, in order.

        Items are not retried by themselves.
        """
        return self._run(self._client.batch_sign(items, all_or_nothing=all_or_nothing, timeout_s=timeout_s))

    def get_policy(self) -> policy_pb2.Policy:
        """The revision in force."""
        return self._run(self._client.get_policy())

    def validate_policy(self, document: str) -> policy_pb2.ValidatePolicyResponse:
        """Every fault of a document, which is not published."""
        return self._run(self._client.validate_policy(document))

    def publish_policy(
        self, document: str, *, comment: str, expected_revision: int = 0, allow_lockout: bool = False
    ) -> policy_pb2.Policy:
        """Put a document in force. Never repeated by itself: it has no `request_id`."""
        return self._run(
            self._client.publish_policy(
                document, comment=comment, expected_revision=expected_revision, allow_lockout=allow_lockout
            )
        )

    def health(self, service: str = "", timeout_s: float = 5.0) -> bool:
        """Whether the appliance (or one of its services) can do its work."""
        return self._run(self._client.health(service, timeout_s))

    def _run(self, call: Coroutine[Any, Any, _Result]) -> _Result:
        if self._is_closed:
            call.close()
            raise Unavailable("CLIENT_CLOSED", "the client was closed; nothing was sent")
        running = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return running.result()
        except BaseException:
            # Also a KeyboardInterrupt in this thread: nobody waits for the call any more.
            running.cancel()
            raise


async def _connect(profile: Profile) -> AsyncSignerClient:
    return AsyncSignerClient(profile)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - optional, and only this client wants it
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
