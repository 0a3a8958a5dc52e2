"""What each command of `hsmsigner-verify` checks, from paths and trust to what is told in the end."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from hsmsigner.verifier.chain import Edge
from hsmsigner.verifier.export import ExportVerifier, Progress, Verified
from hsmsigner.verifier.export_files import Export, Head, open_export
from hsmsigner.verifier.fault import VerificationError
from hsmsigner.verifier.folder import Folder, read_file
from hsmsigner.verifier.log_key import LOG_KEY, follow
from hsmsigner.verifier.meaning import Meaning
from hsmsigner.verifier.note import MAX_NOTE_BYTES
from hsmsigner.verifier.proofs import (
    MAX_PROOF_BYTES,
    MAX_RECEIPT_BYTES,
    check_order,
    leaves_of,
    verify_consistency,
    verify_receipt,
)
from hsmsigner.verifier.trust import OpenCheckpoint, Trust

_MAX_LOG_KEYS_BYTES = 2**24
_MAX_SIGNATURE_BYTES = 2**26
_TELL_EVERY = 2**14


@dataclass(slots=True)
class Told:
    """The outcome: one line for people, fields for programs, what was not checked, and every fault."""

    message: str
    fields: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[VerificationError] = field(default_factory=list)


def check_export(path: Path, archives: Sequence[Path], kept: Sequence[Path], trust: Trust, progress: Progress) -> Told:
    """Verify an export, after the archives of the records before it. `kept` are checkpoints it must have had.

    Raises:
        VerificationError: the first fault of the hashes or the files.
        OSError: something cannot be read.
    """
    with ExitStack() as stack:
        # All are opened and their checkpoints checked before the long work begins.
        exports = sorted(
            (open_export(stack.enter_context(Folder(one)), trust, is_newest=False) for one in archives),
            key=lambda export: export.first,
        )
        exports.append(open_export(stack.enter_context(Folder(path)), trust))
        meaning = Meaning(exports[0].first)
        verified: list[Verified] = []
        for export in exports:
            known = _known(export, exports, verified)
            if export is exports[-1]:
                trust = export.trust
                known += [_kept_head(trust, one) for one in kept]
            is_next = bool(verified) and verified[-1].size == export.first
            last_time = verified[-1].last_time if is_next else ""
            try:
                verified.append(ExportVerifier(export, meaning, known, progress).run(last_time))
            except VerificationError as error:
                if export is not exports[-1]:
                    raise VerificationError(error.fault, error.sequence, f"in {export.folder.path}: {error}") from error
                raise
    return _told(exports, verified, meaning)


def check_receipt(path: Path, log_keys: Path | None, signature: Path | None, trust: Trust) -> Told:
    """Verify a receipt.

    Raises:
        VerificationError: what is wrong.
        OSError: something cannot be read.
    """
    if log_keys is not None:
        trust = follow(trust, read_file(log_keys, _MAX_LOG_KEYS_BYTES))
    signed = None if signature is None else read_file(signature, _MAX_SIGNATURE_BYTES)
    receipt = verify_receipt(read_file(path, MAX_RECEIPT_BYTES), trust, signed)
    record = receipt.fields
    message = f"record {receipt.sequence} is in the log of {trust.origin}, below its {receipt.checkpoint.size} records"
    fields = {name: record[name] for name in ("time", "type", "principal", "key", "request_id") if name in record}
    told = Told(message, {"record": receipt.sequence})
    told.fields |= (
        fields
        | _seen(receipt.checkpoint.witnessed)
        | {"size": receipt.checkpoint.size, "root": receipt.checkpoint.root.hex()}
    )
    if signed is None:
        told.notes.append("no --signature was given: which signature the record is of was not checked")
    else:
        told.fields["signature_sha256"] = record["signature_sha256"]
        told.message += ", and is of this signature"
    return told


def check_proof(old: Path, new: Path, proof: Path, log_keys: Path | None, trust: Trust) -> Told:
    """Verify by a consistency proof that the log of one checkpoint is the beginning of the other's.

    Raises:
        VerificationError: what is wrong.
        OSError: something cannot be read.
    """
    if log_keys is not None:
        trust = follow(trust, read_file(log_keys, _MAX_LOG_KEYS_BYTES))
    before, after = _open_both(old, new, trust)
    verify_consistency(before, after, read_file(proof, MAX_PROOF_BYTES))
    return _grown(before, after)


def check_growth(old: Path, new: Path, export: Path, trust: Trust, progress: Progress) -> Told:
    """The same by the tiles of an export that holds both.

    Raises:
        VerificationError: what is wrong.
        OSError: something cannot be read.
    """
    with Folder(export) as folder:
        held = open_export(folder, trust, is_newest=False)
        before, after = _open_both(old, new, held.trust)
        check_order(before, after)
        heads = [Head(before.size, before.root, "fork", str(old)), Head(after.size, after.root, "fork", str(new))]
        _check_heads(held, heads, progress)
    return _grown(before, after)


def _open_both(old: Path, new: Path, trust: Trust) -> tuple[OpenCheckpoint, OpenCheckpoint]:
    before = trust.open(read_file(old, MAX_NOTE_BYTES), str(old), is_newest=False)
    return before, trust.open(read_file(new, MAX_NOTE_BYTES), str(new))


def _grown(before: OpenCheckpoint, after: OpenCheckpoint) -> Told:
    message = f"the log of {after.size} records begins with that of {before.size}: nothing in it was changed"
    fields = {"old_size": before.size, "size": after.size, "root": after.root.hex()}
    return Told(message, fields | _seen(after.witnessed))


def _check_heads(export: Export, heads: list[Head], progress: Progress) -> None:
    if heads[-1].size > export.size:
        message = f"the export has {export.size} records, and {heads[-1].what} is of {heads[-1].size}"
        raise VerificationError("rollback", export.size, message)
    edge, left = Edge(), [*heads, Head(export.size, export.newest.root, "tile", "the export's checkpoint")]
    leaves = leaves_of(export.folder, export.size)
    while left:
        head = left.pop(0)
        while edge.size < head.size:
            edge.add(next(leaves))
            if not edge.size % _TELL_EVERY:
                progress(edge.size, export.size)
        if edge.root != head.root:
            message = f"{head.what}, of size {head.size}, is not of the log in this export: its tree has another root"
            raise VerificationError(head.fault, None, message)


def _known(export: Export, exports: list[Export], verified: list[Verified]) -> list[Head]:
    """What is known of this export's tree from the archives before it, and that none is missing between them."""
    if verified and verified[-1].size < export.first:
        size = verified[-1].size
        raise VerificationError(
            "gap", size, f"{export.folder.path} begins with record {export.first}, and the archive before it ends with"
            f" record {size - 1}: an archive is missing"
        )  # fmt: skip
    return [
        Head(one.size, one.root, "fork", f"the archive {before.folder.path}")
        for before, one in zip(exports, verified, strict=False)
    ]


