"""RFC 9162 sections 2.1.1 to 2.1.4 as the RFC says them, and nothing clever: what proofs are held against in tests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def leaf(record: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record).digest()


def node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """MTH(D[n]) over leaf hashes, section 2.1.1."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(root(leaves[:split]), root(leaves[split:]))


def is_included(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root_hash: bytes) -> bool:
    """Section 2.1.3.2."""
    if index >= size:
        return False
    number, last, found = index, size - 1, leaf_hash
    for hash_ in proof:
        if last == 0:
            return False
        if number % 2 or number == last:
            found = node(hash_, found)
            while number % 2 == 0 and number != 0:
                number, last = number >> 1, last >> 1
        else:
            found = node(found, hash_)
        number, last = number >> 1, last >> 1
    return last == 0 and found == root_hash


def is_consistent(old_size: int, new_size: int, proof: Sequence[bytes], old_root: bytes, new_root: bytes) -> bool:
    """Section 2.1.4.2, and its two cases without hashes."""
    if old_size in (0, new_size):
        return not proof and (old_size == 0 or old_root == new_root)
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path or old_size > new_size:
        return False
    number, last = old_size - 1, new_size - 1
    while number % 2:
        number, last = number >> 1, last >> 1
    old = new = path[0]
    for hash_ in path[1:]:
        if last == 0:
            return False
        if number % 2 or number == last:
            old, new = node(hash_, old), node(hash_, new)
            while number % 2 == 0 and number != 0:
                number, last = number >> 1, last >> 1
        else:
            new = node(new, hash_)
        number, last = number >> 1, last >> 1
    return last == 0 and (old, new) == (old_root, new_root)
