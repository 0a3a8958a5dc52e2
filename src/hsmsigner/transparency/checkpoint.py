"""Checkpoints: what the log says of itself (C2SP tlog-checkpoint)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

from hsmsigner.transparency.merkle import HASH_SIZE
from hsmsigner.transparency.note import NoteError, check_name, read_note

_LINES = 3
_MOST_DIGITS = 19


@dataclass(frozen=True, slots=True)
class CheckpointBody:
    """What a checkpoint says: the log's name, the number of its records, and the root over them."""

    origin: str
    size: int
    root_hash: bytes

    @property
    def text(self) -> str:
        """The note's text, which is what the log signs."""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root_hash).decode()}\n"


def parse_text(text: str) -> CheckpointBody:
    """Read a checkpoint's text; extension lines are allowed, and ignored.

    Raises:
        NoteError: it is none.
    """
    lines = text.split("\n")
    if len(lines) <= _LINES or lines[-1]:
        raise NoteError("a checkpoint has an origin, a size and a root, each in a line")
    origin, size, root = lines[:_LINES]
    is_number = size.isascii() and size.isdecimal() and len(size) <= _MOST_DIGITS
    if not is_number or str(int(size)) != size:
        raise NoteError("the checkpoint's size is no decimal number without leading zeros")
    try:
        root_hash = b64decode(root, validate=True)
    except ValueError as error:
        raise NoteError("the checkpoint's root is not base64") from error
    if len(root_hash) != HASH_SIZE:
        raise NoteError(f"the checkpoint's root does not have {HASH_SIZE} bytes")
    return CheckpointBody(check_name(origin), int(size), root_hash)


def parse_checkpoint(note: str) -> CheckpointBody:
    """What a signed checkpoint says; its signatures are not verified.

    Raises:
        NoteError: it is no signed checkpoint.
    """
    return parse_text(read_note(note)[0])
