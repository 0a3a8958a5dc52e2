"""Checkpoints (C2SP tlog-checkpoint) and what witnesses sign of them (C2SP tlog-cosignature)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

from hsmsigner.transparency.merkle import HASH_SIZE
from hsmsigner.transparency.note import NoteError, SignatureLine, check_name, read_note

_LINES = 3
_MOST_DIGITS = 19
_TIME_SIZE = 8
_ED25519_SIZE = 64


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


def cosigned_message(text: str, seconds: int) -> bytes:
    """What a witness signs: that it saw the checkpoint of this text at this time, in seconds since 1970."""
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def cosignature(seconds: int, signature: bytes) -> bytes:
    """The signature of a witness as its line has it."""
    return seconds.to_bytes(_TIME_SIZE) + signature


def read_cosignature(line: SignatureLine) -> tuple[int, bytes]:
    """Time in seconds since 1970, and the Ed25519 signature, of a witness's line.

    Raises:
        NoteError: it has another length.
    """
    if len(line.signature) != _TIME_SIZE + _ED25519_SIZE:
        raise NoteError(f"the cosignature of {line.name} has a wrong length")
    return int.from_bytes(line.signature[:_TIME_SIZE]), line.signature[_TIME_SIZE:]
