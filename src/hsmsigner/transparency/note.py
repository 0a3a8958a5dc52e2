"""Signed notes (C2SP signed-note): a text, an empty line, signature lines. Builds and reads them; uses no key."""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, unique

KEY_ID_SIZE = 4
_DASH = "— "
_LINE_FEED = "\n"


class NoteError(ValueError):
    """What was read is no signed note, or no verification key; the text says what is wrong with it."""


@unique
class KeyType(IntEnum):
    """What kind of signature a key makes: the type byte of signed-note and tlog-cosignature."""

    ED25519 = 0x01
    ECDSA = 0x02
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature: by whom, with which key (4 bytes of its hash), and its bytes as the key's type has them."""

    name: str
    key_id: bytes
    signature: bytes

    @property
    def text(self) -> str:
        """The line as the note has it, with its line feed."""
        return f"{_DASH}{self.name} {b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A verification key: 32 bytes of Ed25519 (types 0x01 and 0x04), or SubjectPublicKeyInfo in DER (type 0x02)."""

    name: str
    type: KeyType
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """First four bytes of a hash of the key; of its name too, but for ECDSA (signed-note, "Signatures")."""
        if self.type is KeyType.ECDSA:
            return hashlib.sha256(self.public_key).digest()[:KEY_ID_SIZE]
        named = self.name.encode() + b"\n" + bytes([self.type]) + self.public_key
        return hashlib.sha256(named).digest()[:KEY_ID_SIZE]

    @property
    def vkey(self) -> str:
        """The key as text: name+id+base64."""
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.type]) + self.public_key).decode()}"

    def line(self, signature: bytes) -> SignatureLine:
        """The line of a signature that this key made."""
        return SignatureLine(self.name, self.key_id, signature)


def check_name(name: str) -> str:
    """See that a name may stand in a signature line: not empty, no space, no plus sign.

    Raises:
        NoteError: it may not.
    """
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise NoteError(f"{name!r} is no name for a key: it must have neither spaces nor plus signs")
    return name


def parse_vkey(text: str) -> NoteKey:
    """Read a verification key.

    Raises:
        NoteError: it is none, of a type we do not know, or its id is not that of its key.
    """
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    data = _decoded(encoded)
    if not data or data[0] not in list(KeyType):
        raise NoteError("the verification key is of a type that is not known here")
    key = NoteKey(check_name(name), KeyType(data[0]), data[1:])
    if key.type is not KeyType.ECDSA and len(key.public_key) != 32:  # noqa: PLR2004 - RFC 8032 section 5.1.5
        raise NoteError("an Ed25519 key has 32 bytes")
    if key.key_id.hex() != key_id:
        raise NoteError(f"the verification key of {name} says that its id is {key_id}, but it is {key.key_id.hex()}")
    return key


def write_note(text: str, lines: Iterable[SignatureLine]) -> str:
    """The note: the text (which ends with a line feed), an empty line, the signature lines."""
    return text + _LINE_FEED + "".join(line.text for line in lines)


def read_note(note: str) -> tuple[str, tuple[SignatureLine, ...]]:
    """The text of a note, with its last line feed, and its signature lines; none of them is verified.

    Raises:
        NoteError: it is no signed note.
    """
    head, separator, tail = note.rpartition("\n\n")
    if not separator or not tail.endswith(_LINE_FEED):
        raise NoteError("a note is a text, an empty line, and at least one signature line")
    if any(character < " " and character != _LINE_FEED for character in note):
        raise NoteError("a note has no control characters")
    return head + _LINE_FEED, read_lines(tail)


def read_lines(text: str) -> tuple[SignatureLine, ...]:
    """Signature lines, each ended by a line feed, as a witness answers them.

    Raises:
        NoteError: one of them is none.
    """
    if not text.endswith(_LINE_FEED):
        raise NoteError("a signature line ends with a line feed")
    return tuple(map(_read_line, text.removesuffix(_LINE_FEED).split(_LINE_FEED)))


def add_lines(note: str, lines: Sequence[SignatureLine]) -> str:
    """The note with more signature lines; one of the same name and key takes the place of the one that was there.

    Raises:
        NoteError: the note is none.
    """
    text, there = read_note(note)
    newest = {(line.name, line.key_id): line for line in (*there, *lines)}
    return write_note(text, newest.values())


def _read_line(line: str) -> SignatureLine:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = _decoded(encoded)
    if not line.startswith(_DASH) or len(data) <= KEY_ID_SIZE:
        raise NoteError("a signature line is a dash, a name, and base64 of key id and signature")
    return SignatureLine(check_name(name), data[:KEY_ID_SIZE], data[KEY_ID_SIZE:])


def _decoded(encoded: str) -> bytes:
    try:
        return b64decode(encoded, validate=True)
    except ValueError as error:
        raise NoteError("what should be base64 is not") from error
