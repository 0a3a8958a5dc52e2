"""Tiles, kinds and prefixes of a log that was written before there were any; part of migration 0003, as fixed as that.

Reads the log once, in order, and keeps no more than a tile of it in memory. Whether its tree comes out as the store
says is seen right after, when the store is opened.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

_log = logging.getLogger(__name__)

_TILE = 256
_PREFIX = 4
_TELL_EVERY = 4096  # tiles: about a million records

_INSERT_TILE = sa.text("INSERT INTO tree_tiles (level, number, root, hashes) VALUES (:level, :number, :root, :hashes)")
_INSERT_KIND = sa.text("INSERT INTO record_kinds (kind, type, key, principal) VALUES (:kind, :type, :key, :principal)")
_INSERT_KIND_TILE = sa.text("INSERT INTO kind_tiles (kind, tile) VALUES (:kind, :tile)")
_INSERT_PREFIXES = sa.text(
    "INSERT INTO tile_prefixes (tile, request_ids, signatures) VALUES (:tile, :request_ids, :signatures)"
)
_READ = sa.text(
    "SELECT sequence, record FROM audit_records WHERE sequence >= :start AND sequence < :end ORDER BY sequence"
)


class BackfillError(Exception):
    """The log that is there cannot be hashed into a tree; the text says why."""


def fill(connection: sa.Connection) -> None:
    """Write the tiles of all records that are there.

    Raises:
        BackfillError: a record is missing.
    """
    size: int = connection.execute(sa.text("SELECT log_size FROM appliance WHERE id = 1")).scalar_one()
    full = size // _TILE
    roots: list[list[bytes]] = []
    kinds: dict[tuple[str, str, str], int] = {}
    for tile in range(full):
        records = _read_tile(connection, tile)
        _write_level(connection, roots, 0, tile, [hashlib.sha256(b"\x00" + record).digest() for record in records])
        _write_finders(connection, kinds, tile, [_fields(record) for record in records])
        if tile % _TELL_EVERY == _TELL_EVERY - 1:
            _log.warning("hashing the log of before: %d of %d records", (tile + 1) * _TILE, size)


def _read_tile(connection: sa.Connection, tile: int) -> list[bytes]:
    rows = connection.execute(_READ, {"start": tile * _TILE, "end": (tile + 1) * _TILE}).all()
    if [row.sequence for row in rows] != list(range(tile * _TILE, (tile + 1) * _TILE)):
        raise BackfillError(f"audit records are missing between {tile * _TILE} and {(tile + 1) * _TILE - 1}")
    # Whatever somebody else wrote is hashed all the same, and then does not fit the tree.
    return [row.record if isinstance(row.record, bytes) else str(row.record).encode() for row in rows]


def _write_level(
    connection: sa.Connection, roots: list[list[bytes]], level: int, number: int, hashes: Sequence[bytes]
) -> None:
    """Write a full tile; `roots` has, of each level, those of the tiles that are in no full tile above yet."""
    root = _root(hashes)
    connection.execute(_INSERT_TILE, {"level": level, "number": number, "root": root, "hashes": b"".join(hashes)})
    if level == len(roots):
        roots.append([])
    roots[level].append(root)
    if len(roots[level]) == _TILE:
        below, roots[level] = roots[level], []
        _write_level(connection, roots, level + 1, number // _TILE, below)


def _write_finders(
    connection: sa.Connection, kinds: dict[tuple[str, str, str], int], tile: int, records: list[Mapping[str, Any]]
) -> None:
    here = dict.fromkeys(
        (_text(one, "type"), _text(one, "key").partition("/versions/")[0], _text(one, "principal")) for one in records
    )
    for kind in here:
        if kind not in kinds:
            kinds[kind] = len(kinds) + 1
            row = {"kind": kinds[kind], "type": kind[0], "key": kind[1], "principal": kind[2]}
            connection.execute(_INSERT_KIND, row)
    connection.execute(_INSERT_KIND_TILE, [{"kind": kinds[kind], "tile": tile} for kind in here])
    prefixes = {
        "tile": tile,
        "request_ids": _join(_hashed, (_text(one, "request_id") for one in records)),
        "signatures": _join(_unhex, (_text(one, "signature_sha256") for one in records)),
    }
    connection.execute(_INSERT_PREFIXES, prefixes)


def _join(shorten: Callable[[str], bytes], values: Iterable[str]) -> bytes:
    return b"".join(shorten(value) for value in dict.fromkeys(values) if value)


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:_PREFIX]


def _unhex(text: str) -> bytes:
    try:
        return bytes.fromhex(text[: 2 * _PREFIX])
    except ValueError:
        return b""


def _fields(record: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(record)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""


def _root(hashes: Sequence[bytes]) -> bytes:
    nodes = list(hashes)
    while len(nodes) > 1:
        pairs = range(0, len(nodes), 2)
        nodes = [hashlib.sha256(b"\x01" + nodes[index] + nodes[index + 1]).digest() for index in pairs]
    return nodes[0]
