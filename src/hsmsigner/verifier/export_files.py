"""The small files of an export: what it says it holds, the log's keys, and the checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.folder import Folder
from hsmsigner.verifier.log_key import follow
from hsmsigner.verifier.note import MAX_NOTE_BYTES
from hsmsigner.verifier.record import TIME, parse_object
from hsmsigner.verifier.trust import OpenCheckpoint, Trust

FORMAT = "hsmsigner-export@v1"
SEGMENT = 65_536
_MAX_HEADER_BYTES = 2**16
_MAX_LOG_KEY_BYTES = 2**24
_LARGEST = 2**48


@dataclass(frozen=True, slots=True)
class Head:
    """A tree that the log must have had. `fault` and `what` are for when it had not."""

    size: int
    root: bytes
    fault: str
    what: str


@dataclass(frozen=True, slots=True)
class Export:
    """An export whose newest checkpoint is good: it holds the records `first` to `size` - 1."""

    folder: Folder
    trust: Trust
    first: int
    newest: OpenCheckpoint

    @property
    def size(self) -> int:
        """How many records the tree has, those before `first` included."""
        return self.newest.size

    def checkpoints(self) -> Iterator[Head]:
        """All checkpoints, each with good signatures, sizes rising.

        Raises:
            VerificationError: `missing`, `path`, `format`, `origin`, `signature`, `witness` or `rollback`.
        """
        size = -1
        for number, line in enumerate(self.folder.lines("checkpoints.jsonl.gz"), start=1):
            what = f"checkpoint {number} in checkpoints.jsonl.gz"
            fields = _object(line, what)
            note, stated = fields.get("note"), fields.get("time")
            if not isinstance(note, str) or not isinstance(stated, str) or not TIME.fullmatch(stated):
                raise VerificationError("format", None, f"{what} must have a time and a note")
            opened = self.trust.open(note.encode(errors="replace"), what, is_newest=False)
            if opened.size <= size:
                raise VerificationError("format", None, f"{what} has the size {opened.size} after {size}")
            if opened.size > self.size:
                raise VerificationError(
                    "rollback",
                    None,
                    f"{what} is of {opened.size} records, and the newest checkpoint of {self.size}: the log was set"
                    " back",
                )
            size = opened.size
            yield Head(opened.size, opened.root, "checkpoint", what)


def open_export(folder: Folder, trust: Trust, *, is_newest: bool = True) -> Export:
    """Read what an export says of itself. Of an archive (`is_newest` False) no quorum of witnesses is asked.

    Raises:
        VerificationError: `missing`, `path`, `format`, `origin`, `log_key`, `signature`, `witness`, `truncated` or
            `extended`.
        OSError: it cannot be read.
    """
    header = _object(folder.read("export.json", _MAX_HEADER_BYTES), "export.json")
    first, size = (_number(header, name) for name in ("first", "size"))
    if header.get("format") != FORMAT or first % SEGMENT or first > size:
        raise VerificationError(
            "format", None, f"export.json must be of the format {FORMAT}, its `first` a multiple of {SEGMENT} up to"
            f" `size`: {shown(header)}"
        )  # fmt: skip
    if header.get("origin") != trust.origin:
        raise VerificationError(
            "origin", None, f"the export is of {shown(header.get('origin'))}, and the trusted key of"
            f" {shown(trust.origin)}"
        )  # fmt: skip
    trust = follow(trust, folder.read("log-key.json", _MAX_LOG_KEY_BYTES))
    newest = trust.open(folder.read("checkpoint", MAX_NOTE_BYTES), "checkpoint", is_newest=is_newest)
    if newest.size != size:
        raise VerificationError(
            "truncated" if size < newest.size else "extended",
            min(size, newest.size),
            f"export.json says that there are {size} records, and the newest checkpoint counts {newest.size}",
        )
    return Export(folder, trust, first, newest)


def segment_path(segment: int) -> str:
    """Where the records of a segment lie."""
    return f"records/{segment:06}.jsonl.gz"


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        return parse_object(content)
    except ValueError as error:
        raise VerificationError("format", None, f"{what} cannot be read: {shown(str(error))}") from error


def _number(header: dict[str, Any], name: str) -> int:
    value = header.get(name)
    if type(value) is not int or not 0 <= value <= _LARGEST:
        raise VerificationError("format", None, f"`{name}` in export.json is {shown(value)}")
    return value
