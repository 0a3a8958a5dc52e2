"""What the store remembers of a record beside its bytes, so that it can be found again without an index of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

PREFIX_SIZE = 4

# A record's type, and its fields.
Described = tuple[str, Mapping[str, Any]]


class Kind(NamedTuple):
    """What a filter may ask for. `key` is a key's name without a version; empty is what a record does not have."""

    type: str
    key: str
    principal: str


def fields_of(record: object) -> dict[str, Any]:
    """The fields of a stored record; none when somebody made it something that is no record."""
    try:
        fields = json.loads(record) if isinstance(record, bytes | str) else {}
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def texts_of(record: bytes) -> dict[str, str]:
    """The fields that are texts."""
    return {name: value for name, value in fields_of(record).items() if isinstance(value, str)}


# The three below take whole tiles and work on what differs: they run for every record that is ever appended.
def kinds_of(records: Sequence[Described]) -> list[Kind]:
    """The kinds of these records, each once."""
    raw = dict.fromkeys([(kind, fields.get("key"), fields.get("principal")) for kind, fields in records])
    kinds = (Kind(kind, (key or "").partition("/versions/")[0], principal or "") for kind, key, principal in raw)
    return list(dict.fromkeys(kinds))


def request_prefixes(records: Sequence[Described]) -> bytes:
    """Prefixes of all request_ids, each once, one after another."""
    ids = dict.fromkeys([fields.get("request_id") for _, fields in records])
    return b"".join([request_prefix(request_id) for request_id in ids if request_id])


def signature_prefixes(records: Sequence[Described]) -> bytes:
    """First bytes of every `signature_sha256`, one after another."""
    digests = [fields["signature_sha256"][: 2 * PREFIX_SIZE] for _, fields in records if "signature_sha256" in fields]
    return b"".join(map(_from_hex, digests))


def request_prefix(request_id: str) -> bytes:
    """First bytes of SHA-256 of a request_id: clients choose ids, and could choose many that begin alike."""
    return hashlib.sha256(request_id.encode("utf-8", "surrogatepass")).digest()[:PREFIX_SIZE]


def _from_hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        # Nobody can ask for it.
        return b""
