"""An SSH agent with one Ed25519 key: litewitness signs through one, and has no other way to get at a key."""

from __future__ import annotations

import hashlib
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_REQUEST_IDENTITIES, _IDENTITIES, _SIGN_REQUEST, _SIGNED, _FAILURE = 11, 12, 13, 14, 5


def fingerprint(key: Ed25519PrivateKey) -> str:
    """How litewitness is told which key of the agent to take."""
    return hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()


@contextmanager
def agent(path: Path, key: Ed25519PrivateKey) -> Iterator[None]:
    """Serve at a Unix socket (draft-ietf-sshm-ssh-agent, section 3)."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.read(4):
                (length,) = struct.unpack(">I", head)
                answer = _answer(key, self.rfile.read(length))
                self.wfile.write(_string(answer))

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _answer(key: Ed25519PrivateKey, request: bytes) -> bytes:
    public = _string(b"ssh-ed25519") + _string(key.public_key().public_bytes_raw())
    if request[:1] == bytes([_REQUEST_IDENTITIES]):
        return bytes([_IDENTITIES]) + struct.pack(">I", 1) + _string(public) + _string(b"witness")
    if request[:1] == bytes([_SIGN_REQUEST]):
        asked, rest = _cut(request[1:])
        message, _flags = _cut(rest)
        if asked == public:
            return bytes([_SIGNED]) + _string(_string(b"ssh-ed25519") + _string(key.sign(message)))
    return bytes([_FAILURE])


def _string(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def _cut(data: bytes) -> tuple[bytes, bytes]:
    (length,) = struct.unpack(">I", data[:4])
    return data[4 : 4 + length], data[4 + length :]
