"""Inclusion and consistency proofs of RFC 9162 sections 2.1.3 and 2.1.4, over a tree kept in tiles.

A tile has up to 256 hashes of one level (C2SP tlog-tiles): tile (0, n) has the leaf hashes 256 n to 256 n + 255, tile
(L, n) the roots of the tiles (L - 1, 256 n) to (L - 1, 256 n + 255). A proof of a tree of n leaves reads at most two
tiles of each level.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hsmsigner.transparency.merkle import EMPTY_ROOT, TILE_HEIGHT, TILE_SIZE, node_hash

__all__ = ["TILE_HEIGHT", "TILE_SIZE", "ReadTile", "TiledTree", "tile_root"]

# Gets level and number of a tile; gives the hashes it has by now, at least those that the tree of the proof has.
ReadTile = Callable[[int, int], Sequence[bytes]]


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """Root over the hashes of a tile or of any perfect part of one: a power of two of them."""
    nodes = list(hashes)
    while len(nodes) > 1:
        nodes = [node_hash(nodes[index], nodes[index + 1]) for index in range(0, len(nodes), 2)]
    return nodes[0]


class TiledTree:
    """The tree of the first `size` leaves. Tiles are read when they are needed, each once."""

    def __init__(self, size: int, read_tile: ReadTile) -> None:
        self.size = size
        self._read_tile = read_tile
        self._tiles: dict[tuple[int, int], Sequence[bytes]] = {}

    def root(self) -> bytes:
        """Merkle tree hash; SHA-256 of nothing for the empty tree."""
        return self._range(0, self.size) if self.size else EMPTY_ROOT

    def inclusion_proof(self, index: int) -> list[bytes]:
        """PATH(index, D[size]) of RFC 9162 section 2.1.3.1.

        Raises:
            LookupError: the tree has no such leaf.
        """
        if not 0 <= index < self.size:
            raise LookupError(f"a tree of {self.size} leaves has no leaf {index}")
        path: list[bytes] = []
        start, end = 0, self.size
        while end - start > 1:
            middle = start + _largest_power_below(end - start)
            if index < middle:
                path.append(self._range(middle, end))
                end = middle
            else:
                path.append(self._range(start, middle))
                start = middle
        return path[::-1]

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """PROOF(old_size, D[size]) of RFC 9162 section 2.1.4.1; empty from 0 and to the same size.

        Raises:
            LookupError: the old tree is larger.
        """
        if not 0 <= old_size <= self.size:
            raise LookupError(f"a tree of {self.size} leaves does not begin with one of {old_size}")
        if old_size in (0, self.size):
            return []
        proof: list[bytes] = []
        start, end, is_old_root = 0, self.size, True
        while old_size != end:
            middle = start + _largest_power_below(end - start)
            if old_size <= middle:
                proof.append(self._range(middle, end))
                end = middle
            else:
                proof.append(self._range(start, middle))
                start, is_old_root = middle, False
        # The old tree's own root is known to whoever asks; any other part of it is not.
        if not is_old_root:
            proof.append(self._range(start, end))
        return proof[::-1]

    def _range(self, start: int, end: int) -> bytes:
        """Root over the leaves from `start` to `end`: a perfect subtree, or a range that ends where the tree does."""
        width = end - start
        if width & (width - 1):
            middle = start + _largest_power_below(width)
            return node_hash(self._range(start, middle), self._range(middle, end))
        height = width.bit_length() - 1
        level, below = divmod(height, TILE_HEIGHT)
        first = start >> (level * TILE_HEIGHT)
        number, offset = divmod(first, TILE_SIZE)
        return tile_root(self._tile(level, number)[offset : offset + (1 << below)])

    def _tile(self, level: int, number: int) -> Sequence[bytes]:
        known = self._tiles.get((level, number))
        if known is None:
            known = self._tiles[level, number] = self._read_tile(level, number)
        return known


def _largest_power_below(count: int) -> int:
    """Largest power of two smaller than `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)
