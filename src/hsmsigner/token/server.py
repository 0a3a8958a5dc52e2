"""The worker's socket: takes frames, starts calls, sends answers as they finish, and stops without losing one."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from google.protobuf.message import DecodeError

from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.protocol import FrameConnection, encode_frame
from hsmsigner.token.service import TokenService
from hsmsigner.token.unix import peer_uid

_LOGGER = logging.getLogger(__name__)

_FLUSH_S = 2.0


class TokenServer:
    """Runs on the event loop, which it is built on; only `stop_soon` may be called from other threads."""

    def __init__(self, service: TokenService, frame_limit: int) -> None:
        self.frame_limit = frame_limit
        self._service = service
        self._loop = asyncio.get_running_loop()
        self._connections: set[_WorkerConnection] = set()
        self._under_way = 0
        self._changed = asyncio.Event()
        self._stop_cause = ""
        self._exit_code: asyncio.Future[int] = self._loop.create_future()

    async def serve(self, listener: socket.socket) -> int:
        """Serve until told to stop; every call that was started has been answered when this returns the exit code."""
        server = await self._loop.create_unix_server(lambda: _WorkerConnection(self), sock=listener)
        exit_code = await self._exit_code
        server.close()
        await self._until(lambda: self._under_way == 0)
        for connection in tuple(self._connections):
            connection.transport.close()
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self._until(lambda: not self._connections)
        except TimeoutError:
            _LOGGER.warning("a frontend did not take its last answers")
        return exit_code

    def stop(self, exit_code: int, cause: str) -> None:
        """Start no more calls, finish those under way, then let `serve` return."""
        self._stop_cause = self._stop_cause or cause
        if not self._exit_code.done():
            self._exit_code.set_result(exit_code)

    def stop_soon(self, exit_code: int, cause: str) -> None:
        """Call `stop` from another thread."""
        self._loop.call_soon_threadsafe(self.stop, exit_code, cause)

    def start_call(self, call: pb.WorkerCall, connection: _WorkerConnection) -> None:
        """Start on a call, or refuse it when stopping."""
        if self._stop_cause:
            connection.send(encode_frame(self._service.refuse(call, self._stop_cause)))
            return

        def reply(answer: pb.WorkerAnswer) -> None:
            # Serialised here, on the pool's thread: the loop only writes.
            self._loop.call_soon_threadsafe(self._finish, connection, encode_frame(answer))

        self._under_way += 1
        self._service.submit(call, reply)

    def opened(self, connection: _WorkerConnection) -> None:
        """Keep a connection."""
        self._connections.add(connection)

    def forget(self, connection: _WorkerConnection) -> None:
        """Drop a connection that is gone."""
        self._connections.discard(connection)
        self._changed.set()

    def _finish(self, connection: _WorkerConnection, frame: bytes) -> None:
        self._under_way -= 1
        connection.send(frame)
        self._changed.set()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


class _WorkerConnection(FrameConnection):
    """One frontend. A frame that is not understood costs it this connection and nothing else."""

    def __init__(self, server: TokenServer) -> None:
        super().__init__(server.frame_limit)
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let in processes of our own user only, whatever the socket file's mode has become."""
        super().connection_made(transport)
        uid = peer_uid(transport.get_extra_info("socket"))
        if uid != os.geteuid():
            _LOGGER.warning("a process of user id %d was refused", uid)
            self.transport.abort()
            return
        self._server.opened(self)

    def frame_received(self, frame: bytes) -> None:
        """Start on the call in a frame."""
        try:
            call = pb.WorkerCall.FromString(frame)
        except DecodeError:
            _LOGGER.warning("a frame was not understood; its connection is closed")
            self.transport.abort()
            return
        self._server.start_call(call, self)

    def closed(self) -> None:
        """Tell the server; answers still under way are dropped when they come."""
        self._server.forget(self)

    def send(self, frame: bytes) -> None:
        """Write an answer, if there still is somebody to read it."""
        if self.is_open:
            self.transport.write(frame)
