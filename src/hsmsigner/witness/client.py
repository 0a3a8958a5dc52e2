"""A witness behind HTTP: add-checkpoint of C2SP tlog-witness."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence

from hsmsigner.operations.ports.log import Checkpoint
from hsmsigner.operations.ports.witness import Cosignature, Fault, FaultKind, Prove
from hsmsigner.transparency.cosignature import find_cosignature
from hsmsigner.transparency.note import NoteError, NoteKey, read_lines, read_note, write_note
from hsmsigner.witness.exchange import Endpoint, Reply, exchange

MOST_PROOF_HASHES = 63
MOST_LINES = 64
_OK, _CONFLICT = 200, 409
_SIZE_TYPE = "text/x.tlog.size"
_SIZE = re.compile(rb"(0|[1-9][0-9]{0,18})\n?")
_REFUSALS = {
    400: "found the request malformed",
    403: "does not trust the key that signed the checkpoint: register the log's newest verification key there",
    404: "does not know this log, or its URL is wrong: register the log's origin and verification key there",
    429: "was asked too often",
}


class HttpWitness:
    """Asks one witness. `timeout_s` bounds each request with its answer; at most two are made per call."""

    def __init__(self, key: NoteKey, endpoint: Endpoint, timeout_s: float) -> None:
        self._key = key
        self._endpoint = endpoint
        self._timeout_s = timeout_s

    @property
    def name(self) -> str:
        """Its name in signature lines."""
        return self._key.name

    @property
    def line_start(self) -> str:
        """How its signature lines begin: 5 digits of base64 are the first 30 bits of the key id."""
        return f"\u2014 {self._key.name} {base64.b64encode(self._key.key_id).decode()[:5]}"

    def find_cosignature(self, note: str) -> Cosignature | None:
        """Its valid line in a note, if there is one."""
        try:
            found = find_cosignature(self._key, *read_note(note))
        except NoteError:
            return None
        return Cosignature(*found) if found is not None else None

    async def add_checkpoint(self, checkpoint: Checkpoint, old_size: int, prove: Prove) -> Cosignature | Fault:
        """Ask for a cosignature; when the witness says which size it knows, once more with the proof from there."""
        reply = await self._post(checkpoint, min(old_size, checkpoint.size), prove)
        if isinstance(reply, Reply) and reply.status == _CONFLICT:
            known = _known_size(reply)
            if known is None and old_size >= checkpoint.size:
                return _another_tree(checkpoint.size)
            if known is None:
                return Fault(FaultKind.BAD_ANSWER, "answered 409 without the size it has cosigned")
            if known > checkpoint.size:
                message = f"has cosigned {known} records, and is shown {checkpoint.size}: this log went back"
                return Fault(FaultKind.CONTRADICTED, message)
            reply = await self._post(checkpoint, known, prove)
            if isinstance(reply, Reply) and reply.status == _CONFLICT:
                message = "answered 409 with a size, and again to the proof from that size"
                is_fork = known == checkpoint.size
                return _another_tree(known) if is_fork else Fault(FaultKind.BAD_ANSWER, message)
        return self._judge(reply, checkpoint)

    async def _post(self, checkpoint: Checkpoint, old_size: int, prove: Prove) -> Reply | Fault:
        proof = await prove(old_size)
        body = request_body(checkpoint.note, old_size, proof)
        return await exchange(
            self._endpoint,
            "POST",
            "/add-checkpoint",
            body,
            content_type="text/plain; charset=utf-8",
            timeout_s=self._timeout_s,
        )

    def _judge(self, reply: Reply | Fault, checkpoint: Checkpoint) -> Cosignature | Fault:
        if isinstance(reply, Fault):
            return reply
        if reply.status == _OK:
            return self._cosignature(reply, checkpoint)
        if reply.status == 422:  # noqa: PLR2004 - as the protocol says
            message = "holds that this checkpoint does not extend the one it cosigned: a fork, or a fault of its own"
            return Fault(FaultKind.CONTRADICTED, message)
        if 300 <= reply.status < 400:  # noqa: PLR2004 - the redirects of HTTP
            return Fault(FaultKind.BAD_ANSWER, f"answered {reply.status}; redirects are not followed")
        said = _REFUSALS.get(reply.status, "has a trouble of its own" if reply.status >= 500 else "said no")  # noqa: PLR2004
        return Fault(FaultKind.REFUSED, f"{said} (HTTP {reply.status})")

    def _cosignature(self, reply: Reply, checkpoint: Checkpoint) -> Cosignature | Fault:
        if reply.body.count(b"\n") > MOST_LINES:
            return Fault(FaultKind.BAD_ANSWER, f"answered with more than {MOST_LINES} lines")
        try:
            lines = read_lines(reply.body.decode())
        except (UnicodeDecodeError, NoteError):
            return Fault(FaultKind.BAD_ANSWER, "answered with something else than signature lines")
        text, _ = read_note(checkpoint.note)
        try:
            found = find_cosignature(self._key, text, lines)
        except NoteError as error:
            return Fault(FaultKind.WRONG_SIGNATURE, str(error))
        if found is None:
            return Fault(FaultKind.BAD_ANSWER, "answered without a signature line of the configured key")
        return Cosignature(*found)


def request_body(note: str, old_size: int, proof: Sequence[bytes]) -> bytes:
    """What add-checkpoint is sent: the size that the proof begins from, the proof, and the log's own note.

    Lines of other witnesses are left out: they are nothing to this one.
    """
    if len(proof) > MOST_PROOF_HASHES:
        raise ValueError("no tree of less than 2^63 leaves has such a proof")
    text, lines = read_note(note)
    origin = text.partition("\n")[0]
    own = write_note(text, [line for line in lines if line.name == origin])
    hashes = [base64.b64encode(one).decode() for one in proof]
    return "\n".join([f"old {old_size}", *hashes, "", own]).encode()


def _known_size(reply: Reply) -> int | None:
    size = _SIZE.fullmatch(reply.body)
    is_size = reply.content_type.partition(";")[0].strip().lower() == _SIZE_TYPE
    return int(size[1]) if is_size and size is not None else None


def _another_tree(size: int) -> Fault:
    message = f"has cosigned another tree of {size} records: this log was forked, or the witness is at fault"
    return Fault(FaultKind.CONTRADICTED, message)
