"""The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1.1), appended to in O(log n) from its right edge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

HASH_SIZE = 32
TILE_HEIGHT = 8
TILE_SIZE = 1 << TILE_HEIGHT
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(record: bytes) -> bytes:
    """SHA-256(0x00 || record)."""
    return hashlib.sha256(b"\x00" + record).digest()


def split_hashes(data: bytes) -> list[bytes]:
    """Hashes that were written one after another."""
    return [data[start : start + HASH_SIZE] for start in range(0, len(data), HASH_SIZE)]


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class RightEdge:
    """A tree of `size` leaves, kept as the roots of its perfect subtrees, largest first: one per set bit of `size`."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def append(self, leaf: bytes) -> RightEdge:
        """The tree with one more leaf hash."""
        hashes, size = list(self.hashes), self.size
        while size & 1:
            leaf = node_hash(hashes.pop(), leaf)
            size >>= 1
        return RightEdge(self.size + 1, (*hashes, leaf))

    def extend(self, leaves: Iterable[bytes], tile_roots: list[bytes] | None = None) -> RightEdge:
        """The tree with more leaf hashes: what `append` gives one by one, in half the time.

        `tile_roots` gets the roots of all perfect subtrees of `TILE_SIZE` leaves that these leaves complete.
        """
        hashes, size = list(self.hashes), self.size
        for leaf in leaves:
            node, perfect = leaf, size
            if tile_roots is not None and not (size + 1) % TILE_SIZE:
                for _ in range(TILE_HEIGHT):
                    node = node_hash(hashes.pop(), node)
                tile_roots.append(node)
                perfect >>= TILE_HEIGHT
            while perfect & 1:
                node = node_hash(hashes.pop(), node)
                perfect >>= 1
            hashes.append(node)
            size += 1
        return RightEdge(size, tuple(hashes))

    def root(self) -> bytes:
        """Merkle tree hash; SHA-256 of nothing for the empty tree."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def to_bytes(self) -> bytes:
        """The hashes one after another, as the store keeps them."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> RightEdge:
        """Read back what `to_bytes` wrote.

        Raises:
            ValueError: when the data cannot be the edge of a tree of this size.
        """
        if size < 0 or len(data) != HASH_SIZE * size.bit_count():
            raise ValueError("the stored right edge does not fit the stored tree size")
        return cls(size, tuple(split_hashes(data)))
