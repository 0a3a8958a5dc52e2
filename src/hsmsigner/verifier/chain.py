"""Checks the chain and the tree over audit records, in one pass and O(log n) memory.

    verify_records(records, head_size, head_root)

`records` are the exact bytes the server stored, `head_size` and `head_root` the tree head they must add up to. Each
record names the hash of the one before it, and all of them together have one Merkle root (RFC 6962 section 2.1): a
changed, removed, added or moved record breaks one or the other, and the error names the first that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.merkle import EMPTY_ROOT, fold
from hsmsigner.verifier.record import TIME, parse_record

__all__ = ["EMPTY_ROOT", "FIRST_PREVIOUS_HASH", "ChainVerifier", "Links", "VerificationError", "verify_records"]

FIRST_PREVIOUS_HASH = "0" * 64


class Links:
    """What a record says of its own place: its number, the hash of the one before it, and a time that is no earlier."""

    def __init__(self, *, previous_hash: str = FIRST_PREVIOUS_HASH, last_time: str = "") -> None:
        self.previous_hash = previous_hash
        self.last_time = last_time

    def follow(self, sequence: int, record: bytes) -> tuple[dict[str, Any], bytes]:
        """Check the next record; its fields and its leaf hash.

        Raises:
            VerificationError: `unparsable`, `sequence`, `previous_hash` or `time`.
        """
        fields = parse_record(sequence, record)
        found = fields.get("sequence")
        if found != sequence or type(found) is not int:
            raise VerificationError(
                "sequence", sequence, f"record {sequence} says it is record {shown(found)}: moved or changed"
            )
        if fields.get("previous_hash") != self.previous_hash:
            raise VerificationError("previous_hash", sequence, self._broken(sequence, fields.get("previous_hash")))
        time = fields.get("time")
        # Many records of one commit have one time.
        if time != self.last_time or not time:
            self._check_time(sequence, time)
        leaf = sha256(b"\x00" + record).digest()
        self.previous_hash = leaf.hex()
        return fields, leaf

    def _check_time(self, sequence: int, time: object) -> None:
        if not isinstance(time, str) or not TIME.fullmatch(time):
            raise VerificationError("time", sequence, f"record {sequence} has no valid time: {shown(time)}")
        if time < self.last_time:
            raise VerificationError(
                "time", sequence, f"time runs backwards at record {sequence}: {time} after {self.last_time}"
            )
        self.last_time = time

    def _broken(self, sequence: int, found: object) -> str:
        if sequence == 0:
            return f"record 0 is not the first of a log: its previous_hash is {shown(found)}, and must be 64 zeros"
        return (
            f"record {sequence} does not follow from record {sequence - 1}: its previous_hash is {shown(found)}, and"
            f" record {sequence - 1} has the hash {self.previous_hash}; one of the two was changed"
        )


class Edge:
    """A tree that grows: the roots of its perfect subtrees, largest first, one per set bit of its size."""

    def __init__(self) -> None:
        self.size = 0
        self._hashes: list[bytes] = []

    @property
    def root(self) -> bytes:
        """Merkle tree hash of the leaves so far, 32 bytes (RFC 6962 section 2.1)."""
        return fold(self._hashes)

    def add(self, leaf: bytes) -> None:
        """Add a leaf hash."""
        # Two subtrees of one size become one of twice the size, as carries do when counting in binary.
        size, hashes = self.size, self._hashes
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\x01" + hashes.pop() + leaf).digest()
            size >>= 1
        hashes.append(leaf)


class ChainVerifier:
    """Takes records one by one; `finish` compares what they add up to with a tree head."""

    def __init__(self) -> None:
        self._links = Links()
        self._edge = Edge()

    @property
    def size(self) -> int:
        """How many records were added."""
        return self._edge.size

    @property
    def root(self) -> bytes:
        """Merkle tree hash of the records so far."""
        return self._edge.root

    def add(self, sequence: int, record: bytes) -> None:
        """Check the next record and add it.

        Raises:
            VerificationError: it does not continue the chain.
        """
        if sequence > self.size:
            raise VerificationError(
                "gap", self.size, f"record {self.size} is missing: record {sequence} comes in its place"
            )
        if sequence < self.size:
            raise VerificationError(
                "order", sequence, f"record {sequence} comes where record {self.size} must stand: repeated or moved"
            )
        _, leaf = self._links.follow(sequence, record)
        self._edge.add(leaf)

    def finish(self, head_size: int, head_root: bytes) -> None:
        """Compare with the tree head that the log must have.

        Raises:
            VerificationError: fewer or more records than the head counts, or another root.
        """
        if self.size < head_size:
            raise VerificationError(
                "truncated", self.size, f"the log ends after {self.size} records, and its tree head counts {head_size}"
            )
        if self.size > head_size:
            raise VerificationError(
                "extended", head_size, f"the log has {self.size} records, and its tree head counts only {head_size}"
            )
        if self.root != head_root:
            raise VerificationError(
                "root",
                None,
                f"the {head_size} records have the root {self.root.hex()}, and the tree head says {head_root.hex()}:"
                " the last record was changed, or the head is of another log",
            )


def verify_records(records: Iterable[tuple[int, bytes]], head_size: int, head_root: bytes) -> None:
    """Check that `records`, as (sequence, stored bytes) from 0, are the whole log with this tree head.

    Raises:
        VerificationError: the first fault found, and in which record.
    """
    verifier = ChainVerifier()
    for sequence, record in records:
        if verifier.size == head_size:
            raise VerificationError(
                "extended", head_size, f"record {sequence} comes after the {head_size} that the tree head counts"
            )
        verifier.add(sequence, record)
    verifier.finish(head_size, head_root)
