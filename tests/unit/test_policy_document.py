"""`policy.yaml`: a good one means what it says; a faulty one is refused whole, every fault with its line and field."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.pattern import Pattern
from hsmsigner.domain.policy import InputKind, Right
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.domain.positioned_yaml import MAX_DOCUMENT_BYTES, DocumentError, Problem
from hsmsigner.domain.quota import Quota

GOOD = """\
version: 1
groups:
  engines: ["spiffe://bank.example/settlement/*", "dns:engine.bank.example"]
  ops: ["spiffe://bank.example/ops/*"]
grants:
  - principals: [group:engines, "cn:legacy"]
    keys: ["keys/settlement-*"]
    rights: [sign, get_public_key]
  - {principals: [group:ops], keys: ["**"], rights: [create_key, read_audit]}
keys:
  - match: keys/settlement-*
    inputs: [message]
    quotas:
      - {id: burst, count: 50, per: 1s, by: [principal]}
      - {id: day, count: 20000, per: 1d}
  - match: keys/test
    inputs: [message, digest]
    quotas: unlimited
"""
ENGINE = "spiffe://bank.example/settlement/engine-1"


def problems(document: str | bytes) -> list[Problem]:
    with pytest.raises(DocumentError) as caught:
        parse_policy(document.encode() if isinstance(document, str) else document, 1)
    assert caught.value.problems
    assert str(caught.value) == "\n".join(map(str, caught.value.problems))
    return caught.value.problems


def edited(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} must be there exactly once"
    return GOOD.replace(old, new)


def test_a_good_document_becomes_the_policy_it_describes() -> None:
    policy = parse_policy(GOOD.encode(), 3)

    assert (policy.revision, policy.sha256) == (3, hashlib.sha256(GOOD.encode()).hexdigest())
    engines, operators = policy.grants
    assert [pattern.text for pattern in engines.principals] == [
        "spiffe://bank.example/settlement/*",
        "dns:engine.bank.example",
        "cn:legacy",
    ]
    assert engines.rights == {Right.SIGN, Right.GET_PUBLIC_KEY}
    assert operators.keys == (Pattern("**"),)
    entitlement = policy.entitlement(ENGINE, "keys/settlement-eu")
    assert entitlement.rights == {Right.SIGN, Right.GET_PUBLIC_KEY}
    assert entitlement.inputs == {InputKind.MESSAGE}
    assert entitlement.quotas == (
        Quota("burst", 50, 1_000_000, by_principal=True),
        Quota("day", 20_000, 86_400_000_000, by_principal=False),
    )


def test_unlimited_said_aloud_means_no_quota() -> None:
    entitlement = parse_policy(GOOD.encode(), 1).entitlement(ENGINE, "keys/test")
    assert entitlement.has_key_rule
    assert entitlement.quotas == ()
    assert entitlement.inputs == {InputKind.MESSAGE, InputKind.DIGEST}


@pytest.mark.parametrize("principal", [ENGINE, "spiffe://bank.example/ops/olga", "cn:legacy", "dns:other", ""])
def test_no_right_is_implied_by_another(principal: str) -> None:
    policy = parse_policy(GOOD.encode(), 1)
    held = {right for right in Right if policy.holds_somewhere(principal, right)}
    over_any = policy.entitlement(principal, "keys/settlement-eu").rights
    assert held == over_any
    assert held in (set(), {Right.SIGN, Right.GET_PUBLIC_KEY}, {Right.CREATE_KEY, Right.READ_AUDIT})


@pytest.mark.parametrize(
    "document",
    [
        GOOD.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + GOOD.encode(),
        b"--- # a policy\n" + GOOD.encode() + b"...\n",
        edited("count: 50", "count: 0").encode(),
        edited(", by: [principal]", ", by: []").encode(),
        GOOD.encode().ljust(MAX_DOCUMENT_BYTES, b"\n"),
        b"{version: 1, grants: [], keys: []}",
    ],
    ids=["crlf", "bom", "markers", "count 0", "by nobody", "256 KiB", "empty"],
)
def test_unusual_but_good_documents_are_read(document: bytes) -> None:
    assert parse_policy(document, 1).sha256 == hashlib.sha256(document).hexdigest()


def test_an_empty_policy_gives_nobody_anything() -> None:
    policy = parse_policy(b"{version: 1, grants: [], keys: []}", 1)
    entitlement = policy.entitlement(ENGINE, "keys/settlement-eu")
    assert (entitlement.rights, entitlement.inputs, entitlement.has_key_rule) == (frozenset(), frozenset(), False)


DAY = "      - {id: day, count: 20000, per: 1d}\n"
UNLIMITED = "    quotas: unlimited\n"


@pytest.mark.parametrize(
    ("document", "line", "field", "words"),
    [
        (edited("version: 1", "version: 2"), 1, "version", "should be 1"),
        (edited("version: 1", 'version: "1"'), 1, "version", "should be 1"),
        (edited("version: 1\n", ""), 1, "version", "is missing"),
        (edited("grants:", "grant:"), 1, "grants", "is missing"),
        (
            edited("rights: [sign, get", "rights: [sgn, get"),
            8,
            "grants[0].rights[0]",
            "should be 'sign', 'sign_digest'",
        ),
        (
            edited("rights: [sign, get", "rights: [SIGN, get"),
            8,
            "grants[0].rights[0]",
            "should be 'sign', 'sign_digest'",
        ),
        (edited("rights: [create_key, read_audit]", "rights: []"), 9, "grants[1].rights", "at least 1 item"),
        (edited("rights: [create_key, read_audit]", "rights: all"), 9, "grants[1].rights", "valid list"),
        (edited('keys: ["keys/settlement-*"]', "keys: []"), 7, "grants[0].keys", "at least 1 item"),
        (edited('keys: ["keys/settlement-*"]', "keys: [1]"), 7, "grants[0].keys[0]", "valid string"),
        (
            edited('keys: ["keys/settlement-*"]', "keys: [keys/a**]"),
            7,
            "grants[0].keys[0]",
            "`**` must be a whole segment",
        ),
        (
            edited('keys: ["keys/settlement-*"]', "keys: ['keys/***']"),
            7,
            "grants[0].keys[0]",
            "`**` must be a whole segment",
        ),
        (edited('keys: ["keys/settlement-*"]', "keys: ['a b']"), 7, "grants[0].keys[0]", "match pattern"),
        (edited('keys: ["keys/settlement-*"]', "keys: ['a|b']"), 7, "grants[0].keys[0]", "match pattern"),
        (edited('keys: ["keys/settlement-*"]', "keys: ['']"), 7, "grants[0].keys[0]", "at least 1 character"),
        (edited('keys: ["keys/settlement-*"]', f"keys: [{'a' * 513}]"), 7, "grants[0].keys[0]", "at most 512"),
        (edited("group:engines,", "group:engine,"), 6, "grants[0].principals[0]", "group 'engine' is not defined"),
        (edited("group:engines,", '"group:",'), 6, "grants[0].principals[0]", "group '' is not defined"),
        (edited('ops: ["spiffe://bank.example/ops/*"]', "ops: []"), 4, "groups.ops", "at least 1 item"),
        (edited("  ops:", "  Ops:"), 4, "groups.Ops", "match pattern"),
        (edited(DAY, "      - {id: burst, count: 1, per: 1d}\n"), 15, "keys[0].quotas[1].id", "'burst' is used twice"),
        (edited(UNLIMITED, "    quotas: [{id: day, count: 1, per: 1s}]\n"), 18, "keys[1].quotas[0].id", "used twice"),
        (edited(UNLIMITED, "    quotas: null\n"), 18, "keys[1].quotas", "write `quotas: unlimited`"),
        (edited(UNLIMITED, "    quotas:\n"), 18, "keys[1].quotas", "write `quotas: unlimited`"),
        (edited(UNLIMITED, "    quotas: []\n"), 18, "keys[1].quotas", "write `quotas: unlimited`"),
        (edited(UNLIMITED, "    quotas: Unlimited\n"), 18, "keys[1].quotas", "write `quotas: unlimited`"),
        (edited(UNLIMITED, "    quotas: {id: x, count: 1, per: 1s}\n"), 18, "keys[1].quotas", "at least one quota"),
        (edited(UNLIMITED, ""), 16, "keys[1].quotas", "is missing"),
        (edited("count: 50", "count: true"), 14, "keys[0].quotas[0].count", "valid integer"),
        (edited("count: 50", "count: 1.5"), 14, "keys[0].quotas[0].count", "valid integer"),
        (edited("count: 50", "count: 1.0"), 14, "keys[0].quotas[0].count", "valid integer"),
        (edited("count: 50", 'count: "50"'), 14, "keys[0].quotas[0].count", "valid integer"),
        (edited("count: 50", "count: -1"), 14, "keys[0].quotas[0].count", "greater than or equal to 0"),
        (edited("count: 50", "count: 1000000000001"), 14, "keys[0].quotas[0].count", "less than or equal"),
        (edited("count: 50, ", ""), 14, "keys[0].quotas[0].count", "is missing"),
        (edited("per: 1s", "per: 0s"), 14, "keys[0].quotas[0].per", "whole number with s, m, h or d"),
        (edited("per: 1s", "per: 1"), 14, "keys[0].quotas[0].per", "valid string"),
        (edited("per: 1s", "per: 1.5s"), 14, "keys[0].quotas[0].per", "whole number with s, m, h or d"),
        (edited("per: 1s", "per: 1w"), 14, "keys[0].quotas[0].per", "whole number with s, m, h or d"),
        (edited("by: [principal]", "by: [creditor]"), 14, "keys[0].quotas[0].by[0]", "should be 'principal'"),
        (edited("by: [principal]", "by: [principal, principal]"), 14, "keys[0].quotas[0].by", "at most 1 item"),
        (edited("by: [principal]", "burst: 3"), 14, "keys[0].quotas[0].burst", "is not a known field here"),
        (edited("id: burst", "id: Burst"), 14, "keys[0].quotas[0].id", "match pattern"),
        (edited("id: burst", "id: b|rst"), 14, "keys[0].quotas[0].id", "match pattern"),
        (edited("inputs: [message]", "inputs: [payload]"), 12, "keys[0].inputs[0]", "should be 'message' or 'digest'"),
        (edited("inputs: [message]", "inputs: []"), 12, "keys[0].inputs", "at least 1 item"),
        (edited("    inputs: [message]\n", ""), 11, "keys[0].inputs", "is missing"),
        (edited("- match: keys/test", "- match: [keys/test]"), 16, "keys[1].match", "valid string"),
        (GOOD + "rules: []\n", 19, "rules", "is not a known field here"),
        ("[]", 1, "(document)", "valid dictionary"),
        ("policy", 1, "(document)", "valid dictionary"),
    ],
)
def test_a_fault_is_named_with_its_line_and_field(document: str, line: int, field: str, words: str) -> None:
    found = next(problem for problem in problems(document) if problem.field == field)
    assert found.line == line
    assert found.column > 0
    assert words in found.message


def test_all_faults_are_reported_in_the_order_of_the_document() -> None:
    faulty = """\
