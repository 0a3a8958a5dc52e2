"""Many sign() calls over one StreamSign stream: coalesced, matched by request_id, sent again when the stream breaks.

Everything here runs on one event loop. A request is answered once: its entry leaves `_pending` with the first answer,
and later ones for the same id find nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError

from hsmsigner.client.errors import (
    InvalidRequest,
    OutcomeUnknown,
    Refused,
    SigningClientError,
    Unavailable,
    error_of_call,
)
from hsmsigner.client.pending import Pending, Place, Waiter, give
from hsmsigner.client.values import PreparedRequest, read_result
from hsmsigner.pb import signing_pb2

SignStream = grpc.aio.StreamStreamCall[bytes, signing_pb2.StreamSignResponse]


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of one stream. The window keeps a burst of calls from filling the server's queue and being sent away.

    `first_pause_s` doubles with every failure in a row up to `longest_pause_s`.
    """

    frame_items: int = 256
    frame_bytes: int = 2**20
    window_items: int = 2048
    window_bytes: int = 32 * 2**20
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0
    close_grace_s: float = 0.5

    def pause_s(self, failures: int, hint_s: float = 0.0) -> float:
        """How long to wait after this many failures in a row: never less than the server's hint, and spread out."""
        doubled = self.first_pause_s * 2.0 ** min(failures, 16)
        return max(hint_s, min(doubled, self.longest_pause_s) / 2) * random.uniform(1.0, 1.5)  # noqa: S311 - jitter


