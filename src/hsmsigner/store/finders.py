"""Finding records by request_id or signature: four bytes of each lie beside every full tile.

All prefixes of ten million records are some 60 MB, which SQLite looks through in a fraction of a second, outside the
GIL. An index would cost every signature more than that costs the few who ask.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, func, select

from hsmsigner.store.about import PREFIX_SIZE, fields_of, request_prefix
from hsmsigner.store.filters import has_bytes
from hsmsigner.store.schema import audit_records, tile_prefixes
from hsmsigner.store.state import read_first_sequence, read_size
from hsmsigner.transparency.proof import TILE_SIZE

# Tiles looked through in one go; wrong ones are rare, and a request has its records close together.
_TILES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Sought:
    """What a record must say to be found: a field's value, and the prefix it has beside its tile."""

    field: str
    value: str
    prefix: bytes

    @property
    def column(self) -> Any:
        """Where such prefixes lie."""
        return tile_prefixes.c.request_ids if self.field == "request_id" else tile_prefixes.c.signatures

    @property
    def text(self) -> str:
        """What every such record has in its bytes."""
        return f'"{self.field}":{json.dumps(self.value, ensure_ascii=False)}'


def request(request_id: str) -> Sought:
    """Records about this request_id."""
    return Sought("request_id", request_id, request_prefix(request_id))


def signature(signature_sha256: bytes) -> Sought:
    """Records of this signature."""
    return Sought("signature_sha256", signature_sha256.hex(), signature_sha256[:PREFIX_SIZE])


@dataclass(frozen=True, slots=True)
class Found:
    """Some of what was sought. `next_tile` is where to look on, None at the end.

    `sealed_below` is set when records that were sealed may be among what is sought: the first that is still here.
    """

    sequences: list[int]
    next_tile: int | None
    sealed_below: int | None


def find_some(connection: Connection, sought: Sought, from_tile: int) -> Found:
    """Look through the next tiles that may have what is sought, and behind the last through the open one."""
    first, size = read_first_sequence(connection), read_size(connection)
    prefix = bindparam(None, sought.prefix, type_=LargeBinary)
    candidates = (
        select(tile_prefixes.c.tile)
        .where(tile_prefixes.c.tile >= from_tile, func.instr(sought.column, prefix) > 0)
        .order_by(tile_prefixes.c.tile)
        .limit(_TILES_AT_ONCE)
    )
    tiles = list(connection.execute(candidates).scalars())
    next_tile = tiles[-1] + 1 if len(tiles) == _TILES_AT_ONCE else None
    sealed_below = first if any(tile * TILE_SIZE < first for tile in tiles) else None
    ranges = [(tile * TILE_SIZE, (tile + 1) * TILE_SIZE) for tile in tiles if tile * TILE_SIZE >= first]
    if next_tile is None:
        ranges.append((size - size % TILE_SIZE, size))
    sequences = [one for start, end in ranges for one in _find_between(connection, sought, start, end)]
    return Found(sequences, next_tile, sealed_below)


def _find_between(connection: Connection, sought: Sought, start: int, end: int) -> list[int]:
    query = (
        select(audit_records.c.sequence, audit_records.c.record)
        .where(audit_records.c.sequence >= start, audit_records.c.sequence < end, has_bytes(sought.text))
        .order_by(audit_records.c.sequence)
    )
    rows = connection.execute(query).all()
    return [sequence for sequence, record in rows if fields_of(record).get(sought.field) == sought.value]
