"""The public keys that a verifier needs, kept current by the server, also after the connection broke."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import grpc

from hsmsigner.client.errors import SigningClientError, Unavailable, error_of_call
from hsmsigner.client.multiplexer import StreamLimits
from hsmsigner.client.values import check_public_key
from hsmsigner.pb import keys_pb2, resources_pb2

WatchStream = grpc.aio.UnaryStreamCall[keys_pb2.WatchKeysRequest, keys_pb2.WatchKeysResponse]


@dataclass(frozen=True, slots=True)
class KeySet:
    """Every public key the caller may see, at one epoch of the appliance, by name of its version."""

    epoch: int
    public_keys: Mapping[str, resources_pb2.PublicKey]

    def get(self, version: str) -> resources_pb2.PublicKey | None:
        """The public key of a version, as a signature names it."""
        return self.public_keys.get(version)


async def watch(open_stream: Callable[[], WatchStream]) -> AsyncIterator[KeySet]:
    """Every new key set, the first at once; reconnects for ever, and gives no epoch twice in a row.

    Raises:
        SigningClientError: the server says no, and would again.
    """
    limits, failures, epoch = StreamLimits(), 0, None
    while True:
        try:
            async for answer in open_stream():
                failures = 0
                if answer.epoch != epoch:
                    epoch = answer.epoch
                    yield KeySet(epoch, {key.name: check_public_key(key) for key in answer.public_keys})
        except grpc.aio.AioRpcError as error:
            refusal = error_of_call(error, changes_something=False)
            if not isinstance(refusal, Unavailable):
                raise refusal from error
        # An appliance that restarts ends its streams in order, or breaks them: both are over soon.
        await asyncio.sleep(limits.pause_s(failures))
        failures += 1


class KeySetCache:
    """Holds the newest key set: `async with client.watch_keys() as keys: keys.current.get(signature.name)`.

    `current` may be read from any thread. While the connection is broken it is what was last known.
    """

    def __init__(self, open_stream: Callable[[], WatchStream]) -> None:
        self._open_stream = open_stream
        self._current: KeySet | None = None
        self._failure: SigningClientError | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def current(self) -> KeySet:
        """The newest key set.

        Raises:
            SigningClientError: the server refused to go on, or the cache was not started.
        """
        if self._failure is not None:
            raise self._failure.copy()
        if self._current is None:
            raise Unavailable("UNREACHABLE", "no key set has come yet")
        return self._current

    async def start(self, timeout_s: float = 30.0) -> None:
        """Begin to watch, and wait for the first key set.

        Raises:
            SigningClientError: none came in time, or the server refused.
        """
        self._task = asyncio.create_task(self._follow())
        try:
            await self.wait_for(lambda _: True, timeout_s)
        except BaseException:
            await self.close()
            raise

    async def wait_for(self, is_wanted: Callable[[KeySet], bool], timeout_s: float = 30.0) -> KeySet:
        """The current key set, as soon as it is one that is wanted.

        Raises:
            SigningClientError: none came in time, or the server refused.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._is_over(is_wanted))
        except TimeoutError:
            raise Unavailable("UNREACHABLE", f"no such key set came within {timeout_s:g} s") from None
        return self.current

    async def close(self) -> None:
        """Stop watching."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _is_over(self, is_wanted: Callable[[KeySet], bool]) -> bool:
        return self._failure is not None or (self._current is not None and is_wanted(self._current))

    async def _follow(self) -> None:
        try:
            async for key_set in watch(self._open_stream):
                await self._set(key_set, None)
        except SigningClientError as error:
            await self._set(self._current, error)
        except asyncio.CancelledError:
            # gRPC cancels whoever reads when the channel is closed under it: no key set would come any more.
            if self._is_closing:
                raise
            await self._set(self._current, Unavailable("CLIENT_CLOSED", "the client was closed"))

    async def _set(self, key_set: KeySet | None, failure: SigningClientError | None) -> None:
        async with self._changed:
            self._current, self._failure = key_set, failure
            self._changed.notify_all()