class Multiplexer:
    """The one stream of a client. Build it, and call every method, on the event loop it lives in."""

    def __init__(self, open_stream: Callable[[], SignStream], limits: StreamLimits = StreamLimits()) -> None:
        self._open_stream = open_stream
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._pending: dict[str, Pending] = {}
        self._queue: deque[Pending] = deque()
        self._work = asyncio.Event()
        self._on_stream = 0
        self._on_stream_bytes = 0
        self._last_break = ""
        self._has_answered = False
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_at = float("inf")
        self._stream: SignStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def submit(self, request: PreparedRequest, waiter: Waiter, deadline: float) -> None:
        """Send a request as soon as the stream takes it; `waiter` gets the outcome by `deadline` (monotonic) at last.

        The same id with the same body, while the first is under way, shares its outcome; with another body it is
        refused at once.
        """
        if self._is_closed:
            give(waiter, Unavailable("CLIENT_CLOSED", "the client was closed; nothing was sent"))
            return
        if deadline < self._sweep_at:
            self._sweep_by(deadline)
        known = self._pending.get(request.request_id)
        if known is None or not (known.is_wanted or known.place is Place.STREAM):
            entry = Pending(request, [(waiter, deadline)])
            self._pending[request.request_id] = entry
            self._enqueue(entry)
        elif known.request.frame == request.frame:
            known.waiters.append((waiter, deadline))
        elif known.is_wanted:
            message = f"{request.request_id} is under way with another body"
            give(waiter, InvalidRequest("REQUEST_ID_REUSED", message))
        else:
            message = f"{request.request_id} was given up with another body, and its answer may still come; retry"
            give(waiter, Unavailable("REQUEST_IN_PROGRESS", message))
        if self._task is None:
            self._task = self._loop.create_task(self._keep_streaming())

    async def close(self) -> None:
        """End the stream; whoever still has no answer after a moment is told that the outcome is unknown."""
        self._is_closed = True
        self._work.set()
        if self._task is not None:
            # In order if it can be. Events of a call that outlives its loop would make gRPC complain on other loops, so
            # the call is cancelled first, and the task that reads it only when even that does not end it.
            _, busy = await asyncio.wait([self._task], timeout=self._limits.close_grace_s)
            if busy and self._stream is not None:
                self._stream.cancel()
                _, busy = await asyncio.wait([self._task], timeout=self._limits.close_grace_s)
            if busy:
                self._task.cancel()
                await asyncio.wait([self._task])
        if self._sweep is not None:
            self._sweep.cancel()
        for entry in self._pending.values():
            kind = OutcomeUnknown if entry.sends else Unavailable
            entry.resolve(kind("CLIENT_CLOSED", "the client was closed before the answer came"))
        self._pending.clear()

    def _enqueue(self, entry: Pending) -> None:
        entry.place = Place.QUEUE
        self._queue.append(entry)
        self._work.set()

    async def _keep_streaming(self) -> None:
        failures = 0
        await self._work.wait()
        while not self._is_closed:
            self._has_answered = False
            error = await self._converse()
            self._last_break = error.message if error is not None else ""
            self._take_back(error)
            failures = 0 if self._has_answered else failures + 1
            if not self._is_closed:
                await asyncio.sleep(self._limits.pause_s(failures))
                await self._work.wait()

    async def _converse(self) -> SigningClientError | None:
        """Use one stream until it ends; gives the error it ended with, None when the server closed it in order."""
        stream = self._stream = self._open_stream()
        writer = self._loop.create_task(self._write_frames(stream))
        try:
            while (frame := await stream.read()) is not grpc.aio.EOF:
                self._settle(frame)  # type: ignore[arg-type] # not EOF
        except grpc.aio.AioRpcError as error:
            return error_of_call(error, changes_something=True)
        except DecodeError as error:
            return OutcomeUnknown("UNREADABLE_ANSWER", f"the server sent a frame that is no answer: {error}")
        finally:
            writer.cancel()
            stream.cancel()
            await asyncio.wait([writer])
        return None

    async def _write_frames(self, stream: SignStream) -> None:
        # A broken stream ends the reader, which carries the reason; the writer only stops.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await stream.wait_for_connection()
            while True:
                await self._work.wait()
                self._work.clear()
                while frame := self._next_frame():
                    await stream.write(frame)
                if self._is_closed:
                    await stream.done_writing()
                    return

    def _next_frame(self) -> bytes:
        """Join what waits, within the bounds of a frame and of the window; empty when nothing may be sent now."""
        limits = self._limits
        parts: list[bytes] = []
        size = 0
        while self._queue and len(parts) < limits.frame_items and self._on_stream < limits.window_items:
            entry = self._queue[0]
            part = entry.request.frame
            if parts and size + len(part) > limits.frame_bytes:
                break
            if self._on_stream and self._on_stream_bytes + len(part) > limits.window_bytes:
                break
            self._queue.popleft()
            if self._pending.get(entry.request.request_id) is not entry:
                continue
            if not entry.is_wanted:
                del self._pending[entry.request.request_id]
                continue
            entry.place = Place.STREAM
            entry.sends += 1
            self._on_stream += 1
            self._on_stream_bytes += len(part)
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _settle(self, frame: signing_pb2.StreamSignResponse) -> None:
        self._has_answered = True
        for result in frame.results:
            entry = self._pending.get(result.request_id)
            if entry is None or entry.place is not Place.STREAM:
                continue  # answered before, by this stream or by one that broke
            answer = read_result(entry.request, result)
            if isinstance(answer, SigningClientError) and self._comes_again(entry, answer):
                continue
            self._remove(entry)
            entry.resolve(answer)
        if self._queue:
            self._work.set()

    def _comes_again(self, entry: Pending, error: SigningClientError) -> bool:
        """Put an item that was told "not now" back for later, if its callers have the time."""
        if not (entry.is_wanted and error.is_worth_repeating):
            return False
        pause_s = self._limits.pause_s(entry.refusals, error.retry_after_s or 0.0)
        if time.monotonic() + pause_s >= entry.last_deadline:
            return False
        self._leave_stream(entry)
        entry.place = Place.PAUSE
        entry.refusals += 1
        entry.last_refusal = error
        self._loop.call_later(pause_s, self._resume, entry)
        return True

    def _resume(self, entry: Pending) -> None:
        if self._pending.get(entry.request.request_id) is entry and entry.place is Place.PAUSE:
            self._enqueue(entry)

    def _take_back(self, error: SigningClientError | None) -> None:
        """After a stream ended: queue what it left unanswered, first things first, or give up what it refused."""
        unanswered = [entry for entry in self._pending.values() if entry.place is Place.STREAM]
        self._on_stream = self._on_stream_bytes = 0
        for entry in unanswered:
            entry.place = Place.QUEUE
            if not entry.is_wanted:
                # Its answer cannot come any more.
                del self._pending[entry.request.request_id]
        self._queue.extendleft(reversed(unanswered))
        if isinstance(error, Refused | InvalidRequest):
            for entry in list(self._pending.values()):
                self._remove(entry)
                entry.resolve(self._refusal_of(entry, error))
            self._queue.clear()
        if self._queue:
            self._work.set()
        else:
            self._work.clear()

    def _refusal_of(self, entry: Pending, error: SigningClientError) -> SigningClientError:
        # A stream that answered before it was refused may have signed this item too.
        if entry.sends > 1 or (entry.sends and self._has_answered):
            return OutcomeUnknown("CONNECTION_LOST", f"the stream ended before the answer: {error.message}")
        return error

    def _remove(self, entry: Pending) -> None:
        self._leave_stream(entry)
        del self._pending[entry.request.request_id]

    def _leave_stream(self, entry: Pending) -> None:
        if entry.place is Place.STREAM:
            self._on_stream -= 1
            self._on_stream_bytes -= len(entry.request.frame)

    def _sweep_by(self, deadline: float) -> None:
        # One timer for all: a timer per call would cost more than the rest of the call.
        if self._sweep is not None:
            self._sweep.cancel()
        self._sweep_at = deadline
        self._sweep = self._loop.call_later(max(0.0, deadline - time.monotonic()), self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        for entry in list(self._pending.values()):
            entry.expire(now, self._last_break)
            # On the stream it stays until its answer came, which would else be taken for that of a later request with
            # the same id.
            if not entry.is_wanted and entry.place is not Place.STREAM:
                self._remove(entry)
        self._sweep_at = float("inf")
        self._sweep = None
        deadlines = [deadline for entry in self._pending.values() for _, deadline in entry.waiters]
        if deadlines:
            self._sweep_by(min(deadlines))
        if self._queue:
            self._work.set()
