"""Copying and checking stores: to the disk before it is believed, and opened before it is trusted."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from hsmsigner.backup.manifest import FileEntry
from hsmsigner.errors import ConfigurationError
from hsmsigner.store.inspection import StoreState, StoreUnreadableError, inspect_store

Progress = Callable[[str], None]

_CHUNK = 2**20
_PAGES_AT_ONCE = 4096
_BUSY_S = 30.0


def copy_store(source: Path, target: Path, progress: Progress) -> None:
    """Copy a store that may be written to meanwhile: the copy is one state that it had, whole.

    Raises:
        sqlite3.Error, OSError: it cannot be read or the copy not be written.
    """
    # Made here, since SQLite would let others read it.
    write_file(target, io.BytesIO())
    with (
        closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None)) as old,
        closing(sqlite3.connect(target, isolation_level=None)) as new,
    ):
        # A read transaction around all of it: without one, every commit of the appliance would begin the copy anew.
        old.execute("BEGIN")
        old.execute("SELECT log_size FROM appliance").fetchone()

        def report(_status: int, remaining: int, total: int) -> None:
            progress(f"copying the store: {100 * (total - remaining) // max(total, 1)} %")

        old.backup(new, pages=_PAGES_AT_ONCE, progress=report, sleep=0)


def require_whole(database: Path) -> StoreState:
    """See that a store which nobody uses is whole, and that its log ends as it was written.

    Raises:
        ConfigurationError: it is not so.
    """
    try:
        return inspect_store(database)
    except StoreUnreadableError as error:
        raise ConfigurationError(f"{database} {error}") from error


def write_file(path: Path, source: BinaryIO, progress: Progress | None = None, expected: int = 0) -> FileEntry:
    """Write a new file, readable by its owner alone, and have it on the disk; returns what was written.

    Raises:
        OSError: it cannot be written, or is there already.
    """
    digest, count = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as target:
        while chunk := source.read(_CHUNK):
            target.write(chunk)
            digest.update(chunk)
            count += len(chunk)
            if progress is not None:
                progress(f"writing {path.name}: {100 * count // max(expected, count)} %")
        target.flush()
        os.fsync(target.fileno())
    return FileEntry(digest.hexdigest(), count)


def hash_file(path: Path) -> FileEntry:
    """What a file holds, which is on the disk when this returns."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileEntry(digest, file.tell())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
