"""The tree as it is stored: full tiles from their table, and the right edge from the newest records."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection, bindparam, func, select

from hsmsigner.store.damage import LogDamagedError
from hsmsigner.store.schema import audit_records, tree_tiles
from hsmsigner.store.state import read_size
from hsmsigner.store.tiles import read_roots
from hsmsigner.transparency.merkle import HASH_SIZE, leaf_hash, split_hashes
from hsmsigner.transparency.proof import TILE_HEIGHT, TILE_SIZE, TiledTree

_READ_HASHES = select(tree_tiles.c.hashes).where(
    tree_tiles.c.level == bindparam("of_level"), tree_tiles.c.number == bindparam("of_number")
)
_LAST_NUMBER = select(func.max(tree_tiles.c.number)).where(tree_tiles.c.level == bindparam("of_level"))
_READ_LEAVES = (
    select(audit_records.c.record)
    .where(audit_records.c.sequence >= bindparam("start"))
    .order_by(audit_records.c.sequence)
    .limit(TILE_SIZE)
)


def tree_of(connection: Connection, size: int) -> TiledTree:
    """The tree when it had this size.

    Raises:
        LookupError: the log has not so many records.
    """
    log_size = read_size(connection)
    if not 0 <= size <= log_size:
        raise LookupError(f"the log has {log_size} records, not {size}")
    return TiledTree(size, partial(read_hashes, connection, log_size))


def read_hashes(connection: Connection, log_size: int, level: int, number: int) -> list[bytes]:
    """Hashes of a tile, up to 256, of the tree of the whole log.

    Raises:
        LookupError: there is no such tile.
        LogDamagedError: it is not as it was written.
    """
    count = min(TILE_SIZE, (log_size >> (TILE_HEIGHT * level)) - TILE_SIZE * number)
    if count <= 0 or level < 0 or number < 0:
        raise LookupError(f"a tree of {log_size} leaves has no tile {number} of level {level}")
    if count == TILE_SIZE:
        stored = connection.execute(_READ_HASHES, {"of_level": level, "of_number": number}).scalar()
        hashes = split_hashes(stored) if isinstance(stored, bytes) else []
    elif level:
        hashes = read_roots(connection, level - 1, TILE_SIZE * number)
    else:
        records = connection.execute(_READ_LEAVES, {"start": TILE_SIZE * number}).scalars()
        hashes = [leaf_hash(record) for record in records if isinstance(record, bytes)]
    if len(hashes) != count or set(map(len, hashes)) != {HASH_SIZE}:
        raise LogDamagedError(f"tile {number} of level {level} of the audit log's tree is not as it was written")
    return hashes


def check_tiles(connection: Connection, log_size: int, root: bytes) -> None:
    """See that there are as many tiles as the log has filled, and that they and the newest records have this root.

    Reads what lies at the right edge, O(log n); that no other tile was changed, proofs show and the verifier finds.

    Raises:
        LogDamagedError: it is not so.
    """
    level, full = 0, log_size >> TILE_HEIGHT
    while True:
        last = connection.execute(_LAST_NUMBER, {"of_level": level}).scalar()
        if (last if last is not None else -1) != full - 1:
            message = f"level {level} of the audit log's tree ends with tile {last}, but {full} tiles are full"
            raise LogDamagedError(message)
        if not full:
            break
        level, full = level + 1, full >> TILE_HEIGHT
    if tree_of(connection, log_size).root() != root:
        raise LogDamagedError("the audit log's tiles and newest records do not have the root of its tree")
