"""Audit records: what each type says. One JSON object per record, compact, UTF-8; digests, never messages.

A record's bytes are fixed here once and are the leaf of the tree; nothing re-serialises them later.
"""

from __future__ import annotations

from math import isfinite
from types import NoneType
from typing import Any

from msgspec import Struct
from msgspec.json import Encoder

from hsmsigner.domain.decision import Allow, Deny
from hsmsigner.domain.denial import DenialTotal
from hsmsigner.domain.instant import format_instant
from hsmsigner.domain.signing import SigningRequest

_encode = Encoder().encode
_SCALARS = frozenset({str, int, bool, NoneType})
_TEXT = frozenset({str})

FIRST_PREVIOUS_HASH = bytes(32)
DENIED = "sign.denied"


class Entry(Struct, frozen=True, gc=False):
    """A record before it has its place in the log: its type and the fields of the type."""

    type: str
    fields: dict[str, Any]


def encode_record(entry: Entry, sequence: int, time: str, previous_hash: bytes) -> bytes:
    """The exact bytes that are stored and hashed. `time` is RFC 3339 with six decimals.

    Raises:
        TypeError: a field is, or holds, something else than texts, finite numbers, truth values, lists and objects.
    """
    nested = [value for value in entry.fields.values() if type(value) not in _SCALARS]
    if nested and not _is_written_one_way(nested):
        raise TypeError(f"a field of {entry.type} is of a type that records do not have")
    head = {"sequence": sequence, "time": time, "type": entry.type, "previous_hash": previous_hash.hex()}
    return _encode(head | entry.fields)


def authorized(request: SigningRequest, allow: Allow, policy_revision: int, *, is_resumed: bool) -> Entry:
    """`sign.authorized`: the decision and its debits, durable before the token is asked (P2)."""
    fields = _request_fields(request) | {
        "key": str(allow.version.name),
        "algorithm": allow.version.algorithm.name,
        "policy_revision": policy_revision,
        "debits": [
            {"quota": debit.quota.quota_id, "counter": debit.counter, "observed": debit.observed + 1,
             "limit": debit.quota.count}
            for debit in allow.debits
        ],
    }  # fmt: skip
    if is_resumed:
        fields["resumed"] = True
    return Entry("sign.authorized", fields)


def denied(request: SigningRequest, deny: Deny, policy_revision: int) -> Entry:
    """`sign.denied`: nothing was debited and nothing signed."""
    fields = _request_fields(request)
    # Who may not sign cannot write texts of its choice into the log either.
    fields.pop("labels", None)
    fields |= {
        "key": str(request.name),
        "policy_revision": policy_revision,
        "reason": deny.reason.value,
        "rule": deny.rule,
        "observed": deny.observed,
        "limit": deny.limit,
    }
    return Entry(DENIED, fields)


def denials(total: DenialTotal, policy_revision: int) -> Entry:
    """`sign.denied` for many of a kind: `count` of them since `since`, none of which has a record of its own."""
    kind = total.kind
    fields = {"principal": kind.principal, "key": kind.key, "policy_revision": policy_revision, "reason": kind.reason}
    return Entry(DENIED, fields | {"count": total.count, "since": format_instant(total.since)})


def outcome(kind: str, principal: str, request_id: str, key: str, authorized_sequence: int, **more: Any) -> Entry:
    """`sign.completed`, `sign.failed` or `sign.interrupted`: how an authorization ended."""
    fields = {"request_id": request_id, "principal": principal, "key": key, "authorized": authorized_sequence}
    return Entry(f"sign.{kind}", fields | more)


def _is_written_one_way(value: object) -> bool:
    """Whether it is plain JSON: the encoder would write NaN as null, and bytes in some form of its own."""
    if isinstance(value, dict):
        return _TEXT.issuperset(map(type, value)) and _is_written_one_way(list(value.values()))
    if isinstance(value, list):
        return _SCALARS.issuperset(map(type, value)) or all(map(_is_written_one_way, value))
    return type(value) in _SCALARS or (isinstance(value, float) and isfinite(value))


def _request_fields(request: SigningRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "request_id": request.request_id,
        "principal": request.principal.text,
        "input": request.kind.value,
        "input_sha256": request.body_sha256.hex(),
        "output_format": request.output_format.value,
    }
    if request.labels:
        fields["labels"] = dict(request.labels)
    return fields
