"""Rules of meaning, one row each: a log that is whole, and tells of what must not happen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.pattern import Pattern
from hsmsigner.verifier.meaning import Meaning
from hsmsigner.verifier.meaning.pattern import covers
from tests.verifier.logs import (
    KEY,
    QUOTAS,
    V1,
    Fields,
    authorized,
    chained,
    ended,
    instant,
    no_debits,
    pair,
    published,
    quota,
    signing,
)

V2 = f"{KEY}/versions/2"
BEGIN = [published(at=0), pair(at=0)]


def judged(entries: Sequence[Fields], begin: int = 0) -> list[tuple[str, int | None]]:
    meaning = Meaning(begin)
    for record in chained(entries)[begin:]:
        fields = json.loads(record)
        meaning.judge(fields["sequence"], fields)
    return [(fault.fault, fault.sequence) for fault in meaning.faults]


def change(kind: str, at: float, version: str = V1, **more: object) -> Fields:
    return {"type": f"key.{kind}", "at": at, "key": KEY, "version": version, "principal": "ops", **more}


def activated(at: float, until: float) -> Fields:
    return change("activated", at, V2, old_version=V1, old_until=instant(until))


def sign(number: int, at: float, **more: Any) -> Fields:
    """One that is alone in every window but `day`."""
    return authorized(number, at=at, observed=(1, 1000), **more)


FREE = [published(at=0, quotas=()), pair(at=0)]
V2_MADE = pair(V2, "key.version_created", at=5)
RETURNED = {"debit_returned": True}
EACH = quota("each", 5, 10) | {"per_version": True}
EACH_DEBIT = {"quota": "each", "counter": f"{V1}|each|10000000|*", "observed": 1, "limit": 5}
DENIED = {"type": "sign.denied", "policy_revision": 7, "reason": "x"}


@dataclass(frozen=True)
class Row:
    name: str
    entries: list[Fields]
    fault: str
    sequence: int


FAULTY = [
    Row("first revision is not 1", [published(2, at=0)], "policy", 0),
    Row("revision left out", [published(at=0), published(3, at=1)], "policy", 1),
    Row("policy text changed", [published(at=0, document="other")], "policy", 0),
    Row("policy without its quotas", [published(at=0, quotas=()) | {"quotas": None}], "field", 0),
    Row("quota with a negative count", [published(at=0, quotas=[quota("x", -1, 1)])], "field", 0),
    Row("quota with a text for a count", [published(at=0, quotas=[QUOTAS[0] | {"count": "5"}])], "field", 0),
    Row("decided by an older revision", [*FREE, published(2, at=1, quotas=()), no_debits(0, at=2)], "policy", 3),
    Row("decided before any policy", [pair(at=0), no_debits(0, at=1)], "policy", 1),
    Row("decided by revision true", [*FREE, no_debits(0, at=1, policy_revision=True)], "field", 2),
    Row("refused by an older revision", [published(at=0), DENIED], "policy", 1),
    Row("zero refusals", [published(at=0), DENIED | {"policy_revision": 1, "count": 0}], "denial", 1),
    Row("negative refusals", [published(at=0), DENIED | {"policy_revision": 1, "count": -3}], "field", 1),
    Row("true refusals", [published(at=0), DENIED | {"policy_revision": 1, "count": True}], "field", 1),
    Row("debit left out", [*BEGIN, authorized(0, at=1, quotas=QUOTAS[:1])], "debit", 2),
    Row(
        "debit of another counter",
        [*BEGIN, authorized(0, at=1, quotas=[QUOTAS[0] | {"by_principal": False}, QUOTAS[1]])],
        "debit",
        2,
    ),
    Row(
        "debit with a higher limit",
        [*BEGIN, authorized(0, at=1, quotas=[QUOTAS[0] | {"count": 6}, QUOTAS[1]])],
        "debit",
        2,
    ),
    Row("counter set back", [*BEGIN, *signing(2), authorized(9, at=21, observed=(1, 1))], "debit", 6),
    Row(
        "debit of a resumed one",
        [*BEGIN, authorized(0, at=1), ended(0, 2, at=1, kind="interrupted"), authorized(0, at=11, resumed=True)],
        "debit",
        4,
    ),
    Row(
        "resumed by another version without the debit that each has of its own",
        [
            *[published(at=0, quotas=[EACH]), pair(at=0)],
            authorized(0, at=1, quotas=(), debits=[EACH_DEBIT]),
            ended(0, 2, at=1, kind="interrupted"),
            *[V2_MADE, activated(6, 60)],
            no_debits(0, at=7, resumed=True, key=V2),
        ],
        "debit",
        6,
    ),
    Row(
        "released though compromised",
        [*FREE, no_debits(0, at=1), change("compromised", 1), ended(0, 2, at=3)],
        "key_state",
        4,
    ),
    Row(
        "released though suspended and resumed",
        [*FREE, no_debits(0, at=1), change("suspended", 1), change("resumed", 2), ended(0, 2, at=3)],
        "key_state",
        5,
    ),
    Row(
        "resumed by nobody",
        [*FREE, no_debits(0, at=1, resumed=True) | {"principal": ["x"]}],
        "field",
        2,
    ),
    Row(
        "released though suspended",
        [*FREE, no_debits(0, at=1), change("suspended", 1), ended(0, 2, at=3)],
        "key_state",
        4,
    ),
    Row("authorized twice at once", [*FREE, no_debits(0, at=1), no_debits(0, at=2)], "authorization", 3),
    Row(
        "resumed though completed",
        [*FREE, no_debits(0, at=1), ended(0, 2, at=1), no_debits(0, at=2, resumed=True)],
        "authorization",
        4,
    ),
    Row(
        "resumed though returned",
        [*FREE, no_debits(0, at=1), ended(0, 2, at=1, kind="failed", **RETURNED), no_debits(0, at=2, resumed=True)],
        "authorization",
        4,
    ),
    Row(
        "resumed with another body",
        [
            *FREE,
            no_debits(0, at=1),
            ended(0, 2, at=1, kind="interrupted"),
            no_debits(0, at=2, resumed=True, input_sha256="f"),
        ],
        "authorization",
        4,
    ),
    Row(
        "resumed with another key",
        [
            *FREE,
            pair("keys/other/versions/1", at=0),
            no_debits(0, at=1),
            ended(0, 3, at=1, kind="interrupted"),
            no_debits(0, at=2, resumed=True, key="keys/other/versions/1"),
        ],
        "authorization",
        5,
    ),
    Row("completed twice", [*FREE, no_debits(0, at=1), ended(0, 2, at=1), ended(0, 2, at=2)], "outcome", 4),
    Row(
        "outcome of another principal", [*FREE, no_debits(0, at=1), ended(0, 2, at=1, principal="other")], "outcome", 3
    ),
    Row("outcome of another key", [*FREE, no_debits(0, at=1), ended(0, 2, at=1, key=V2)], "outcome", 3),
    Row("outcome of another record", [*FREE, no_debits(0, at=1), ended(0, 1, at=1)], "outcome", 3),
    Row(
        "outcome without a signature's hash",
        [*FREE, no_debits(0, at=1), ended(0, 2, at=1, signature_sha256=None)],
        "field",
        3,
    ),
    Row("signed by a key never made", [FREE[0], no_debits(0, at=1)], "key_state", 1),
    Row("signed by a version never made", [*FREE, no_debits(0, at=1, key=V2)], "key_state", 2),
    Row("signed before it is active", [*FREE, V2_MADE, no_debits(0, at=6, key=V2)], "key_state", 3),
    Row("signed after the overlap", [*FREE, V2_MADE, activated(6, 10), no_debits(0, at=10)], "key_state", 4),
    Row(
        "signed after it was deactivated",
        [*FREE, V2_MADE, activated(6, 6), change("deactivated", 6), no_debits(0, at=7)],
        "key_state",
        5,
    ),
    Row("signed while compromised", [*FREE, change("compromised", 1), no_debits(0, at=2)], "key_state", 3),
    Row("signed with another algorithm", [*FREE, no_debits(0, at=1, algorithm="RSA")], "key_state", 2),
    Row(
        "signed by one that could have left the token",
        [FREE[0], pair(at=0, never_extractable=False), no_debits(0, at=1)],
        "key_state",
        2,
    ),
    Row(
        "the log's key signs for a caller",
        [FREE[0], pair("keys/audit-log/versions/1", at=0), no_debits(0, at=1, key="keys/audit-log/versions/1")],
        "key_state",
        2,
    ),
    Row("resumed though active", [*FREE, change("resumed", 1)], "key_state", 2),
    Row("primary deactivated", [*FREE, change("deactivated", 1)], "key_state", 2),
    Row("destroyed at once", [*FREE, V2_MADE, change("destroyed", 6, V2)], "key_state", 3),
    Row(
        "destroyed without a word before",
        [*FREE, V2_MADE, change("destroy_scheduled", 6, V2), change("destroyed", 7, V2)],
        "key_state",
        4,
    ),
    Row(
        "restored after its destruction began",
        [
            *FREE,
            V2_MADE,
            change("destroy_scheduled", 6, V2),
            change("destroy_started", 7, V2),
            change("restored", 8, V2),
        ],
        "key_state",
        5,
    ),
    Row("another state than the record says", [*FREE, change("suspended", 1, **{"from": "SUSPENDED"})], "key_state", 2),
    Row("a version left out", [*FREE, pair(f"{KEY}/versions/3", "key.version_created", at=1)], "key_state", 2),
    Row(
        "another algorithm after a rotation",
        [*FREE, pair(V2, "key.version_created", at=1, algorithm="RSA")],
        "key_state",
        2,
    ),
    Row("a key made twice", [*FREE, pair(at=1)], "key_state", 2),
    Row(
        "taken over from another than the primary",
        [*FREE, V2_MADE, activated(6, 7), change("activated", 8, V2, old_version=V1, old_until=instant(9))],
        "key_state",
        4,
    ),
    Row(
        "request for a certificate that nothing announced",
        [*FREE, {"type": "key.csr", "key": V1, "principal": "ops"}],
        "outcome",
        2,
    ),
    Row(
        "statement that nothing announced", [*FREE, V2_MADE, change("continuity", 6, V2, old_version=V1)], "outcome", 3
    ),
    Row(
        "statement by a suspended version",
        [*FREE, V2_MADE, change("suspended", 6), change("continuity_authorized", 7, V2, old_version=V1)],
        "key_state",
        4,
    ),
    Row("a type without end", [{"type": "x" * 101, "at": 0}], "field", 0),
    Row("a day that never was", [{"type": "x", "time": "2027-02-31T00:00:00.000000Z"}], "time", 0),
    Row("a request_id without end", [*FREE, no_debits(0, at=1, request_id="x" * 4097)], "field", 2),
    Row("a type that is no text", [{"type": 5, "at": 0}], "field", 0),
    Row("a name that is none", [*FREE, change("suspended", 1, version="keys/../x")], "field", 2),
]


@pytest.mark.parametrize("row", FAULTY, ids=[row.name for row in FAULTY])
def test_faulty_log_is_found(row: Row) -> None:
    assert judged(row.entries)[:1] == [(row.fault, row.sequence)]


FINE = {
    "signatures": [*BEGIN, *signing(20)],
    "a debit that came back makes room": [
        published(at=0, quotas=[quota("two", 2, 10)]), pair(at=0),
        authorized(0, at=1, quotas=[quota("two", 2, 10)], observed=[1]),
        authorized(1, at=1, quotas=[quota("two", 2, 10)], observed=[2]),
        ended(1, 3, at=2, kind="failed", **RETURNED),
        authorized(1, at=2, quotas=[quota("two", 2, 10)], observed=[2]),
    ],
    "resumed under its first debit": [
        *BEGIN, authorized(0, at=1), ended(0, 2, at=1, kind="interrupted"),
        authorized(0, at=2, quotas=(), resumed=True), ended(0, 4, at=3, kind="failed"),
        authorized(0, at=4, quotas=(), resumed=True), ended(0, 6, at=5),
    ],
    "resumed with the version that took over": [
        *FREE, V2_MADE, no_debits(0, at=6), ended(0, 3, at=6, kind="interrupted"), activated(7, 10),
        no_debits(0, at=8, resumed=True, key=V2),
    ],
    "old version signs within the overlap": [
        *FREE, V2_MADE, activated(6, 10), no_debits(0, at=9), no_debits(1, at=9, key=V2),
    ],
    "old version is rotated out while it signs": [
        *FREE, V2_MADE, no_debits(0, at=6), activated(7, 8), change("deactivated", 8), ended(0, 3, at=9),
    ],
    "resumed by a new version that pays for itself": [
        published(at=0, quotas=[EACH]), pair(at=0), authorized(0, at=1, quotas=(), debits=[EACH_DEBIT]),
        ended(0, 2, at=1, kind="interrupted"), V2_MADE, activated(6, 60),
        no_debits(0, at=7, resumed=True, key=V2) | {"debits": [EACH_DEBIT | {"counter": f"{V2}|each|10000000|*"}]},
    ],
    "many refusals of an earlier revision": [
        published(at=0), published(2, at=1), DENIED | {"policy_revision": 1, "count": 40},
    ],
    "a record of a type that nobody knows": [*FREE, {"type": "appliance.something", "at": 1}],
    "the longest public key": [FREE[0], pair(at=0, public_key="30" * 550)],
    "an adopted version": [*FREE, pair(V2, "key.adopted", at=1), activated(2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("entries", FINE.values(), ids=FINE)
def test_honest_log_is_fine(entries: list[Fields]) -> None:
    assert judged(entries) == []


def test_log_whose_beginning_is_elsewhere_is_judged_by_what_is_there() -> None:
    entries = [*BEGIN, *signing(20), change("suspended", 300), sign(90, 301)]

    assert judged(entries, begin=10) == [("key_state", 43)]


def test_no_more_than_a_hundred_faults_are_kept() -> None:
    assert len(judged([*FREE, *(ended(number, 0, at=1) for number in range(300))])) == 100


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=60), st.integers(0, 4), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_every_window_is_recounted_as_the_definition_says(
    steps: list[tuple[int, bool]], limit: int, period_s: int
) -> None:
    """Against the plain count of debits in (t - period, t] that were not returned before t."""
    quotas = [quota("q", limit, period_s)]
    entries, debits, expected, at = [published(at=0, quotas=quotas), pair(at=0)], [], [], 0
    for number, (gap, is_returned) in enumerate(steps):
        at += gap
        debits.append(at)
        count = sum(at - period_s < one <= at for one in debits)
        sequence = len(entries)
        if count > limit:
            expected.append(("quota", sequence))
        entries += [
            authorized(number, at=at, quotas=quotas, observed=[max(limit, count)]),
            ended(number, sequence, at=at, kind="failed", debit_returned=is_returned),
        ]
        if is_returned:
            debits.remove(at)

    assert judged(entries) == expected


@given(
    st.lists(st.sampled_from(["*", "**", "a", "a*", "*b", "a*b", "", "keys"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "ab", "b", "aab", "keys", ""]), min_size=1, max_size=4),
)
def test_patterns_cover_what_the_appliance_says_they_cover(pattern: list[str], name: list[str]) -> None:
    assert covers("/".join(pattern), "/".join(name)) == Pattern("/".join(pattern)).matches("/".join(name))
