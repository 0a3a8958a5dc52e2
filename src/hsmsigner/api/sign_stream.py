"""One StreamSign stream: frames in, frames out, each answer as soon as its record is durable."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial

from hsmsigner.api.authn import Authenticator, Caller, current_caller
from hsmsigner.api.convert import Converter
from hsmsigner.errors import SignerError, invalid_field
from hsmsigner.operations.jobs import Answer
from hsmsigner.operations.sign import MAX_BATCH, Asked, Signing
from hsmsigner.pb import signing_pb2

# Beyond this many unanswered the stream is not read: HTTP/2 flow control then holds the client back.
MAX_UNANSWERED = 4096
MAX_UNANSWERED_BYTES = 16 * 2**20
_MAX_FRAME_ITEMS = 512
_MAX_FRAME_BYTES = 2 * 2**20


class SignStream:
    """Reads in one task, answers in another; `_ready` is what the answers' callbacks have left for the writer."""

    def __init__(
        self,
        signing: Signing,
        converter: Converter,
        authenticator: Authenticator,
        draining: asyncio.Event,
        deadline_s: float | None,
    ) -> None:
        self._signing = signing
        self._converter = converter
        self._authenticator = authenticator
        self._draining = draining
        self._deadline_s = deadline_s
        # Request id, answer, and how many bytes the request had: an answer may be a third larger (JWS).
        self._ready: deque[tuple[str, Answer, int]] = deque()
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        # Nobody reads the answers any more.
        self._is_over = False

    async def serve(
        self, requests: AsyncIterator[signing_pb2.StreamSignRequest]
    ) -> AsyncIterator[signing_pb2.StreamSignResponse]:
        """Answer frames until the client has half-closed (or the appliance stops) and all is answered.

        Raises:
            SignerError: the frame itself is wrong, or the certificate is no longer good; ends the stream.
        """
        reading = asyncio.create_task(self._read(requests, current_caller()))
        stopping = asyncio.create_task(self._draining.wait())
        for task in (reading, stopping):
            task.add_done_callback(lambda _: self._changed.set())
        try:
            while self._ready or self._unanswered or not (reading.done() or stopping.done()):
                await self._changed.wait()
                self._changed.clear()
                while self._ready:
                    yield self._frame()
            if reading.done():
                reading.result()
        finally:
            # A client that goes away takes back what is not decided yet; what is authorized is signed and recorded, and
            # a retry finds it.
            self._is_over = True
            reading.cancel()
            stopping.cancel()

    async def _read(self, requests: AsyncIterator[signing_pb2.StreamSignRequest], caller: Caller) -> None:
        async for frame in requests:
            self._authenticator.recheck(caller)
            if not 1 <= len(frame.requests) <= MAX_BATCH:
                raise invalid_field("requests", f"must have 1-{MAX_BATCH} items, not {len(frame.requests)}")
            self._start(frame, caller)
            await self._room.wait()

    def _start(self, frame: signing_pb2.StreamSignRequest, caller: Caller) -> None:
        good: list[Asked] = []
        callbacks: list[Callable[[Answer], None]] = []
        for index, item in enumerate(frame.requests):
            size = item.ByteSize()
            self._unanswered += 1
            self._unanswered_bytes += size
            try:
                good.append(self._converter.asked(item, caller.principal, f"requests[{index}]."))
                callbacks.append(partial(self._answer, item.request_id, size))
            except SignerError as error:
                self._answer(item.request_id, size, error)
        if good:
            self._signing.submit(good, callbacks, self._deadline_s, is_abandoned=lambda: self._is_over)
        if self._unanswered >= MAX_UNANSWERED or self._unanswered_bytes >= MAX_UNANSWERED_BYTES:
            self._room.clear()

    def _answer(self, request_id: str, size: int, answer: Answer) -> None:
        self._ready.append((request_id, answer, size))
        self._changed.set()

    def _frame(self) -> signing_pb2.StreamSignResponse:
        frame = signing_pb2.StreamSignResponse()
        results = frame.results
        filled = 0
        while self._ready and len(results) < _MAX_FRAME_ITEMS and filled < _MAX_FRAME_BYTES:
            request_id, answer, size = self._ready.popleft()
            self._converter.fill_result(results.add(), answer, request_id)
            filled += size
        self._unanswered -= len(results)
        self._unanswered_bytes -= filled
        if self._unanswered < MAX_UNANSWERED and self._unanswered_bytes < MAX_UNANSWERED_BYTES:
            self._room.set()
        return frame
