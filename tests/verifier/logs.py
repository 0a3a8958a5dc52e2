"""Logs made up for the verifier: a short way to write records, chained as they must be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

ENGINE = "spiffe://test/settlement/engine-1"
KEY = "keys/settlement-eu"
V1 = f"{KEY}/versions/1"
START = datetime(2027, 1, 15, 8, tzinfo=UTC)
DOCUMENT = "the policy, in YAML, that the verifier does not read\n"
Fields = dict[str, Any]


def instant(seconds: float) -> str:
    return (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def quota(name: str, count: int, period_s: int, *, by_principal: bool = False, match: str = "keys/*") -> Fields:
    return {
        "match": match, "quota": name, "count": count, "period_us": period_s * 1_000_000,
        "by_principal": by_principal, "per_version": False,
    }  # fmt: skip


QUOTAS = [quota("burst", 5, 10, by_principal=True), quota("day", 1000, 86_400)]


def chained(entries: Iterable[Fields]) -> list[bytes]:
    """Records with their numbers and links. An entry says when (`at`, seconds after the start) and what."""
    records: list[bytes] = []
    previous_hash = "0" * 64
    for sequence, entry in enumerate(entries):
        head = {"sequence": sequence, "time": instant(entry.get("at", sequence)), "type": entry["type"]}
        rest = {name: value for name, value in entry.items() if name not in ("at", "type")}
        record = encode(head | {"previous_hash": previous_hash} | rest)
        previous_hash = sha256(b"\x00" + record).hexdigest()
        records.append(record)
    return records


def encode(fields: Fields) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def rewritten(records: Sequence[bytes], change: Callable[[list[Fields]], None]) -> list[bytes]:
    """Records changed by somebody who takes care to number and chain them anew."""
    fields = [json.loads(record) for record in records]
    change(fields)
    previous_hash, changed = "0" * 64, []
    for sequence, one in enumerate(fields):
        record = encode(one | {"sequence": sequence, "previous_hash": previous_hash})
        previous_hash = sha256(b"\x00" + record).hexdigest()
        changed.append(record)
    return changed


def published(revision: int = 1, quotas: Sequence[Fields] = QUOTAS, **more: object) -> Fields:
    return {
        "type": "policy.published", "principal": "hsmsigner:appliance", "revision": revision,
        "sha256": sha256(DOCUMENT.encode()).hexdigest(), "comment": "test", "document": DOCUMENT,
        "quotas": list(quotas), **more,
    }  # fmt: skip


def pair(version: str = V1, kind: str = "key.created", **more: object) -> Fields:
    return {
        "type": kind, "key": version.partition("/versions/")[0], "version": version, "principal": "ops",
        "algorithm": "ED25519", "public_key": "00", "local": True, "always_sensitive": True,
        "never_extractable": True, **more,
    }  # fmt: skip


def request_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


def authorized(
    number: int, *, at: float, observed: Sequence[int] | None = None, quotas: Sequence[Fields] = QUOTAS, **more: Any
) -> Fields:
    """`observed` are the counts after this debit, one per quota; 1 each unless given."""
    version, principal = more.get("key", V1), more.get("principal", ENGINE)
    debits = [
        {
            "quota": one["quota"],
            "counter": f"{version.partition('/versions/')[0]}|{one['quota']}|{one['period_us']}|"
            f"{principal if one['by_principal'] else '*'}",
            "observed": 1 if observed is None else observed[place],
            "limit": one["count"],
        }
        for place, one in enumerate(quotas)
    ]
    return {
        "type": "sign.authorized", "at": at, "request_id": request_id(number), "principal": principal,
        "input": "message", "input_sha256": f"{number:064x}", "output_format": "RAW", "key": version,
        "algorithm": "ED25519", "policy_revision": 1, "debits": debits, **more,
    }  # fmt: skip


def ended(number: int, record: int, *, at: float, kind: str = "completed", **more: object) -> Fields:
    fields = {"type": f"sign.{kind}", "at": at, "request_id": request_id(number), "principal": ENGINE, "key": V1}
    fields |= {"authorized": record}
    return fields | ({"signature_sha256": f"{number:064x}"} if kind == "completed" else {"cause": "test"}) | more


def signing(count: int, *, first_record: int = 2, every_s: float = 10.0) -> Iterator[Fields]:
    """`count` signatures one after another, far enough apart for every quota but `day`."""
    for number in range(count):
        at = (number + 1) * every_s
        yield authorized(number, at=at, observed=(1, number + 1))
        yield ended(number, first_record + 2 * number, at=at)


def honest(count: int = 300) -> list[bytes]:
    """A policy, a key and signatures: 2 + 2 * count records."""
    return chained([published(at=0), pair(at=0), *signing(count)])


def no_debits(number: int, *, at: float, **more: Any) -> Fields:
    """An authorization under a policy without quotas."""
    return authorized(number, at=at, quotas=(), **more)
