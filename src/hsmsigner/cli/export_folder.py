"""The folder of an exported log (docs/log-format.md): segments, tiles, checkpoints. Knows files, not the server.

Each file is written beside its place and renamed into it, and a segment comes after its tiles: what is there is whole,
whenever an export is broken off, and the next one goes on from it.
"""

from __future__ import annotations

import gzip
import json
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hsmsigner.errors import ConfigurationError
from hsmsigner.transparency.checkpoint import CheckpointBody, parse_checkpoint
from hsmsigner.transparency.merkle import leaf_hash, split_hashes
from hsmsigner.transparency.note import NoteError
from hsmsigner.transparency.proof import TILE_SIZE, TiledTree, tile_root
from hsmsigner.verifier import VerificationError

FORMAT = "hsmsigner-export@v1"
TILES_OF_SEGMENT = 256
SEGMENT = TILE_SIZE * TILES_OF_SEGMENT


class ExportFolder:
    """One folder, empty or with an earlier export of the same log in it."""

    def __init__(self, folder: Path) -> None:
        """Read what it says of itself.

        Raises:
            ConfigurationError: `export.json` cannot be read.
        """
        self.path = folder
        head = self._read_json("export.json")
        self.origin: str | None = head.get("origin")
        self.first: int | None = head.get("first")
        self.size: int = head.get("size", 0)
        if head and not (isinstance(self.origin, str) and type(self.first) is int and type(self.size) is int):
            raise _damaged(folder, "export.json")

    def newest(self) -> CheckpointBody | None:
        """The checkpoint that the export here goes up to; None where there is none.

        Raises:
            ConfigurationError: it cannot be read.
        """
        if not self.size:
            return None
        try:
            return parse_checkpoint((self.path / "checkpoint").read_text("utf-8"))
        except (NoteError, FileNotFoundError, UnicodeDecodeError) as error:
            raise _damaged(self.path, "checkpoint") from error

    def require_records(self, number: int) -> None:
        """See that a segment has every record that its tiles have the hash of.

        Raises:
            VerificationError: `missing`, `format` or `changed`.
        """
        path = self._segment(number)
        if not self.has_segment(number):
            raise VerificationError("missing", number * SEGMENT, f"{path}, or a tile over it, is missing")
        try:
            with gzip.open(path) as file:
                leaves = [leaf_hash(line.removesuffix(b"\n")) for line in file]
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise VerificationError("format", number * SEGMENT, f"{path} cannot be unpacked: {error}") from error
        tiles = range(number * TILES_OF_SEGMENT, (number + 1) * TILES_OF_SEGMENT)
        if leaves != [leaf for tile in tiles for leaf in self._read_tile(0, tile)]:
            message = f"{path} does not have the records whose hashes are in the tiles"
            raise VerificationError("changed", number * SEGMENT, message)

    def has_segment(self, number: int) -> bool:
        """Whether a full segment is there, and all of its tiles."""
        tiles = range(number * TILES_OF_SEGMENT, (number + 1) * TILES_OF_SEGMENT)
        return self._segment(number).exists() and all(self.has_tile(0, tile) for tile in tiles)

    def has_tile(self, level: int, number: int) -> bool:
        """Whether a full tile is there."""
        return (self.path / tile_path(level, number)).exists()

    def root_at(self, size: int) -> bytes:
        """Root of the tree when it had this size, from the tiles."""
        return TiledTree(size, self._read_tile).root()

    def write_segment(self, number: int, records: Iterable[tuple[int, bytes]]) -> None:
        """Write the records of a segment, in order, and the tiles over them.

        Raises:
            VerificationError: they are not in order, or one is not a line.
        """
        target = self._segment(number)
        target.parent.mkdir(parents=True, exist_ok=True)
        waiting = target.with_name(target.name + ".part")
        leaves: list[bytes] = []
        first = number * SEGMENT
        # No time stamp: the same records give the same file.
        with waiting.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
            for sequence, record in records:
                if sequence != first + len(leaves):
                    message = f"the server gave record {sequence} where record {first + len(leaves)} must stand"
                    raise VerificationError("gap", first + len(leaves), message)
                if b"\n" in record:
                    message = f"record {sequence} has a line break, which no record has"
                    raise VerificationError("unparsable", sequence, message)
                file.write(record + b"\n")
                leaves.append(leaf_hash(record))
        for start in range(0, len(leaves), TILE_SIZE):
            self.write_tile(0, number * TILES_OF_SEGMENT + start // TILE_SIZE, leaves[start : start + TILE_SIZE])
        waiting.replace(target)

    def write_tile(self, level: int, number: int, hashes: Sequence[bytes]) -> None:
        """Write a tile, full or as far as the tree goes."""
        path = self.path / tile_path(level, number, len(hashes))
        # Narrower ones are of a smaller tree.
        shutil.rmtree(self.path / (tile_path(level, number) + ".p"), ignore_errors=True)
        self._write(path, b"".join(hashes))

    def write_upper_tiles(self, size: int) -> bytes:
        """Write the tiles above level 0, from those of level 0; returns the root of the tree."""
        level, count = 0, size
        while count >= TILE_SIZE:
            roots = [tile_root(self._read_tile(level, number)) for number in range(count // TILE_SIZE)]
            level, count = level + 1, len(roots)
            for start in range(0, count, TILE_SIZE):
                self.write_tile(level, start // TILE_SIZE, roots[start : start + TILE_SIZE])
        return self.root_at(size)

    def write_checkpoints(self, found: Iterable[tuple[int, dict[str, str]]]) -> None:
        """Write checkpoints, given with their sizes, besides those that are there already."""
        by_size = {_size_of(line["note"]): line for line in self._old_checkpoints()} | dict(found)
        lines = [json.dumps(by_size[size], ensure_ascii=False) + "\n" for size in sorted(by_size)]
        self._write(self.path / "checkpoints.jsonl.gz", gzip.compress("".join(lines).encode(), mtime=0))

    def finish(self, origin: str, first: int, size: int, note: str, log_key: dict[str, Any]) -> None:
        """Write what says that the export is whole."""
        self._write(self.path / "log-key.json", (json.dumps(log_key, indent=2) + "\n").encode())
        self._write(self.path / "checkpoint", note.encode())
        head = {"format": FORMAT, "origin": origin, "first": first, "size": size}
        self._write(self.path / "export.json", (json.dumps(head) + "\n").encode())

    def _old_checkpoints(self) -> Iterator[dict[str, str]]:
        path = self.path / "checkpoints.jsonl.gz"
        if not path.exists():
            return
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                for line in map(json.loads, file):
                    _size_of(line["note"])
                    yield line
        except (gzip.BadGzipFile, EOFError, zlib.error, ValueError, LookupError, TypeError, AttributeError) as error:
            raise _damaged(self.path, path.name) from error

    def _read_tile(self, level: int, number: int) -> list[bytes]:
        """Hashes of a tile: the full one, or the widest partial one there is."""
        path = self.path / tile_path(level, number)
        if not path.exists():
            path = max(path.with_name(path.name + ".p").iterdir(), key=lambda part: int(part.name))
        return split_hashes(path.read_bytes())

    def _segment(self, number: int) -> Path:
        return self.path / "records" / f"{number:06d}.jsonl.gz"

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise _damaged(self.path, name) from error
        if not isinstance(content, dict):
            raise _damaged(self.path, name)
        return content

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        waiting = path.with_name(path.name + ".part")
        waiting.write_bytes(content)
        waiting.replace(path)


def tile_path(level: int, number: int, width: int = TILE_SIZE) -> str:
    """Path of a tile in the layout of C2SP tlog-tiles, as in tile/0/x001/234 or tile/1/000.p/17."""
    groups = f"{number:0{-(-len(str(number)) // 3) * 3}d}"
    parts = [groups[start : start + 3] for start in range(0, len(groups), 3)]
    path = f"tile/{level}/" + "/".join([*(f"x{part}" for part in parts[:-1]), parts[-1]])
    return path if width == TILE_SIZE else f"{path}.p/{width}"


def _damaged(folder: Path, name: str) -> ConfigurationError:
    message = f"{name} in {folder} cannot be read: keep the folder as it is, and export into an empty one"
    return ConfigurationError(message)


def _size_of(note: str) -> int:
    return int(note.split("\n", 2)[1])
