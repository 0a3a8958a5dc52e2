"""Places off the box that get every checkpoint: a folder (a mount, an object store's), or an HTTP endpoint."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path

from hsmsigner.operations.ports.log import Checkpoint
from hsmsigner.operations.ports.witness import Fault, FaultKind
from hsmsigner.witness.exchange import Endpoint, exchange

NEWEST, ALL = "checkpoint", "checkpoints"
# Origin, size and root: what two notes of one checkpoint have in common.
_HEAD_LINES = 3
# More than any note has.
_MOST_NOTE_BYTES = 64 * 1024


class FolderTarget:
    """`checkpoint` is the newest one, `checkpoints/SIZE` each of them. What is there is never replaced by less.

    A file system off the box may hang for hours, so writing has a thread of its own, which nobody waits for at the end.
    """

    def __init__(self, folder: Path, timeout_s: float) -> None:
        self._folder = folder
        self._timeout_s = timeout_s
        self._writing: Future[Fault | None] | None = None

    @property
    def shown(self) -> str:
        """The folder."""
        return f"file://{self._folder}"

    async def push(self, checkpoint: Checkpoint) -> Fault | None:
        """Write it in, by renaming whole files; only when they are durable, this returns."""
        if self._writing is not None and not self._writing.done():
            return Fault(FaultKind.TIMED_OUT, "an earlier write still hangs")
        self._writing = _in_thread(self._folder, checkpoint)
        try:
            # Shielded: a thread cannot be cancelled, and its end must be seen before another one begins.
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._writing)), self._timeout_s)
        except TimeoutError:
            return Fault(FaultKind.TIMED_OUT, f"not written within {self._timeout_s:g} s")


class HttpTarget:
    """PUT of the note to `URL/SIZE` and to `URL/latest`."""

    def __init__(self, endpoint: Endpoint, timeout_s: float) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    @property
    def shown(self) -> str:
        """The URL without credentials and query."""
        return self._endpoint.shown

    async def push(self, checkpoint: Checkpoint) -> Fault | None:
        """Put it under its size first: who reads `latest` finds that one too."""
        for name in (str(checkpoint.size), "latest"):
            reply = await exchange(
                self._endpoint,
                "PUT",
                f"/{name}",
                checkpoint.note.encode(),
                content_type="text/plain; charset=utf-8",
                timeout_s=self._timeout_s,
            )
            if isinstance(reply, Fault):
                return reply
            if not 200 <= reply.status < 300:  # noqa: PLR2004 - success, in HTTP
                return Fault(FaultKind.REFUSED, f"answered HTTP {reply.status} to PUT {name}")
        return None


def _in_thread(folder: Path, checkpoint: Checkpoint) -> Future[Fault | None]:
    """Write in a daemon thread: one that hangs in the kernel must not keep the process from ending."""
    future: Future[Fault | None] = Future()

    def write() -> None:
        try:
            future.set_result(_write(folder, checkpoint))
        except OSError as error:
            future.set_result(Fault(FaultKind.UNREACHABLE, f"cannot be written ({type(error).__name__})"))
        except BaseException as error:  # noqa: BLE001 - a thread has nobody else to tell
            future.set_exception(error)

    threading.Thread(target=write, name="push", daemon=True).start()
    return future


def _write(folder: Path, checkpoint: Checkpoint) -> Fault | None:
    every = folder / ALL
    every.mkdir(parents=True, exist_ok=True)
    one, newest = every / str(checkpoint.size), folder / NEWEST
    stored = _read(one)
    if stored is not None and _head(stored) != _head(checkpoint.note):
        size = checkpoint.size
        message = f"has another checkpoint of {size} records: this log was forked, or the folder is not its own"
        return Fault(FaultKind.CONTRADICTED, message)
    _replace(one, checkpoint.note)
    shown = _read(newest)
    if shown is not None and _size(shown) > checkpoint.size:
        message = f"has a checkpoint of {_size(shown)} records, more than {checkpoint.size}: this log went back"
        return Fault(FaultKind.CONTRADICTED, message)
    _replace(newest, checkpoint.note)
    return None


def _replace(path: Path, note: str) -> None:
    """Put a whole file in place; a crash leaves the old one or the new one."""
    waiting = path.with_name(f".{path.name}.{os.getpid()}.new")
    with waiting.open("wb") as file:
        file.write(note.encode())
        file.flush()
        os.fsync(file.fileno())
    waiting.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MOST_NOTE_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _head(note: str) -> list[str]:
    return note.split("\n")[:_HEAD_LINES]


def _size(note: str) -> int:
    """Size that a file's note says; 0 for what is no note and may be replaced."""
    lines = _head(note)
    is_size = len(lines) == _HEAD_LINES and lines[1].isascii() and lines[1].isdecimal()
    return int(lines[1][:20]) if is_size else 0
