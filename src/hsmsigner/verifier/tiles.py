"""The tree over a log as it grows, held against the tiles that an export has of it (C2SP tlog-tiles, height 8)."""

from __future__ import annotations

from hashlib import sha256

from hsmsigner.verifier.fault import VerificationError
from hsmsigner.verifier.folder import Folder
from hsmsigner.verifier.merkle import HASH_SIZE, fold

WIDTH = 256
_TILE_BYTES = WIDTH * HASH_SIZE
_HEIGHT = 8


def tile_path(level: int, number: int, width: int = WIDTH) -> str:
    """Where a tile lies: `tile/0/x001/234`, and `.p/<width>` below that when it is partial."""
    groups = [f"{number % 1000:03}"]
    while number := number // 1000:
        groups.append(f"x{number % 1000:03}")
    whole = f"tile/{level}/{'/'.join(reversed(groups))}"
    return whole if width == WIDTH else f"{whole}.p/{width}"


class TileTree:
    """A tree that grows leaf by leaf; each tile is compared as soon as it is full, partial ones by `finish`."""

    def __init__(self, folder: Folder) -> None:
        self.size = 0
        self._folder = folder
        # Roots of perfect subtrees along the right edge, largest first, as chain.Edge keeps them.
        self._edge: list[bytes] = []
        self._tiles = [bytearray()]

    @property
    def root(self) -> bytes:
        """Merkle tree hash of the leaves so far."""
        return fold(self._edge)

    def add(self, leaf: bytes) -> None:
        """Add a leaf hash.

        Raises:
            VerificationError: `missing`, `path`, `format` or `tile`.
        """
        size, edge, node = self.size, self._edge, leaf
        self.size = size + 1
        tile = self._tiles[0]
        tile += leaf
        height = 0
        full = []
        while size & 1:
            node = sha256(b"\x01" + edge.pop() + node).digest()
            size >>= 1
            height += 1
            if not height % _HEIGHT and self._fill(height // _HEIGHT, node):
                full.append(height // _HEIGHT)
        edge.append(node)
        if len(tile) == _TILE_BYTES:
            # Before the levels above: a fault here names one record, one there names many.
            for level in (0, *full):
                self._compare(level)

    def finish(self) -> None:
        """Compare the partial tiles along the right edge.

        Raises:
            VerificationError: `missing`, `path`, `format` or `tile`.
        """
        for level, tile in enumerate(self._tiles):
            if tile:
                self._compare(level)

    def stored_leaf(self, index: int, size: int) -> bytes | None:
        """The hash of record `index` as the tiles of a tree of this size have it; None when they cannot be read."""
        number = index // WIDTH
        width = min(WIDTH, size - number * WIDTH)
        try:
            content = self._folder.read(tile_path(0, number, width), _TILE_BYTES)
        except (VerificationError, OSError):
            return None
        place = index % WIDTH * HASH_SIZE
        return content[place : place + HASH_SIZE] if len(content) == width * HASH_SIZE else None

    def first_differing(self, size: int) -> int | None:
        """The first record of the tile at hand whose hash is not the stored one; None when there is none."""
        tile, first = self._tiles[0], self.size - len(self._tiles[0]) // HASH_SIZE
        for place in range(first, self.size):
            stored = self.stored_leaf(place, size)
            at = (place - first) * HASH_SIZE
            if stored is not None and stored != tile[at : at + HASH_SIZE]:
                return place
        return None

    def _fill(self, level: int, node: bytes) -> bool:
        if level == len(self._tiles):
            self._tiles.append(bytearray())
        self._tiles[level] += node
        return len(self._tiles[level]) == _TILE_BYTES

    def _compare(self, level: int) -> None:
        tile = self._tiles[level]
        width = len(tile) // HASH_SIZE
        number = ((self.size >> (_HEIGHT * level)) - 1) // WIDTH
        path = tile_path(level, number, width)
        stored = self._folder.read(path, _TILE_BYTES)
        if stored != tile:
            raise self._fault(level, number, path, stored)
        tile.clear()

    def _fault(self, level: int, number: int, path: str, stored: bytes) -> VerificationError:
        tile = self._tiles[level]
        if len(stored) != len(tile):
            return VerificationError("tile", None, f"{path} has {len(stored)} bytes, and must have {len(tile)}")
        places = [slice(place, place + HASH_SIZE) for place in range(0, len(tile), HASH_SIZE)]
        differing = [place for place, part in enumerate(places) if stored[part] != tile[part]]
        first = (number * WIDTH + differing[0]) << (_HEIGHT * level)
        last = first + (1 << (_HEIGHT * level)) - 1
        if level == 0 and differing == list(range(differing[0], len(places))) and len(differing) > 1:
            # Each record holds the hash of the one before it: who changes one has to change all that follow.
            message = f"record {first} and those after it are not the ones whose hashes are in {path}"
            return VerificationError("changed", first, message)
        whose = f"record {first}" if first == last else f"records {first} to {last}"
        return VerificationError(
            "tile", first if first == last else None, f"hash {differing[0]} of {path} is not that of {whose}"
        )


def stored_leaves(folder: Folder, size: int, number: int) -> list[bytes]:
    """The leaf hashes in tile `number` of level 0 of a tree of this size.

    Raises:
        VerificationError: `missing`, `path` or `format`.
    """
    width = min(WIDTH, size - number * WIDTH)
    path = tile_path(0, number, width)
    content = folder.read(path, _TILE_BYTES)
    if len(content) != width * HASH_SIZE:
        raise VerificationError("tile", None, f"{path} has {len(content)} bytes, and must have {width * HASH_SIZE}")
    return [content[place : place + HASH_SIZE] for place in range(0, len(content), HASH_SIZE)]
