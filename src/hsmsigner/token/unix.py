"""Unix sockets, locks and peers: how the worker knows its supervisor, its twin and who calls."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import time
from pathlib import Path

from hsmsigner.errors import ConfigurationError

_UCRED = struct.Struct("3i")
_START_TIME_FIELD = 19


def peer_uid(connection: socket.socket) -> int:
    """User id of the process at the other end of a Unix socket, as the kernel recorded it (unix(7), SO_PEERCRED)."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _pid, uid, _gid = _UCRED.unpack(credentials)
    return int(uid)


def supervisor_identity() -> str:
    """Process id and start time of our parent; together they are never used twice on one boot."""
    parent = os.getppid()
    try:
        # Fields after the command name in brackets, which may hold blanks (proc(5)).
        fields = Path(f"/proc/{parent}/stat").read_text("utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return str(parent)
    return f"{parent} {fields[_START_TIME_FIELD]}"


def hold_lock(path: Path, patience_s: float) -> int | None:
    """Take the lock that keeps a second worker off the token; None when another process keeps it. Held until we end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                return None
            # A killed worker's lock goes with it, which takes a moment when it was inside a C call.
            time.sleep(0.05)
        else:
            return descriptor


def private_folder(path: Path) -> None:
    """Make a folder that only we may enter.

    Raises:
        ConfigurationError: it cannot be made, or is somebody else's.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise ConfigurationError(f"the folder {path} cannot be made private: {error.strerror}") from error


def listening_socket(address: str) -> socket.socket:
    """Bind a Unix socket that only our user may open, in place of a stale one.

    Raises:
        ConfigurationError: the address cannot be used.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        # The caller holds the lock, so what lies here belongs to a process that is gone.
        Path(address).unlink(missing_ok=True)
        listener.bind(address)
        Path(address).chmod(0o600)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror}") from error
    return listener
