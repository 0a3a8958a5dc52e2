"""The tree's tiles as records are appended: each is written once, when its 256 hashes are there.

Until then the level-0 tile is carried in memory from one committed transaction to the next. What is carried is only a
copy: the newest records have all of it, and are read again whenever it does not fit the log as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, exists, insert, select

from hsmsigner.domain.record import Entry
from hsmsigner.store.about import Described, Kind, kinds_of, request_prefixes, signature_prefixes, texts_of
from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.prepared import Prepared
from hsmsigner.store.schema import audit_records, kind_tiles, record_kinds, tile_prefixes, tree_tiles
from hsmsigner.transparency.merkle import leaf_hash
from hsmsigner.transparency.proof import TILE_SIZE, tile_root

# Kinds that are remembered from tile to tile.
_MOST_KNOWN = 10_000
_KIND = ("type", "key", "principal")
_IS_KIND = [record_kinds.c[name] == bindparam(f"of_{name}") for name in _KIND]
_READ_OPEN = (
    select(audit_records.c.record)
    .where(audit_records.c.sequence >= bindparam("start"))
    .order_by(audit_records.c.sequence)
)
_READ_ROOTS = (
    select(tree_tiles.c.root)
    .where(
        tree_tiles.c.level == bindparam("of_level"),
        tree_tiles.c.number >= bindparam("first"),
        tree_tiles.c.number < bindparam("first") + TILE_SIZE,
    )
    .order_by(tree_tiles.c.number)
)
_INSERT_TILE = Prepared(insert(tree_tiles), ("level", "number", "root", "hashes"))
_INSERT_PREFIXES = Prepared(insert(tile_prefixes), ("tile", "request_ids", "signatures"))
# A kind that is not there yet, and that a tile has records of a kind: no round trip for each.
_INSERT_KIND = Prepared(
    insert(record_kinds).from_select(
        _KIND, select(*(bindparam(f"of_{name}") for name in _KIND)).where(~exists().where(*_IS_KIND))
    ),
    tuple(f"of_{name}" for name in _KIND),
)
_INSERT_KIND_TILE = Prepared(
    insert(kind_tiles).from_select(
        ("kind", "tile"), select(record_kinds.c.kind, bindparam("of_tile")).where(*_IS_KIND)
    ),
    (*(f"of_{name}" for name in _KIND), "of_tile"),
)


@dataclass(frozen=True, slots=True)
class OpenTile:
    """The records of a log of `size` records that came after the last full tile: fewer than 256.

    `entries` are what was appended, or the stored bytes; only when the tile is full are they looked into. `known` are
    some kinds that the store has for sure.
    """

    size: int
    last_leaf: bytes
    leaves: tuple[bytes, ...] = ()
    entries: tuple[Entry | bytes, ...] = ()
    known: frozenset[Kind] = frozenset()

    def is_of(self, size: int, last_leaf: bytes) -> bool:
        """Whether this is the end of a log that ends so. The last leaf stands for all before it: they are chained."""
        return (self.size, self.last_leaf) == (size, last_leaf)


class Appended(NamedTuple):
    """Records that are being appended, and the roots of the level-0 tiles that they fill."""

    leaves: Sequence[bytes]
    entries: Sequence[Entry]
    tile_roots: Sequence[bytes]


def read_open_tile(connection: Connection, size: int, last_leaf: bytes) -> OpenTile:
    """The open tile of the log as it is stored.

    Raises:
        LogDamagedError: the newest records are not those that were written.
    """
    records = connection.execute(_READ_OPEN, {"start": size - size % TILE_SIZE}).scalars().all()
    leaves = tuple(leaf_hash(record) for record in records if isinstance(record, bytes))
    if len(leaves) != size % TILE_SIZE or (leaves and leaves[-1] != last_leaf):
        raise LogDamagedError("the newest audit records are not those that were written")
    return OpenTile(size, last_leaf, leaves, tuple(records))


def write_tiles(connection: Connection, tile: OpenTile, appended: Appended) -> OpenTile:
    """Write the tiles that are full with these records; gives the tile that is open then.

    Raises:
        LogDamagedError: tiles below are missing.
    """
    leaves, entries = (*tile.leaves, *appended.leaves), (*tile.entries, *appended.entries)
    number, known = tile.size // TILE_SIZE, tile.known
    start = 0
    for root in appended.tile_roots:
        part = slice(start, start + TILE_SIZE)
        _write_hashes(connection, (0, number), leaves[part], root)
        known = _write_finders(connection, number, [_described(entry) for entry in entries[part]], known)
        number, start = number + 1, start + TILE_SIZE
    return OpenTile(tile.size + len(appended.leaves), leaves[-1], leaves[start:], entries[start:], known)


def _write_hashes(connection: Connection, place: tuple[int, int], hashes: Sequence[bytes], root: bytes) -> None:
    """Write a full tile at a level and number, and the one above it if that is full now."""
    level, number = place
    _INSERT_TILE.run(connection, [(level, number, root, b"".join(hashes))])
    above, position = divmod(number, TILE_SIZE)
    if position == TILE_SIZE - 1:
        roots = read_roots(connection, level, above * TILE_SIZE)
        if len(roots) != TILE_SIZE:
            raise LogDamagedError(f"tiles of the audit log's tree are missing below tile {above} of level {level + 1}")
        _write_hashes(connection, (level + 1, above), roots, tile_root(roots))


def _write_finders(
    connection: Connection, number: int, records: Sequence[Described], known: frozenset[Kind]
) -> frozenset[Kind]:
    """Write what finds the records of a full level-0 tile; gives the kinds that are known then."""
    kinds = kinds_of(records)
    new = [kind for kind in kinds if kind not in known]
    if new:
        _INSERT_KIND.run(connection, new)
        # A log may have any number of kinds: when they become many, those of this tile are the likeliest to come again.
        known = known.union(new) if len(known) < _MOST_KNOWN else frozenset(kinds)
    _INSERT_KIND_TILE.run(connection, [(*kind, number) for kind in kinds])
    _INSERT_PREFIXES.run(connection, [(number, request_prefixes(records), signature_prefixes(records))])
    return known


def read_roots(connection: Connection, level: int, first: int) -> list[bytes]:
    """Roots of up to 256 full tiles, from number `first` on."""
    return list(connection.execute(_READ_ROOTS, {"of_level": level, "first": first}).scalars())


def _described(entry: Entry | bytes) -> Described:
    if isinstance(entry, Entry):
        return entry.type, entry.fields
    # Read back from the store, where somebody else may have made it anything.
    texts = texts_of(entry)
    return texts.get("type", ""), texts
