"""What the store remembers of a record beside its bytes, so that it can be found again without an index of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

PREFIX_SIZE = 4


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


def kind_of(kind: object, fields: Mapping[str, Any]) -> Kind:
    """The kind of a record of this type with these fields."""
    return Kind(_text(kind), _text(fields.get("key")).partition("/versions/")[0], _text(fields.get("principal")))


def request_prefix(request_id: str) -> bytes:
    """First bytes of SHA-256 of a request_id: clients choose ids, and could choose many that begin alike."""
    return hashlib.sha256(request_id.encode(errors="surrogatepass")).digest()[:PREFIX_SIZE]


def request_prefixes(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Prefixes of all request_ids, each once, one after another."""
    ids = dict.fromkeys(_text(fields.get("request_id")) for fields in records)
    return b"".join(request_prefix(request_id) for request_id in ids if request_id)


def signature_prefixes(records: Iterable[Mapping[str, Any]]) -> bytes:
    """First bytes of every `signature_sha256`, one after another."""
    digests = (_text(fields.get("signature_sha256"))[: 2 * PREFIX_SIZE] for fields in records)
    return b"".join(_from_hex(digest) for digest in digests if digest)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _from_hex(digits: str) -> bytes:
    try:
        return bytes.fromhex(digits)
    except ValueError:
        # Nobody can ask for it, and it must not shift what follows out of place.
        return b""