version: 7
groups: {Ops: [a]}
grants:
  - {principals: [], keys: [k], rights: [fly]}
keys:
  - match: k
    inputs: [message]
    quotas:
      - {id: q, count: -1, per: 0s}
    extra: 1
"""
    assert [(problem.line, problem.field) for problem in problems(faulty)] == [
        (1, "version"),
        (2, "groups.Ops"),
        (4, "grants[0].principals"),
        (4, "grants[0].rights[0]"),
        (9, "keys[0].quotas[0].count"),
        (9, "keys[0].quotas[0].per"),
        (10, "keys[0].extra"),
    ]


def test_several_undefined_groups_and_twice_used_ids_are_all_reported() -> None:
    faulty = """\
version: 1
grants:
  - {principals: [group:a, "cn:x", group:b], keys: [k], rights: [sign]}
keys:
  - {match: k, inputs: [message], quotas: [{id: q, count: 1, per: 1s}, {id: q, count: 1, per: 1m}]}
  - {match: l, inputs: [message], quotas: [{id: q, count: 1, per: 1s}]}
"""
    assert [(problem.line, problem.field) for problem in problems(faulty)] == [
        (3, "grants[0].principals[0]"),
        (3, "grants[0].principals[2]"),
        (5, "keys[0].quotas[1].id"),
        (6, "keys[1].quotas[0].id"),
    ]


@pytest.mark.parametrize(
    "fragment",
    [
        "[]", "{}", "''", "null", "~", "yes", "0", "-1", ".nan", "1_0", "0x1", "a: b",
        "'\\u0000'", '"\\0"', "group:x", "**",
        "!!int ''", "!!float ''", "!!bool maybe", "!!null x", "!!map []", "!!seq {}", "!!str []",
        "*a", "&a b", "? x", "|",
        '"\\U00110000"', '"\\UFFFFFFFF"', '"\\ud800"', "2020-01-01", "<<", "=", "%", "@", "`", "\t", "\u2028", "\x85",
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["1", "50", "1s", "[principal]", "[message]", "unlimited", "keys/test"])
def test_any_value_in_any_place_is_either_read_or_refused_with_a_reason(fragment: str, place: str) -> None:
    document = GOOD.replace(f": {place}", f": {fragment}", 1).encode("utf-8")
    # Anything but a DocumentError fails the test.
    with suppress(DocumentError):
        parse_policy(document, 1)


@settings(deadline=None, max_examples=300)
@given(document=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_random_bytes_never_raise_anything_but_a_document_error(document: bytes) -> None:
    with pytest.raises(DocumentError):
        parse_policy(document, 1)


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_a_damaged_document_never_raises_anything_but_a_document_error(data: st.DataObject) -> None:
    document = bytearray(GOOD.encode())
    pieces = st.sampled_from(
        [b"!!int ", b"!!bool ", b"&a ", b"*a", b"[", b"{", b"]", b'"\\U', b": ", b"- ", b"\n", b"\0"]
    )
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(document)))
        end = start + data.draw(st.integers(0, 12))
        document[start:end] = data.draw(st.binary(max_size=6) | pieces)
    with suppress(DocumentError):
        parse_policy(bytes(document), 1)
