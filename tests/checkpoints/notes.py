"""Checkpoints of a store as an auditor sees them, verified with `cryptography` and the RFC's definition of a tree."""

from __future__ import annotations

import hashlib
import sqlite3
from base64 import b64decode
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_der_public_key

from tests import naive_tree


def records(database: Path) -> list[bytes]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return [record for (record,) in connection.execute("SELECT record FROM audit_records ORDER BY sequence")]


def checkpoints(database: Path) -> list[tuple[int, bytes, str]]:
    """Size, root and note of each, in order; the note is empty while it is not signed."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT size, root, note FROM checkpoints ORDER BY size").fetchall()


def signers(note: str, vkeys: list[str]) -> list[str]:
    """The vkeys of the log whose line in the note is there and verifies; any other line of the log fails the test."""
    text, _, tail = note.rpartition("\n\n")
    origin = text.partition("\n")[0]
    known = {vkey.split("+", 2)[1]: vkey for vkey in vkeys}
    found = []
    for line in tail.splitlines():
        dash, name, encoded = line.split(" ")
        assert dash == "—"
        if name == origin:
            blob = b64decode(encoded, validate=True)
            vkey = known[blob[:4].hex()]
            verify(vkey, blob[4:], f"{text}\n".encode())
            found.append(vkey)
    return found


def verify(vkey: str, signature: bytes, text: bytes) -> None:
    name, key_id, encoded = vkey.split("+", 2)
    key = b64decode(encoded, validate=True)
    if key[0] == 1:
        assert hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id
        ed25519.Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, text)
    else:
        assert key[0] == 2
        assert hashlib.sha256(key[1:]).hexdigest()[:8] == key_id
        public = load_der_public_key(key[1:])
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert public.curve.name == "secp256r1"
        public.verify(signature, text, ec.ECDSA(hashes.SHA256()))


def check_checkpoints(database: Path, vkeys: list[str]) -> list[int]:
    """See that each one is of this log and signed by it; returns their sizes."""
    leaves = [naive_tree.leaf(record) for record in records(database)]
    sizes = []
    for size, root, note in checkpoints(database):
        assert root == naive_tree.root(leaves[:size])
        assert len(signers(note, vkeys)) == 1
        origin, size_text, root_text, *more = note.partition("\n\n")[0].split("\n")
        assert (origin, int(size_text), b64decode(root_text), more) == (vkeys[0].split("+")[0], size, root, [])
        sizes.append(size)
    return sizes
