"""Verifies an export in one pass: every record, every hash, every checkpoint, and what the records tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import islice

from hsmsigner.verifier.chain import FIRST_PREVIOUS_HASH, Links
from hsmsigner.verifier.export_files import SEGMENT, Export, Head, segment_path
from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning import Meaning
from hsmsigner.verifier.merkle import leaf_hash
from hsmsigner.verifier.record import parse_record
from hsmsigner.verifier.tiles import WIDTH, TileTree, stored_leaves

Progress = Callable[[int, int], None]
_TELL_EVERY = 2**14


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found to be whole."""

    size: int
    root: bytes
    records: int
    checkpoints: int
    last_time: str


class ExportVerifier:
    """One pass over one export. `known` are heads from elsewhere that its tree must have had as well."""

    def __init__(self, export: Export, meaning: Meaning, known: Sequence[Head], progress: Progress) -> None:
        newest = export.newest
        head = Head(newest.size, newest.root, "root", "the newest checkpoint")
        for one in known:
            if one.size > export.size:
                raise VerificationError(
                    "rollback", export.size, f"the export has {export.size} records, and {one.what} is of {one.size}:"
                    " the log was set back"
                )  # fmt: skip
        self._export = export
        self._meaning = meaning
        self._progress = progress
        self._tree = TileTree(export.folder)
        heads = [*sorted(known, key=_size), head]
        self._heads: Iterator[Head] = merge(heads, export.checkpoints(), key=_size)
        self._head: Head | None = next(self._heads)
        # Up to here the tree was that of a checkpoint.
        self._met = 0
        self._checkpoints = 0
        # The line at hand and those after it, to say more exactly what is wrong.
        self._line = b""
        self._lines: Iterator[bytes] = iter(())

    def run(self, last_time: str = "") -> Verified:
        """Verify everything. `last_time` is that of the record before the first.

        Raises:
            VerificationError: the first fault of the records, the tree or a checkpoint. Faults of meaning are left in
                the `Meaning`.
            OSError: a file cannot be read.
        """
        export, tree = self._export, self._tree
        self._meet()
        for number in range(export.first // WIDTH):
            for leaf in stored_leaves(export.folder, export.size, number):
                tree.add(leaf)
                self._meet()
                previous_hash = leaf.hex()
            if tree.size % _TELL_EVERY == 0:
                self._progress(tree.size, export.size)
        links = Links(previous_hash=previous_hash if export.first else FIRST_PREVIOUS_HASH, last_time=last_time)
        for segment in range(export.first // SEGMENT, -(-export.size // SEGMENT)):
            try:
                self._read(segment, links)
            except VerificationError as error:
                raise self._refined(error, links) from error
        self._line = b""
        try:
            tree.finish()
        except VerificationError as error:
            raise self._refined(error, links) from error
        self._progress(export.size, export.size)
        return Verified(export.size, tree.root, export.size - export.first, self._checkpoints, links.last_time)

    def _read(self, segment: int, links: Links) -> None:
        """One segment. Runs for every record: what is asked often stands in locals."""
        tree, follow, judge = self._tree, links.follow, self._meaning.judge
        add, sequence = tree.add, segment * SEGMENT
        end = min(sequence + SEGMENT, self._export.size)
        path = segment_path(segment)
        self._lines = self._export.folder.lines(path)
        next_head = self._next_size()
        for line in self._lines:
            if sequence == end:
                raise VerificationError("extended", end, f"{path} goes on after record {end - 1}, where it must end")
            self._line = line
            fields, leaf = follow(sequence, line)
            judge(sequence, fields)
            add(leaf)
            sequence += 1
            if sequence == next_head:
                self._meet()
                next_head = self._next_size()
            if not sequence % _TELL_EVERY:
                self._progress(sequence, self._export.size)
        if sequence < end:
            raise VerificationError(
                "truncated", sequence, f"{path} ends before record {sequence}, and must go on to record {end - 1}"
            )

    def _next_size(self) -> int:
        return -1 if self._head is None else self._head.size

    def _meet(self) -> None:
        """Compare the tree with every head of its size."""
        tree = self._tree
        while self._head is not None and self._head.size == tree.size:
            if self._head.root != tree.root:
                raise self._contradiction(self._head)
            self._met = tree.size
            self._checkpoints += self._head.fault == "checkpoint"
            self._head = next(self._heads, None)

    def _contradiction(self, head: Head) -> VerificationError:
        place = self._tree.first_differing(self._export.size)
        if place is not None:
            return _changed(place, f"{head.what} is not over it either")
        suspects = f"records {self._met} to {head.size - 1}" if head.size > self._met else "no records"
        return VerificationError(
            head.fault,
            self._met,
            f"{head.what}, of size {head.size}, is not over these records: the root of its tree is {head.root.hex()},"
            f" and theirs {self._tree.root.hex()}. What was changed is among {suspects}, or the checkpoint is of"
            " another history",
        )

    def _refined(self, error: VerificationError, links: Links) -> VerificationError:
        """Ask the tiles which record is wrong: they are a second witness, beside its neighbours."""
        place = error.sequence
        if place is None:
            return error
        if error.fault == "tile":
            return self._refined_tile(error, place)
        if error.fault == "sequence":
            return self._refined_sequence(error, place)
        if error.fault == "previous_hash" and place > self._export.first:
            stored = self._stored(place - 1)
            if stored is not None and stored.hex() != links.previous_hash:
                return _changed(place - 1, f"record {place} does not follow from it either")
        if error.fault in ("previous_hash", "time", "unparsable"):
            stored = self._stored(place)
            if stored is not None and stored != leaf_hash(self._line):
                return _changed(place, str(error))
        return error

    def _refined_tile(self, error: VerificationError, place: int) -> VerificationError:
        """The last record before the end of a tile: only what follows it can tell which of the two is wrong."""
        tree, stored = self._tree, self._stored(place)
        if place != tree.size - 1 or stored is None:
            return error
        if place + 1 == self._export.size:
            is_changed = tree.root != self._export.newest.root
        else:
            after = next(self._lines, b"")
            is_changed = after != b"" and parse_record(place + 1, after).get("previous_hash") == stored.hex()
        return _changed(place, "what follows it says so too") if is_changed else error

    def _refined_sequence(self, error: VerificationError, place: int) -> VerificationError:
        """A record that is genuine stands in another's place, or one that is not was given another number."""
        found = parse_record(place, self._line).get("sequence")
        if type(found) is not int or not 0 <= found < self._export.size:
            return error
        if self._stored(found) != leaf_hash(self._line):
            return error
        if found < place:
            return VerificationError("order", place, f"record {found} stands again where record {place} must stand")
        wanted = self._stored(place)
        if any(leaf_hash(line) == wanted for line in islice(self._lines, SEGMENT)):
            return VerificationError(
                "order", place, f"record {found} stands where record {place} must stand, which comes later: moved"
            )
        return VerificationError("gap", place, f"record {place} is missing: record {found} comes in its place")

    def _stored(self, index: int) -> bytes | None:
        return self._tree.stored_leaf(index, self._export.size)


def _changed(sequence: int, why: str) -> VerificationError:
    message = f"record {sequence} is not the one whose hash is in the tree: it was changed ({shown(why)[1:-1]})"
    return VerificationError("changed", sequence, message)


def _size(head: Head) -> int:
    return head.size
