"""RFC 9162 section 2.1, word for word and slowly: the oracle for everything that computes with the log's tree."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


class NaiveTree:
    """The definitions over a list of leaf hashes. Roots of parts are kept, or a test would take minutes."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.leaves = leaves
        self._known: dict[tuple[int, int], bytes] = {}

    def root(self, size: int) -> bytes:
        """MTH(D[size]), section 2.1.1."""
        return self._mth(0, size)

    def path(self, index: int, size: int) -> list[bytes]:
        """PATH(index, D[size]), section 2.1.3.1."""
        return self._path(index, 0, size)

    def proof(self, old_size: int, size: int) -> list[bytes]:
        """PROOF(old_size, D[size]), section 2.1.4.1; empty from 0."""
        return self._subproof(old_size, 0, size, is_known=True) if old_size else []

    def _mth(self, start: int, end: int) -> bytes:
        if (start, end) not in self._known:
            count = end - start
            if count == 0:
                node = hashlib.sha256().digest()
            elif count == 1:
                node = self.leaves[start]
            else:
                middle = start + split(count)
                node = hashlib.sha256(b"\x01" + self._mth(start, middle) + self._mth(middle, end)).digest()
            self._known[start, end] = node
        return self._known[start, end]

    def _path(self, index: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        middle = start + split(end - start)
        if index < middle - start:
            return [*self._path(index, start, middle), self._mth(middle, end)]
        return [*self._path(index - (middle - start), middle, end), self._mth(start, middle)]

    def _subproof(self, old: int, start: int, end: int, *, is_known: bool) -> list[bytes]:
        if old == end - start:
            return [] if is_known else [self._mth(start, end)]
        middle = start + split(end - start)
        if old <= middle - start:
            return [*self._subproof(old, start, middle, is_known=is_known), self._mth(middle, end)]
        rest = self._subproof(old - (middle - start), middle, end, is_known=False)
        return [*rest, self._mth(start, middle)]


def split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    power = 1
    while power * 2 < count:
        power *= 2
    return power
