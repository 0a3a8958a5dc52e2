"""Audit records: stable bytes with the promised fields, and never a message."""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode, urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hsmsigner.domain import record
from hsmsigner.domain.decision import Allow, Deny, Facts, decide
from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.policy import InputKind
from hsmsigner.domain.record import FIRST_PREVIOUS_HASH, Entry, encode_record
from hsmsigner.domain.signing import SigningRequest
from tests.unit.samples import ENGINE, NOW, SECOND, STRANGER, UUID, key, key_rule, policy, quota, request, version

HEAD = {"sequence", "time", "type", "previous_hash"}
REQUEST_FIELDS = {"request_id", "principal", "input", "input_sha256", "output_format"}
PREVIOUS = hashlib.sha256(b"previous").digest()


def encoded(entry: Entry) -> bytes:
    return encode_record(entry, 7, format_instant(NOW), PREVIOUS)


def authorized(asked: SigningRequest, *, is_resumed: bool = False) -> Entry:
    in_force = policy(key_rule(quota(5, SECOND, "burst"), quota(9, 60 * SECOND, "day", by_principal=True)))
    allow = decide(Facts(in_force, key(), {}), asked, NOW)
    assert isinstance(allow, Allow)
    return record.authorized(asked, allow, in_force.revision, is_resumed=is_resumed)


def denied(asked: SigningRequest) -> Entry:
    in_force = policy(key_rule(quota(0, SECOND, "none")))
    deny = decide(Facts(in_force, key(), {}), asked, NOW)
    assert isinstance(deny, Deny)
    return record.denied(asked, deny, in_force.revision)


def test_a_record_is_these_very_bytes() -> None:
    # What is hashed and stored must not change between releases for the same entry.
    entry = Entry("key.created", {"principal": "cn:é", "key": "keys/a"})
    assert encode_record(entry, 0, format_instant(Instant(0)), FIRST_PREVIOUS_HASH) == (
        b'{"sequence":0,"time":"1970-01-01T00:00:00.000000Z","type":"key.created",'
        b'"previous_hash":"' + b"0" * 64 + b'","principal":"cn:\xc3\xa9","key":"keys/a"}'
    )


def test_an_authorization_says_who_what_and_what_it_cost() -> None:
    fields = json.loads(encoded(authorized(request(labels={"batch": "7"}))))
    assert fields == {
        "sequence": 7,
        "time": "2027-01-15T08:00:00.000000Z",
        "type": "sign.authorized",
        "previous_hash": PREVIOUS.hex(),
        "request_id": UUID,
        "principal": ENGINE.text,
        "input": "message",
        "input_sha256": hashlib.sha256(b"pay").hexdigest(),
        "output_format": "RAW",
        "labels": {"batch": "7"},
        "key": "keys/settlement-eu/versions/1",
        "algorithm": "ECDSA_P256_SHA256",
        "policy_revision": 7,
        "debits": [
            {"quota": "burst", "counter": "keys/settlement-eu|burst|1000000|*", "observed": 1, "limit": 5},
            {
                "quota": "day",
                "counter": f"keys/settlement-eu|day|60000000|{ENGINE.text}",
                "observed": 1,
                "limit": 9,
            },
        ],
    }


def test_a_resumed_authorization_says_so() -> None:
    assert authorized(request(), is_resumed=True).fields["resumed"] is True
    assert "resumed" not in authorized(request()).fields


def test_a_refusal_says_rule_observed_and_limit() -> None:
    fields = json.loads(encoded(denied(request(name="keys/settlement-eu/versions/1"))))
    assert set(fields) == HEAD | REQUEST_FIELDS | {"key", "policy_revision", "reason", "rule", "observed", "limit"}
    assert fields["type"] == "sign.denied"
    assert fields["key"] == "keys/settlement-eu/versions/1"
    assert [fields[name] for name in ("reason", "rule", "observed", "limit")] == [
        "QUOTA_EXCEEDED",
        "quotas/none",
        "0",
        "0",
    ]


def test_a_refused_stranger_is_recorded_by_name() -> None:
    fields = json.loads(encoded(denied(request(principal=STRANGER))))
    assert (fields["principal"], fields["reason"]) == (STRANGER.text, "KEY_NOT_FOUND_OR_FORBIDDEN")


@pytest.mark.parametrize("kind", ["completed", "failed", "interrupted"])
def test_an_outcome_points_at_its_authorization(kind: str) -> None:
    entry = record.outcome(kind, "cn:a", UUID, "keys/a/versions/1", 3, cause="test")
    assert entry == Entry(
        f"sign.{kind}",
        {"request_id": UUID, "principal": "cn:a", "key": "keys/a/versions/1", "authorized": 3, "cause": "test"},
    )


@given(labels=st.dictionaries(st.text(min_size=1, max_size=9), st.text(max_size=9), max_size=3))
def test_whatever_the_labels_a_record_is_one_line_of_json_that_reads_back(labels: dict[str, str]) -> None:
    line = encoded(authorized(request(labels=labels)))
    fields = json.loads(line)
    assert fields.get("labels", {}) == labels
    assert b"\n" not in line
    assert set(fields) >= HEAD
    assert list(fields)[:4] == ["sequence", "time", "type", "previous_hash"]


@given(tail=st.binary(max_size=40), kind=st.sampled_from(InputKind))
def test_a_message_is_never_in_a_record(tail: bytes, kind: InputKind) -> None:
    body = b"\x01\xfe\x02\xfdIBAN" + tail
    asked = request(body, kind=kind)
    forms = (
        body,
        b"IBAN",
        body.hex().encode(),
        b64encode(body).rstrip(b"="),
        urlsafe_b64encode(body).rstrip(b"="),
        body.decode("latin-1").encode(),
    )
    for entry in (authorized(asked), denied(asked)):
        line = encoded(entry)
        assert not [form for form in forms if form in line]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", InputKind.MESSAGE, {1}])
def test_a_value_that_json_lacks_or_could_be_read_in_two_ways_is_not_written(value: object) -> None:
    for held in (value, [value], {"a": [{"b": value}]}):
        with pytest.raises(TypeError, match="a field of x is of a type that records do not have"):
            encoded(Entry("x", {"value": held}))


def test_names_of_fields_are_texts() -> None:
    with pytest.raises(TypeError, match="a field of x is of a type that records do not have"):
        encoded(Entry("x", {"labels": {1: "one"}}))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda held: st.lists(held, max_size=3) | st.dictionaries(st.text(), held, max_size=3),
    max_leaves=8,
)


@given(fields=st.dictionaries(st.text(), _JSON, max_size=4))
@example(fields={"text": '\x00\x1f"\\/\x7f\u2028\u2029\ufffe\U0001f600', "numbers": [2**63, -(2**63), 2**64, -1]})
def test_a_record_has_the_bytes_that_the_standard_library_would_write(fields: dict[str, Any]) -> None:
    head = {"sequence": 7, "time": format_instant(NOW), "type": "x", "previous_hash": PREVIOUS.hex()}
    expected = json.dumps(head | fields, ensure_ascii=False, separators=(",", ":")).encode()
    assert encoded(Entry("x", fields)) == expected


def test_a_version_is_named_in_full_wherever_a_key_was_asked_for() -> None:
    assert authorized(request()).fields["key"] == str(version().name)
