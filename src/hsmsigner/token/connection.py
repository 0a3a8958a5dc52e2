"""The frontend's end of one connection to the worker: answers find their calls by id."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.protocol import FrameConnection


class NotSentError(Exception):
    """Nothing reached the worker."""


class NoAnswerError(Exception):
    """The call was sent, and what became of it is not known."""


class ClientConnection(FrameConnection):
    """One connection with the calls that wait for an answer on it. `gone` is done once it is lost."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._waiting: dict[int, asyncio.Future[pb.WorkerAnswer]] = {}
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def exchange(self, call_id: int, frame: bytes) -> pb.WorkerAnswer:
        """Send one frame and wait for the answer with its id.

        Raises:
            NoAnswerError: the connection was lost.
        """
        future: asyncio.Future[pb.WorkerAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[call_id] = future
        try:
            self.transport.write(frame)
            return await future
        finally:
            del self._waiting[call_id]

    def frame_received(self, frame: bytes) -> None:
        """Hand an answer to its call; one whose caller has gone is dropped."""
        try:
            answer = pb.WorkerAnswer.FromString(frame)
        except DecodeError:
            self.transport.abort()
            return
        future = self._waiting.get(answer.id)
        if future is not None and not future.done():
            future.set_result(answer)

    def closed(self) -> None:
        """Fail whatever waits."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(NoAnswerError("the connection to the token worker was lost"))
        if not self.gone.done():
            self.gone.set_result(None)
