"""A request's identity: what makes a retry the same request (P4)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.key import parse_name
from hsmsigner.domain.policy import InputKind, Right
from hsmsigner.domain.signing import SigningRequest, parse_request_id
from tests.unit.samples import OTHER_ENGINE, request

# SHA-256 of '18,7,3,1,1|keys/settlement-eu|message|RAW|a|b' and SHA-256('pay').
FINGERPRINT = "f962370895f8d632bc745bfe4a022cf9f73b637982324bce601d03a87e920692"
LABELS = st.dictionaries(st.text(min_size=1, max_size=6), st.text(max_size=6), max_size=4)
REQUESTS = st.builds(
    request,
    st.binary(min_size=1, max_size=40),
    name=st.sampled_from(["keys/a", "keys/b", "keys/a/versions/1", "keys/a/versions/11"]),
    kind=st.sampled_from(InputKind),
    output_format=st.sampled_from(OutputFormat),
    labels=LABELS,
)


def what_it_says(asked: SigningRequest) -> tuple[object, ...]:
    return (asked.name, asked.kind, asked.output_format, asked.labels, asked.body)


@given(first=REQUESTS, second=REQUESTS)
def test_two_requests_share_a_fingerprint_only_when_they_say_the_same(
    first: SigningRequest, second: SigningRequest
) -> None:
    assert (first.fingerprint() == second.fingerprint()) is (what_it_says(first) == what_it_says(second))


@given(asked=REQUESTS, body=st.binary(min_size=1, max_size=40), labels=LABELS)
def test_any_single_change_changes_the_fingerprint(asked: SigningRequest, body: bytes, labels: dict[str, str]) -> None:
    assume(body != asked.body)
    assume(tuple(sorted(labels.items())) != asked.labels)
    other_kind = InputKind.DIGEST if asked.kind is InputKind.MESSAGE else InputKind.MESSAGE
    changed = [
        replace(asked, name=parse_name("keys/c")),
        replace(asked, kind=other_kind),
        *(replace(asked, output_format=other) for other in OutputFormat if other is not asked.output_format),
        replace(asked, labels=tuple(sorted(labels.items()))),
        request(
            body,
            name=str(asked.name),
            kind=asked.kind,
            output_format=asked.output_format,
            labels=dict(asked.labels),
        ),
    ]
    fingerprints = {each.fingerprint() for each in (asked, *changed)}
    assert len(fingerprints) == len(changed) + 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a": "bc"}, {"ab": "c"}),
        ({"a": "b", "c": "d"}, {"a": "bcd"}),
        ({"a": "b", "c": "d"}, {"a": "b|c|d"}),
        ({"a": "1,2"}, {"a": "1", ",2": ""}),
        ({"a": ""}, {}),
        ({"a": "é"}, {"a": "e\u0301"}),
        ({"a": "|"}, {"a|": ""}),
    ],
)
def test_labels_that_only_look_alike_when_joined_differ(first: dict[str, str], second: dict[str, str]) -> None:
    assert request(labels=first).fingerprint() != request(labels=second).fingerprint()


def test_the_order_of_labels_is_no_difference() -> None:
    first, second = request(labels={"b": "2", "a": "1"}), request(labels={"a": "1", "b": "2"})
    assert first == second
    assert first.fingerprint() == second.fingerprint()


def test_principal_and_request_id_are_the_row_and_not_the_fingerprint() -> None:
    other = replace(
        request(), principal=OTHER_ENGINE, request_id=parse_request_id("0" * 8 + "-0000" * 3 + "-" + "0" * 12)
    )
    assert other.fingerprint() == request().fingerprint()


def test_a_fingerprint_does_not_change_between_releases() -> None:
    # Rows outlive an upgrade: a retry across it must still be recognised.
    assert request(labels={"a": "b"}).fingerprint().hex() == FINGERPRINT


def test_the_body_is_hashed_whole() -> None:
    assert request(b"pay").body_sha256 == hashlib.sha256(b"pay").digest()


@pytest.mark.parametrize(("kind", "right"), [(InputKind.MESSAGE, Right.SIGN), (InputKind.DIGEST, Right.SIGN_DIGEST)])
def test_blind_signing_needs_a_right_of_its_own(kind: InputKind, right: Right) -> None:
    assert request(kind=kind).right is right


@pytest.mark.parametrize("name", ["keys/a", "keys/a/versions/3"])
def test_a_request_knows_its_key_however_it_was_named(name: str) -> None:
    assert str(request(name=name).key) == "keys/a"
