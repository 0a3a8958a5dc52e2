"""Receipts (C2SP tlog-proof) and consistency proofs: one file each, checked against trusted keys."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from hsmsigner.verifier.fault import VerificationError
from hsmsigner.verifier.folder import MAX_LINE_BYTES, Folder
from hsmsigner.verifier.merkle import leaf_hash, proves_consistency, root_from_inclusion
from hsmsigner.verifier.note import MAX_NOTE_BYTES, decode_hash
from hsmsigner.verifier.record import parse_record
from hsmsigner.verifier.tiles import WIDTH, stored_leaves
from hsmsigner.verifier.trust import OpenCheckpoint, Trust

MAX_RECEIPT_BYTES = 2 * MAX_LINE_BYTES + MAX_NOTE_BYTES
MAX_PROOF_BYTES = 2**14
_RECEIPT_HEAD = "c2sp.org/tlog-proof@v1"
_PROOF_HEAD = "hsmsigner-consistency@v1"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_LONGEST_PROOF = 63


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record that is proven to be in the log."""

    sequence: int
    record: bytes
    fields: dict[str, Any]
    checkpoint: OpenCheckpoint


def verify_receipt(content: bytes, trust: Trust, signature: bytes | None = None) -> Receipt:
    """Check that the record is in the log, and, if a signature is given, that it is the record of that signature.

    Raises:
        VerificationError: `format`, `origin`, `signature`, `witness`, `proof`, `unparsable` or `receipt`.
    """
    try:
        index, record, proof, note = _parse_receipt(content)
    except ValueError as error:
        raise VerificationError("format", None, f"the receipt cannot be read: {error}") from error
    checkpoint = trust.open(note, "the receipt's checkpoint")
    if root_from_inclusion(index, checkpoint.size, leaf_hash(record), proof) != checkpoint.root:
        raise VerificationError(
            "proof", index, f"the proof does not lead from this record, at {index}, to the root of the checkpoint: the"
            " record or the proof was changed"
        )  # fmt: skip
    fields = parse_record(index, record)
    if fields.get("sequence") != index:
        raise VerificationError("receipt", index, f"the record at {index} says that it is another one")
    if signature is not None:
        _check_signature(index, fields, signature)
    return Receipt(index, record, fields, checkpoint)


def verify_consistency(old: OpenCheckpoint, new: OpenCheckpoint, content: bytes) -> None:
    """Check with a proof that the log of the new checkpoint begins with that of the old one.

    Raises:
        VerificationError: `format`, `rollback`, `fork` or `proof`.
    """
    check_order(old, new)
    try:
        sizes, proof = _parse_proof(content)
    except ValueError as error:
        raise VerificationError("format", None, f"the proof cannot be read: {error}") from error
    if sizes != (old.size, new.size):
        raise VerificationError(
            "proof", None, f"the proof is between the sizes {sizes[0]} and {sizes[1]}, and the checkpoints are of"
            f" {old.size} and {new.size}"
        )  # fmt: skip
    if not proves_consistency((old.size, old.root), (new.size, new.root), proof):
        raise VerificationError(
            "proof", None, f"the proof does not show that the {new.size} records begin with the {old.size}: it was"
            " changed, or the log was written anew"
        )  # fmt: skip


def check_order(old: OpenCheckpoint, new: OpenCheckpoint) -> None:
    """See that the newer one is not smaller, nor another one of the same size.

    Raises:
        VerificationError: `rollback` or `fork`.
    """
    if new.size < old.size:
        raise VerificationError(
            "rollback", new.size, f"the new checkpoint counts {new.size} records, and the old one {old.size}: the log"
            " was set back"
        )  # fmt: skip
    if new.size == old.size and new.root != old.root:
        raise VerificationError(
            "fork", None, f"there are two checkpoints of {new.size} records with different roots: two logs were shown"
        )


def leaves_of(folder: Folder, size: int) -> Iterator[bytes]:
    """The leaf hashes that the tiles of an export of this size have, from the first on.

    Raises:
        VerificationError: `missing`, `path`, `format` or `tile`.
    """
    for number in range(-(-size // WIDTH)):
        yield from stored_leaves(folder, size, number)


def _check_signature(index: int, fields: dict[str, Any], signature: bytes) -> None:
    if fields.get("type") != "sign.completed":
        raise VerificationError("receipt", index, f"record {index} is not of a signature that was made")
    # A text (JWS) may have been saved with a line feed that was not signed.
    candidates = {sha256(content).hexdigest() for content in (signature, signature.removesuffix(b"\n"))}
    if fields.get("signature_sha256") not in candidates:
        raise VerificationError("receipt", index, f"record {index} is of another signature than this one")


def _parse_receipt(content: bytes) -> tuple[int, bytes, list[bytes], bytes]:
    head, separator, note = content.partition(b"\n\n")
    lines = head.decode().split("\n")
    if not separator or len(lines) < 3 or lines[0] != _RECEIPT_HEAD:  # noqa: PLR2004 - head, extra, index
        raise ValueError(f"it does not begin with {_RECEIPT_HEAD}, extra and index")
    record = b64decode(_after("extra ", lines[1]), validate=True)
    return _number("index ", lines[2]), record, _hashes(lines[3:]), note


def _parse_proof(content: bytes) -> tuple[tuple[int, int], list[bytes]]:
    lines = content.decode().split("\n")
    if len(lines) < 4 or lines[0] != _PROOF_HEAD or lines[-1]:  # noqa: PLR2004 - head, old, new, end of the last
        raise ValueError(f"it does not begin with {_PROOF_HEAD}, old and new, or its last line does not end")
    return (_number("old ", lines[1]), _number("new ", lines[2])), _hashes(lines[3:-1])


def _hashes(lines: list[str]) -> list[bytes]:
    if len(lines) > _LONGEST_PROOF:
        raise ValueError(f"it has more than {_LONGEST_PROOF} hashes")
    return [decode_hash(line) for line in lines]


def _after(word: str, line: str) -> str:
    if not line.startswith(word):
        raise ValueError(f"it has no line `{word.strip()}` in its place")
    return line.removeprefix(word)


def _number(word: str, line: str) -> int:
    text = _after(word, line)
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"its `{word.strip()}` is no number")
    return int(text)
