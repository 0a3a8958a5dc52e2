"""Frames on the worker's Unix socket: a big-endian uint32 length, then that many bytes. Shared by both ends."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import cast

from google.protobuf.message import Message

from hsmsigner.config import LimitSettings
from hsmsigner.errors import ConfigurationError

_HEADER_BYTES = 4
# sun_path of sockaddr_un, less the closing zero (unix(7)).
_SOCKET_PATH_BYTES = 107


def frame_limit(limits: LimitSettings) -> int:
    """Longest frame either end takes, in bytes: all messages that may wait, and as much again for what is around."""
    return 2 * limits.queue_bytes + limits.message_bytes


def socket_address(path: Path) -> str:
    """Check that a path fits a Unix socket's address.

    Raises:
        ConfigurationError: it is too long.
    """
    address = str(path)
    if len(os.fsencode(address)) > _SOCKET_PATH_BYTES:
        raise ConfigurationError(
            f"the path {address} is too long for a socket (at most {_SOCKET_PATH_BYTES} bytes); use a shorter state_dir"
        )
    return address


def encode_frame(message: Message) -> bytes:
    """Serialise a message with its length before it."""
    payload = message.SerializeToString()
    return len(payload).to_bytes(_HEADER_BYTES, "big") + payload


class FrameConnection(asyncio.Protocol, ABC):
    """One connection: cuts what arrives into frames, and aborts on a frame longer than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    @abstractmethod
    def frame_received(self, frame: bytes) -> None:
        """Take one frame, without its length."""

    @abstractmethod
    def closed(self) -> None:
        """Learn that the connection is gone."""

    @property
    def transport(self) -> asyncio.Transport:
        """The transport, once connected."""
        if self._transport is None:
            raise RuntimeError("not connected yet")
        return self._transport

    @property
    def is_open(self) -> bool:
        """Whether what is written now has a chance to arrive."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are no subclasses of asyncio's, so only the type checker can be told.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames."""
        buffer = self._buffer
        buffer += data
        position = 0
        while len(buffer) - position >= _HEADER_BYTES and self.is_open:
            begin = position + _HEADER_BYTES
            end = begin + int.from_bytes(buffer[position:begin], "big")
            if end - begin > self._limit:
                self.transport.abort()
                return
            if len(buffer) < end:
                break
            self.frame_received(bytes(buffer[begin:end]))
            position = end
        del buffer[:position]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Tell the subclass."""
        self.closed()
