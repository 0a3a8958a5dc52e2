"""Signed notes, checkpoints and verification keys (C2SP signed-note, tlog-checkpoint, tlog-cosignature)."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.merkle import HASH_SIZE

ED25519, ECDSA, WITNESS = 0x01, 0x02, 0x04
MAX_NOTE_BYTES = 2**20
# As many as the note package of Go takes.
_MOST_SIGNATURES = 100
_SIGNATURE = re.compile(r"— (?P<name>[^\s+]+) (?P<content>[A-Za-z0-9+/]+={0,2})")
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)
_KEY_ID = 4
_TIMESTAMP = 8


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key of a log or of a witness. `public` is 32 bytes, or for ECDSA the SubjectPublicKeyInfo."""

    name: str
    key_id: bytes
    kind: int
    public: bytes

    @property
    def is_witness(self) -> bool:
        """Whether it makes cosignatures."""
        return self.kind == WITNESS

    @property
    def der(self) -> bytes:
        """SubjectPublicKeyInfo."""
        if self.kind == ECDSA:
            return self.public
        key = ed25519.Ed25519PublicKey.from_public_bytes(self.public)
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, text: bytes, signature: bytes) -> int:
        """Check a signature over a note's text; the time a witness states in it (seconds since 1970), else 0.

        Raises:
            InvalidSignature: it is none of this key over this text.
        """
        if self.kind == ECDSA:
            key = load_der_public_key(self.public)
            assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - parse_vkey saw to it; for mypy
            key.verify(signature, text, ec.ECDSA(hashes.SHA256()))
            return 0
        time, message = 0, text
        if self.kind == WITNESS:
            if len(signature) <= _TIMESTAMP:
                raise InvalidSignature
            time, signature = int.from_bytes(signature[:_TIMESTAMP]), signature[_TIMESTAMP:]
            message = b"cosignature/v1\ntime %d\n" % time + text
        ed25519.Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        return time


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One line below a note: whose it says it is, and the signature without the key id."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says. Nothing of it is checked before `trust.Trust` did."""

    origin: str
    size: int
    root: bytes
    text: bytes
    signatures: tuple[SignatureLine, ...]


def parse_vkey(text: str) -> VerificationKey:
    """Read `<name>+<key id>+<base64(type || key)>`.

    Raises:
        ValueError: it is none, or its key id is not of this key.
    """
    name, _, rest = text.strip().partition("+")
    key_id, _, content = rest.partition("+")
    try:
        material = _decode(content)
        stated = bytes.fromhex(key_id)
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no verification key (name+key id+base64)") from error
    if not name or len(stated) != _KEY_ID or not material or any(part.isspace() for part in name):
        raise ValueError(f"{shown(text)} is no verification key (name+key id+base64)")
    kind, public = material[0], material[1:]
    _check_public(kind, public)
    hashed = public if kind == ECDSA else name.encode() + b"\n" + material
    if sha256(hashed).digest()[:_KEY_ID] != stated:
        raise ValueError(f"the key id of {shown(text)} is not of this key: a typing error?")
    return VerificationKey(name, stated, kind, public)


def _check_public(kind: int, public: bytes) -> None:
    if kind in (ED25519, WITNESS):
        if len(public) != HASH_SIZE:
            raise ValueError("an Ed25519 key has 32 bytes")
        ed25519.Ed25519PublicKey.from_public_bytes(public)
        return
    if kind != ECDSA:
        raise ValueError(f"keys of type {kind:#04x} are not known; 0x01, 0x02 and 0x04 are")
    try:
        key = load_der_public_key(public)
    except UnsupportedAlgorithm as error:
        raise ValueError("its curve is not known") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("an ECDSA key of a log must be on P-256")


def parse_checkpoint(note: bytes, what: str) -> Checkpoint:
    """Take a checkpoint apart. `what` names it in errors.

    Raises:
        VerificationError: `format`.
    """
    try:
        return _parse(note)
    except ValueError as error:
        raise VerificationError("format", None, f"{what} is no checkpoint: {error}") from error


def _parse(note: bytes) -> Checkpoint:
    if len(note) > MAX_NOTE_BYTES:
        raise ValueError("it is too large")
    whole = note.decode()
    if any(ord(character) < ord(" ") and character != "\n" for character in whole):
        raise ValueError("it has control characters")
    text, separator, below = whole.rpartition("\n\n")
    if not separator or not below.endswith("\n"):
        raise ValueError("it has no signature lines below an empty line")
    lines = text.split("\n")
    if len(lines) != 3:  # noqa: PLR2004 - origin, size, root
        raise ValueError(f"its text has {len(lines)} lines, and must have three")
    origin, size, root = lines
    if not origin or not _SIZE.fullmatch(size):
        raise ValueError(f"its origin or size is none: {shown(origin)}, {shown(size)}")
    root_hash = _decode(root)
    if len(root_hash) != HASH_SIZE:
        raise ValueError("its root hash has not 32 bytes")
    return Checkpoint(origin, int(size), root_hash, f"{text}\n".encode(), _signatures(below))


def _signatures(below: str) -> tuple[SignatureLine, ...]:
    found = []
    lines = below.removesuffix("\n").split("\n")
    if len(lines) > _MOST_SIGNATURES:
        raise ValueError(f"it has more than {_MOST_SIGNATURES} signature lines")
    for line in lines:
        match = _SIGNATURE.fullmatch(line)
        if match is None:
            raise ValueError(f"{shown(line)} is no signature line")
        content = _decode(match["content"])
        if len(content) <= _KEY_ID:
            raise ValueError(f"{shown(line)} holds no signature")
        found.append(SignatureLine(match["name"], content[:_KEY_ID], content[_KEY_ID:]))
    return tuple(found)


def decode_hash(text: str) -> bytes:
    """One hash of a proof, in base64.

    Raises:
        ValueError: it is none.
    """
    content = _decode(text)
    if len(content) != HASH_SIZE:
        raise ValueError(f"{shown(text)} is no hash")
    return content


def _decode(text: str) -> bytes:
    """Standard base64 with padding, one way to write each value."""
    content = b64decode(text, validate=True)
    if b64encode(content).decode() != text:
        raise ValueError("it is not written as base64 is")
    return content
