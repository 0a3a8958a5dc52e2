"""Reading files that an enemy may have written: plain files below one folder only, and never too much of them."""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Self

from hsmsigner.verifier.fault import VerificationError, shown

# A record that publishes a policy of 256 KiB, every character of it escaped, is a third of this.
MAX_LINE_BYTES = 2**22
_CHUNK_BYTES = 2**20
# NONBLOCK: opening a pipe that somebody left here must not wait for its other end.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Folder:
    """A folder whose inside is not trusted. The folder itself may be reached over links: the user named it."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            OSError: it cannot be opened.
        """
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, name: str, limit: int) -> bytes:
        """A whole file of at most `limit` bytes.

        Raises:
            VerificationError: `missing`, `path` or `format`.
            OSError: it cannot be read.
        """
        with open(self._open(name), "rb") as file:  # noqa: PTH123 - a descriptor
            content = file.read(limit + 1)
        if len(content) > limit:
            raise VerificationError("format", None, f"{name} is larger than {limit} bytes")
        return content

    def lines(self, name: str) -> Iterator[bytes]:
        """Lines of a gzip file, without their line feeds, however large it is when unpacked.

        Raises:
            VerificationError: `missing`, `path` or `format`.
            OSError: it cannot be read.
        """
        with open(self._open(name), "rb") as file, gzip.GzipFile(fileobj=file) as unpacked:  # noqa: PTH123
            begun = b""
            while chunk := _next_chunk(unpacked, name):
                *lines, begun = (begun + chunk).split(b"\n")
                yield from lines
                if len(begun) > MAX_LINE_BYTES:
                    raise VerificationError("format", None, f"{name} has a line of more than {MAX_LINE_BYTES} bytes")
            if begun:
                raise VerificationError("format", None, f"{name} ends within a line")

    def _open(self, name: str) -> int:
        """Step by step, so that no part of the path can lead elsewhere."""
        *folders, last = PurePosixPath(name).parts
        at = os.dup(self._descriptor)
        try:
            for folder in folders:
                below = os.open(folder, _FLAGS | os.O_DIRECTORY, dir_fd=at)
                os.close(at)
                at = below
            found = os.open(last, _FLAGS, dir_fd=at)
        except FileNotFoundError as error:
            raise VerificationError("missing", None, f"{name} is missing") from error
        except OSError as error:
            if not self._is_odd(name):
                raise
            message = f"{name} is a link, or no plain file in plain folders: it leads out of the export"
            raise VerificationError("path", None, message) from error
        finally:
            os.close(at)
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise VerificationError("path", None, f"{name} is no plain file")
        return found

    def _is_odd(self, name: str) -> bool:
        """Whether links or other kinds of files are why it could not be opened."""
        path = self.path
        *folders, last = PurePosixPath(name).parts
        with suppress(OSError):
            for folder in folders:
                path /= folder
                if not stat.S_ISDIR(path.lstat().st_mode):
                    return True
            return not stat.S_ISREG((path / last).lstat().st_mode)
        return False


def read_file(path: Path, limit: int) -> bytes:
    """A file the user named, of at most `limit` bytes.

    Raises:
        VerificationError: `format`, it is larger.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise VerificationError("format", None, f"{path.name} is larger than {limit} bytes")
    return content


def _next_chunk(unpacked: gzip.GzipFile, name: str) -> bytes:
    try:
        return unpacked.read(_CHUNK_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise VerificationError("format", None, f"{name} cannot be unpacked: {shown(str(error))}") from error
