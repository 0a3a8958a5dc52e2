"""A log with a key of its own, a witness that keeps the protocol, and a server that answers whatever a test wants."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from tlog_scales.tlog import ConsistencyProof, ConsistencyProofInvalid

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.transparency.checkpoint import CheckpointBody, parse_checkpoint
from hsmsigner.transparency.cosignature import cosignature, cosigned_message
from hsmsigner.transparency.merkle import leaf_hash
from hsmsigner.transparency.note import KeyType, NoteKey, SignatureLine, read_note, write_note
from hsmsigner.transparency.proof import TILE_SIZE, TiledTree, tile_root

ORIGIN = "bank.example/log"
COSIGN_TIME_S = 1_800_000_123


def seeded_key(seed: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())


def note_key(name: str, key_type: KeyType, key: Ed25519PrivateKey) -> NoteKey:
    return NoteKey(name, key_type, key.public_key().public_bytes_raw())


@dataclass
class LogTwin:
    """A log in memory: records, proofs by the tree under test, and notes signed with a key of its own."""

    records: list[bytes]
    origin: str = ORIGIN
    signer: Ed25519PrivateKey = field(default_factory=lambda: seeded_key("log"))
    _full_tiles: dict[tuple[int, int], Sequence[bytes]] = field(default_factory=dict)

    @classmethod
    def of(cls, count: int, text: str = "record") -> LogTwin:
        return cls([f"{text} {number}".encode() for number in range(count)])

    @property
    def key(self) -> NoteKey:
        return note_key(self.origin, KeyType.ED25519, self.signer)

    def tree(self, size: int | None = None) -> TiledTree:
        return TiledTree(len(self.records) if size is None else size, self._tile)

    def checkpoint(self, size: int | None = None) -> Checkpoint:
        tree = self.tree(size)
        text = CheckpointBody(self.origin, tree.size, tree.root()).text
        note = write_note(text, [self.key.line(self.signer.sign(text.encode()))])
        return Checkpoint(tree.size, tree.root(), Instant(1_800_000_000_000_000 + tree.size), note)

    async def prove(self, old_size: int, size: int | None = None) -> list[bytes]:
        return self.tree(size).consistency_proof(old_size)

    def _tile(self, level: int, number: int) -> Sequence[bytes]:
        known = self._full_tiles.get((level, number))
        if known is None:
            known = list(self._hashes(level, number))
            if len(known) == TILE_SIZE:
                self._full_tiles[level, number] = known
        return known

    def _hashes(self, level: int, number: int) -> Iterator[bytes]:
        first, end = number * TILE_SIZE, (number + 1) * TILE_SIZE
        if level == 0:
            yield from map(leaf_hash, self.records[first:end])
            return
        for below in range(first, min(end, len(self.records) // TILE_SIZE**level)):
            yield tile_root(self._tile(level - 1, below))


@dataclass
class WitnessTwin:
    """A witness as the protocol wants it; its proofs are checked by a library that nobody here wrote."""

    name: str = "witness.example/w1"
    origin: str = ORIGIN
    log_key: NoteKey = field(default_factory=lambda: LogTwin([]).key)
    size: int = 0
    root: bytes = b""
    time_s: int = COSIGN_TIME_S
    asked: list[str] = field(default_factory=list)

    @property
    def signer(self) -> Ed25519PrivateKey:
        return seeded_key(self.name)

    @property
    def key(self) -> NoteKey:
        return note_key(self.name, KeyType.COSIGNATURE, self.signer)

    def line(self, note: str) -> SignatureLine:
        text, _ = read_note(note)
        return self.key.line(cosignature(self.time_s, self.signer.sign(cosigned_message(text, self.time_s))))

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        assert (method, path) == ("POST", "/add-checkpoint")
        self.asked.append(body.decode().partition("\n")[0])
        proof_lines, _, note = body.decode().partition("\n\n")
        old_line, *hashes = proof_lines.split("\n")
        old_size, shown = int(old_line.removeprefix("old ")), parse_checkpoint(note)
        text, lines = read_note(note)
        if shown.origin != self.origin:
            return http(404, b"unknown log\n")
        if not any(_is_signed(self.log_key, text, line) for line in lines):
            return http(403, b"unknown key\n")
        if old_size > shown.size:
            return http(400, b"old size above the checkpoint's\n")
        if old_size != self.size or (old_size == shown.size and self.root not in (b"", shown.root_hash)):
            return http(409, b"%d\n" % self.size, "text/x.tlog.size")
        if not self._extends(old_size, shown, [base64.b64decode(line) for line in hashes]):
            return http(422, b"no proof\n")
        self.size, self.root = shown.size, shown.root_hash
        return http(200, self.line(note).text.encode())

    def _extends(self, old_size: int, shown: CheckpointBody, proof: list[bytes]) -> bool:
        if old_size in (0, shown.size):
            return not proof
        try:
            ConsistencyProof(old_size, shown.size, proof).check(self.root, shown.root_hash)
        except ConsistencyProofInvalid:
            return False
        return True


def http(status: int, body: bytes = b"", content_type: str = "text/plain", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} said so", f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers]
    return ("\r\n".join(head) + "\r\n\r\n").encode() + body


def _is_signed(key: NoteKey, text: str, line: SignatureLine) -> bool:
    if (line.name, line.key_id) != (key.name, key.key_id):
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key.public_key).verify(line.signature, text.encode())
    except InvalidSignature:
        return False
    return True


# Gets method, path, headers and body of a request; writes whatever it likes, and may take its time.
Answering = Callable[[str, str, dict[str, str], bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answering: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """An HTTP server on loopback; gives its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            await answering(method, path, headers, body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone, as it may
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def always(*answers: bytes) -> Answering:
    """Answer each request with the next of these, and all further ones with the last."""
    left = list(answers)

    async def answer(
        _method: str, _path: str, _headers: dict[str, str], _body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()

    return answer


def played_by(witness: WitnessTwin) -> Answering:
    """Answer as this witness does."""

    async def answer(
        method: str, path: str, _headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(witness.answer(method, path, body))
        await writer.drain()

    return answer