def _kept_head(trust: Trust, path: Path) -> Head:
    opened = trust.open(read_file(path, MAX_NOTE_BYTES), str(path), is_newest=False)
    return Head(opened.size, opened.root, "fork", f"the checkpoint that was kept in {path}")


def _strange_log_keys(exports: list[Export], meaning: Meaning) -> list[VerificationError]:
    """The log tells which versions its own key has; each that signs checkpoints must be one of them."""
    told = meaning.keys.log_public_keys
    if not told or exports[0].first:
        return []
    return [
        VerificationError("log_key", None, f"the records do not know the version {key.key_id.hex()} of {LOG_KEY}")
        for key in exports[-1].trust.keys
        if key.der.hex() not in told
    ]


def _told(exports: list[Export], verified: list[Verified], meaning: Meaning) -> Told:
    export, last = exports[-1], verified[-1]
    records = last.size - exports[0].first
    fields: dict[str, object] = {
        "origin": export.trust.origin,
        "size": last.size,
        "root": last.root.hex(),
        "records": records,
        "checkpoints": last.checkpoints,
        "last_time": last.last_time,
        "types": dict(sorted(meaning.types.items())),
        "checkpoint_sha256": sha256(export.newest.checkpoint.text).hexdigest(),
        **_seen(export.newest.witnessed),
    }
    message = f"{records} records of {export.trust.origin} are whole, and so is what they tell"
    told = Told(message, fields, faults=[*meaning.faults, *_strange_log_keys(exports, meaning)])
    if exports[0].first:
        told.notes.append(
            f"the records before {exports[0].first} are in an archive (--archive): neither they nor what later records"
            " refer to there were checked, only their hashes"
        )
    told.notes += meaning.doubts
    if not export.trust.witnesses:
        told.notes.append("no witness was asked for (--witness): who holds the PIN could show others another log")
    return told


def _seen(witnessed: dict[str, int]) -> dict[str, object]:
    return {"witnesses": dict(sorted(witnessed.items()))}
