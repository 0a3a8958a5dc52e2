"""Whether the files of an open SQLite store still are those that it was opened with."""

from __future__ import annotations

import os

from sqlalchemy import make_url

_SUFFIXES = ("", "-wal", "-shm")

# Device and inode; zeros for what is not there.
_Identity = tuple[int, int]


class StoreFiles:
    """Database, WAL and the WAL's index, by device and inode. A store that is no file has none, and never changes."""

    def __init__(self, url: str) -> None:
        database = make_url(url).database
        self._paths = tuple(database + suffix for suffix in _SUFFIXES) if database else ()
        self._identities: tuple[_Identity, ...] = ()

    def keep(self) -> None:
        """Take those there are now for the right ones."""
        self._identities = self._look(self._paths)

    def is_same_database(self) -> bool:
        """Whether the database is there and the one kept; true before the first `keep`."""
        return self._look(self._paths[:1]) == self._identities[:1] if self._identities else True

    def are_same(self) -> bool:
        """Whether all are. What is written into a WAL that was deleted is durable nowhere."""
        return self._look(self._paths) == self._identities

    @staticmethod
    def _look(paths: tuple[str, ...]) -> tuple[_Identity, ...]:
        return tuple(map(_identity, paths))


def _identity(path: str) -> _Identity:
    try:
        status = os.stat(path)  # noqa: PTH116 - measured: Path.stat costs twice as much
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
