"""Checks the chain and the tree over audit records, in one pass and O(log n) memory.

    verify_records(records, head_size, head_root)

`records` are the exact bytes the server stored, `head_size` and `head_root` the tree head they must add up to. Each
record names the hash of the one before it, and all of them together have one Merkle root (RFC 6962 section 2.1): a
changed, removed, added or moved record breaks one or the other, and the error names the first that does not fit.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
FIRST_PREVIOUS_HASH = "0" * 64

# Fixed width in UTC, so that the order of the texts is the order of the times.
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
# Far beyond any record of ours. Not left to Python's recursion limit: a library that raised it would turn the
# RecursionError of a hostile record into a crash of the process.
_DEEPEST = 100
# A whole string, closed or not, so that one pass over any text finds the brackets that stand outside of strings.
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


class VerificationError(Exception):
    """The records are not the log that the tree head stands for.

    `fault` is a short constant for programs: `gap`, `order`, `unparsable`, `sequence`, `previous_hash`, `time`,
    `truncated`, `extended`, `root`. `sequence` is the record at fault; None when the log as a whole is.
    """

    def __init__(self, fault: str, sequence: int | None, message: str) -> None:
        super().__init__(message)
        self.fault = fault
        self.sequence = sequence


class ChainVerifier:
    """Takes records one by one; `finish` compares what they add up to with a tree head."""

    def __init__(self) -> None:
        self.size = 0
        self.last_time = ""
        self._previous_hash = FIRST_PREVIOUS_HASH
        # Roots of the perfect subtrees along the right edge as (number of leaves, hash), largest first.
        self._edge: list[tuple[int, bytes]] = []

    @property
    def root(self) -> bytes:
        """Merkle tree hash of the records so far, 32 bytes (RFC 6962 section 2.1)."""
        if not self._edge:
            return EMPTY_ROOT
        node = self._edge[-1][1]
        for _, left in reversed(self._edge[:-1]):
            node = _node_hash(left, node)
        return node

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
        fields = _parse(sequence, record)
        if fields.get("sequence") != sequence or isinstance(fields.get("sequence"), bool):
            raise VerificationError(
                "sequence",
                sequence,
                f"record {sequence} says it is record {fields.get('sequence')!r}: moved or changed",
            )
        if fields.get("previous_hash") != self._previous_hash:
            raise VerificationError("previous_hash", sequence, self._broken_link(sequence, fields.get("previous_hash")))
        self._check_time(sequence, fields.get("time"))
        leaf = sha256(b"\x00" + record).digest()
        self._previous_hash = leaf.hex()
        self._append(leaf)

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

    def _broken_link(self, sequence: int, found: object) -> str:
        if sequence == 0:
            return f"record 0 is not the first of a log: its previous_hash is {found!r}, and must be 64 zeros"
        return (
            f"record {sequence} does not follow from record {sequence - 1}: its previous_hash is {found!r}, and record"
            f" {sequence - 1} has the hash {self._previous_hash}; one of the two was changed"
        )

    def _check_time(self, sequence: int, time: object) -> None:
        if not isinstance(time, str) or not _TIME.fullmatch(time):
            raise VerificationError("time", sequence, f"record {sequence} has no valid time: {time!r}")
        if time < self.last_time:
            raise VerificationError(
                "time", sequence, f"time runs backwards at record {sequence}: {time} after {self.last_time}"
            )
        self.last_time = time

    def _append(self, leaf: bytes) -> None:
        # Two subtrees of one size become one of twice the size, as carries do when counting in binary.
        leaves = 1
        while self._edge and self._edge[-1][0] == leaves:
            leaf = _node_hash(self._edge.pop()[1], leaf)
            leaves *= 2
        self._edge.append((leaves, leaf))
        self.size += 1


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


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _parse(sequence: int, record: bytes) -> dict[str, object]:
    try:
        text = record.decode("utf-8")
        _refuse_deep(text)
        fields = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise VerificationError("unparsable", sequence, f"record {sequence} cannot be read as JSON: {error}") from error
    if not isinstance(fields, dict):
        raise VerificationError("unparsable", sequence, f"record {sequence} is not a JSON object")
    return fields


def _refuse_deep(text: str) -> None:
    if text.count("[") + text.count("{") <= _DEEPEST:
        return
    depth = 0
    for part in _STRING_OR_BRACKET.findall(text):
        depth += (part in "[{") - (part in "]}")
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # A field given twice reads differently in different parsers.
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field stands twice")
    return fields
