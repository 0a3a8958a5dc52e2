"""What witnesses sign of checkpoints, written and verified: C2SP tlog-cosignature v1 with Ed25519 (type 0x04)."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hsmsigner.transparency.note import KeyType, NoteError, NoteKey, SignatureLine, parse_vkey

# 9999-12-31T23:59:59Z: what comes later no calendar of ours can write.
_LAST_SECOND = 253_402_300_799
_TIME_SIZE = 8
_ED25519_SIZE = 64


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


def parse_witness_key(vkey: str) -> NoteKey:
    """Read the verification key of a witness.

    Raises:
        NoteError: it is none, or of a type that witnesses do not have here.
    """
    key = parse_vkey(vkey)
    if key.type is not KeyType.COSIGNATURE:
        raise NoteError("a witness's verification key must be of type 0x04 (Ed25519 cosignatures)")
    return key


def verify_cosignature(key: NoteKey, text: str, line: SignatureLine) -> int | None:
    """When the witness signed this checkpoint's text, in seconds since 1970; None for a line of anybody else.

    Raises:
        NoteError: the line bears this name and key id, but is not this key's signature over the text.
    """
    if (line.name, line.key_id) != (key.name, key.key_id):
        return None
    seconds, signature = read_cosignature(line)
    if seconds > _LAST_SECOND:
        raise NoteError(f"the cosignature of {key.name} is of an impossible time")
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(signature, cosigned_message(text, seconds))
    except InvalidSignature as error:
        raise NoteError(f"the cosignature of {key.name} does not verify") from error
    return seconds


def find_cosignature(key: NoteKey, text: str, lines: Iterable[SignatureLine]) -> tuple[SignatureLine, int] | None:
    """The newest line of this key, and its time.

    Raises:
        NoteError: one of its lines is wrong, whatever the others are.
    """
    found = [(line, seconds) for line in lines if (seconds := verify_cosignature(key, text, line)) is not None]
    return max(found, key=lambda pair: pair[1]) if found else None
