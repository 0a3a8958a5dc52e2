"""Writes exports, receipts and proofs as docs/log-format.md says, from records and software keys; nothing of ours."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ORIGIN = "log.example/appliance-1"
SEGMENT = 65_536
TIME = "2027-01-15T08:00:00.000000Z"


@dataclass(frozen=True)
class NoteKey:
    """A key that signs notes: of a log (0x01, or 0x02 on P-256) or of a witness (0x04)."""

    name: str = ORIGIN
    kind: int = 0x01
    private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey = field(
        default_factory=ed25519.Ed25519PrivateKey.generate
    )
    seen_at: int = 1_800_000_000

    @property
    def spki(self) -> bytes:
        return self.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @property
    def public(self) -> bytes:
        return self.spki if self.kind == 0x02 else self.private.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw
        )  # fmt: skip

    @property
    def key_id(self) -> bytes:
        material = bytes([self.kind]) + self.public
        return sha256(self.public if self.kind == 0x02 else self.name.encode() + b"\n" + material).digest()[:4]

    @property
    def vkey(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{b64encode(bytes([self.kind]) + self.public).decode()}"

    def line(self, text: str) -> str:
        return f"— {self.name} {b64encode(self.key_id + self._sign(text.encode())).decode()}\n"

    def _sign(self, text: bytes) -> bytes:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(text, ec.ECDSA(hashes.SHA256()))
        if self.kind == 0x04:
            signed = self.private.sign(b"cosignature/v1\ntime %d\n" % self.seen_at + text)
            return self.seen_at.to_bytes(8) + signed
        return self.private.sign(text)


class Tree:
    """All hashes of a tree, level by level, so that roots and proofs of any size are quick enough for tests."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.levels = [list(leaves)]
        while len(self.levels[-1]) > 1:
            below = self.levels[-1]
            self.levels.append([node(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)])

    def root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]) of RFC 9162 section 2.1.1."""
        size = end - begin
        if size == 0:
            return sha256(b"").digest()
        if size & (size - 1) == 0 and begin % size == 0:
            return self.levels[size.bit_length() - 1][begin // size]
        split = begin + largest_below(size)
        return node(self.root(begin, split), self.root(split, end))

    def inclusion(self, index: int, begin: int, end: int) -> list[bytes]:
        """PATH(index, D[begin:end]) of section 2.1.3.1."""
        if end - begin == 1:
            return []
        split = begin + largest_below(end - begin)
        if index < split:
            return [*self.inclusion(index, begin, split), self.root(split, end)]
        return [*self.inclusion(index, split, end), self.root(begin, split)]

    def consistency(self, old: int, begin: int, end: int, *, is_whole: bool = True) -> list[bytes]:
        """SUBPROOF(old, D[begin:end], is_whole) of section 2.1.4.1; `old` counts from 0."""
        if old == end:
            return [] if is_whole else [self.root(begin, end)]
        split = begin + largest_below(end - begin)
        if old <= split:
            return [*self.consistency(old, begin, split, is_whole=is_whole), self.root(split, end)]
        return [*self.consistency(old, split, end, is_whole=False), self.root(begin, split)]


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def leaf(record: bytes) -> bytes:
    return sha256(b"\x00" + record).digest()


def largest_below(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def checkpoint(size: int, root: bytes, keys: Sequence[NoteKey], origin: str = ORIGIN) -> str:
    text = f"{origin}\n{size}\n{b64encode(root).decode()}\n"
    return f"{text}\n{''.join(key.line(text) for key in keys)}"


def note_of(records: Sequence[bytes], keys: Sequence[NoteKey]) -> str:
    tree = Tree([leaf(record) for record in records])
    return checkpoint(len(records), tree.root(0, len(records)), keys)


def receipt(records: Sequence[bytes], index: int, keys: Sequence[NoteKey]) -> str:
    tree, size = Tree([leaf(record) for record in records]), len(records)
    proof = "".join(f"{b64encode(one).decode()}\n" for one in tree.inclusion(index, 0, size))
    extra = b64encode(records[index]).decode()
    note = checkpoint(size, tree.root(0, size), keys)
    return f"c2sp.org/tlog-proof@v1\nextra {extra}\nindex {index}\n{proof}\n{note}"


def consistency_proof(records: Sequence[bytes], old: int, new: int) -> str:
    tree = Tree([leaf(record) for record in records[:new]])
    proof = tree.consistency(old, 0, new) if 0 < old < new else []
    return f"hsmsigner-consistency@v1\nold {old}\nnew {new}\n" + "".join(
        f"{b64encode(one).decode()}\n" for one in proof
    )


@dataclass
class Writer:
    """One export. Everything has an honest default; a test overrides what its attack changes."""

    records: Sequence[bytes]
    keys: Sequence[NoteKey]
    sizes: Sequence[int] = ()
    first: int = 0
    vkeys: Sequence[str] = ()
    statements: Sequence[dict[str, object]] = ()
    # Whose tree the tiles and checkpoints are of, when it is not that of the records.
    tiles_of: Sequence[bytes] | None = None
    checkpoints_of: Sequence[bytes] | None = None
    signers: dict[int, Sequence[NoteKey]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        size = len(self.records)
        self._write_records(folder)
        self._write_tiles(folder, Tree([leaf(record) for record in self.tiles_of or self.records]))
        signed = self.checkpoints_of or self.records
        tree = Tree([leaf(record) for record in signed])
        notes = {
            at: checkpoint(at, tree.root(0, at), self.signers.get(at, self.keys)) for at in (*self.sizes, len(signed))
        }
        lines = [json.dumps({"time": TIME, "note": note}) for _, note in sorted(notes.items())]
        (folder / "checkpoints.jsonl.gz").write_bytes(gzip.compress("".join(f"{one}\n" for one in lines).encode()))
        logs = [key.vkey for key in self.keys if key.kind != 0x04]
        log_key = {"key": "keys/audit-log", "vkeys": list(self.vkeys) or logs, "statements": list(self.statements)}
        (folder / "log-key.json").write_text(json.dumps(log_key), "utf-8")
        header = {"format": "hsmsigner-export@v1", "origin": ORIGIN, "first": self.first, "size": size}
        (folder / "export.json").write_text(json.dumps(header), "utf-8")
        (folder / "checkpoint").write_text(notes[len(signed)], "utf-8")
        return folder

    def _write_records(self, folder: Path) -> None:
        (folder / "records").mkdir(parents=True)
        for begin in range(self.first, len(self.records), SEGMENT):
            lines = b"".join(record + b"\n" for record in self.records[begin : begin + SEGMENT])
            write_segment(folder, begin // SEGMENT, lines)

    def _write_tiles(self, folder: Path, tree: Tree) -> None:
        level = 0
        while level * 8 < len(tree.levels) and tree.levels[level * 8]:
            whole = tree.levels[level * 8]
            for number in range(-(-len(whole) // 256)):
                part = whole[number * 256 : number * 256 + 256]
                path = folder / "tile" / str(level) / tile_name(number)
                if len(part) < 256:
                    path = path.with_name(f"{path.name}.p") / str(len(part))
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"".join(part))
            level += 1


def write_segment(folder: Path, segment: int, lines: bytes) -> None:
    (folder / "records" / f"{segment:06}.jsonl.gz").write_bytes(gzip.compress(lines, 1))


def tile_name(number: int) -> str:
    """1234567 is x001/x234/567 (C2SP tlog-tiles)."""
    digits = f"{number:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    return "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
