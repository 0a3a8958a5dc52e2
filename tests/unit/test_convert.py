"""The wire's edge: each field checked once, each fault with its reason and its field."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.api.convert import Converter, page_size, page_start, public_key, timestamp, wanted_algorithm
from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.formats import OutputFormat
from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import KeyState
from hsmsigner.domain.policy import InputKind
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.jobs import Signed
from hsmsigner.pb import keys_pb2, resources_pb2, signing_pb2
from tests.unit.samples import ENGINE, NOW, UUID, key, key_for, request, version

LIMIT = 1_000
CONVERTER = Converter(LIMIT, "SOFTWARE_TOKEN")


def wire(**changes: object) -> signing_pb2.SignRequest:
    """A good SignRequest with some fields changed; the checksum fits unless given."""
    fields: dict[str, object] = {"name": "keys/settlement-eu", "request_id": UUID, "message": b"pay"} | changes
    if "digest" in fields:
        del fields["message"]
    body = fields.get("digest", fields.get("message"))
    assert isinstance(body, bytes)
    return signing_pb2.SignRequest(**({"input_crc32c": google_crc32c.value(body)} | fields))


def without(field: str) -> signing_pb2.SignRequest:
    item = wire()
    item.ClearField(field)  # type: ignore[arg-type]  # the stub lists the names
    return item


def test_a_good_request_is_read_as_it_is() -> None:
    asked = CONVERTER.asked(wire(), ENGINE)
    assert asked.request == request()
    assert not asked.validate_only


def test_every_field_is_read() -> None:
    item = wire(
        name="keys/settlement-eu/versions/3",
        request_id=UUID.upper(),
        digest=bytes(32),
        output_format=signing_pb2.OUTPUT_FORMAT_DER,
        validate_only=True,
        labels={"b": "2", "a": "1"},
    )
    asked = CONVERTER.asked(item, ENGINE)
    assert asked.validate_only
    assert asked.request == request(
        bytes(32),
        name="keys/settlement-eu/versions/3",
        kind=InputKind.DIGEST,
        output_format=OutputFormat.DER,
        labels={"a": "1", "b": "2"},
    )


@pytest.mark.parametrize(("name", "number"), signing_pb2.OutputFormat.items())
def test_every_output_format_of_the_wire_is_known(name: str, number: int) -> None:
    expected = "RAW" if number == 0 else name.removeprefix("OUTPUT_FORMAT_")
    assert CONVERTER.asked(wire(output_format=number), ENGINE).request.output_format.value == expected


@pytest.mark.parametrize("where", ["", "requests[3]."])
@pytest.mark.parametrize(
    ("item", "reason", "field"),
    [
        (without("name"), Reason.INVALID_FIELD, "name"),
        (wire(name="settlement-eu"), Reason.INVALID_FIELD, "name"),
        (wire(name="keys/Settlement"), Reason.INVALID_FIELD, "name"),
        (without("request_id"), Reason.INVALID_FIELD, "request_id"),
        (wire(request_id="1"), Reason.INVALID_FIELD, "request_id"),
        (wire(request_id=UUID[:-1] + "\n"), Reason.INVALID_FIELD, "request_id"),
        (without("message"), Reason.INVALID_FIELD, "input"),
        (wire(message=b""), Reason.INVALID_FIELD, "message"),
        (wire(digest=b""), Reason.INVALID_FIELD, "digest"),
        (wire(message=b"x" * (LIMIT + 1)), Reason.MESSAGE_TOO_LARGE, "message"),
        (wire(digest=b"x" * (LIMIT + 1)), Reason.MESSAGE_TOO_LARGE, "digest"),
        (without("input_crc32c"), Reason.INVALID_FIELD, "input_crc32c"),
        (wire(input_crc32c=0), Reason.CHECKSUM_MISMATCH, "input_crc32c"),
        (wire(input_crc32c=google_crc32c.value(b"pat")), Reason.CHECKSUM_MISMATCH, "input_crc32c"),
        (wire(output_format=99), Reason.INVALID_FIELD, "output_format"),
        (wire(output_format=-1), Reason.INVALID_FIELD, "output_format"),
        (wire(labels={str(number): "" for number in range(17)}), Reason.INVALID_FIELD, "labels"),
        (wire(labels={"a": "v" * 256}), Reason.INVALID_FIELD, "labels"),
        (wire(labels={"a" * 64: ""}), Reason.INVALID_FIELD, "labels"),
        (wire(labels={"": "a"}), Reason.INVALID_FIELD, "labels"),
        (signing_pb2.SignRequest(), Reason.INVALID_FIELD, "name"),
    ],
)
def test_a_bad_field_is_refused_by_name(item: signing_pb2.SignRequest, reason: Reason, field: str, where: str) -> None:
    with pytest.raises(SignerError) as caught:
        CONVERTER.asked(item, ENGINE, where)
    assert (caught.value.reason, caught.value.field) == (reason, where + field)


@pytest.mark.parametrize("size", [1, LIMIT])
def test_a_message_up_to_the_limit_is_taken(size: int) -> None:
    assert CONVERTER.asked(wire(message=b"x" * size), ENGINE).request.body == b"x" * size


def test_a_checksum_of_zero_is_a_checksum() -> None:
    # CRC32C of these four bytes is 0, so `input_crc32c: 0` must count as given.
    body = b"\xab\x9b\xe0\x9b"
    assert google_crc32c.value(body) == 0
    assert CONVERTER.asked(wire(message=body), ENGINE).request.body == body


@given(wire_bytes=st.binary(max_size=60))
def test_whatever_parses_is_read_or_refused_with_a_reason(wire_bytes: bytes) -> None:
    item = wire()
    try:
        item.MergeFromString(wire_bytes)
    except Exception:  # noqa: BLE001 - protobuf's own refusal, before us
        return
    # Anything but a SignerError fails the test.
    with suppress(SignerError):
        CONVERTER.asked(item, ENGINE)


@pytest.mark.parametrize(("asked", "given_size"), [(0, 100), (1, 1), (1000, 1000)])
def test_a_page_size_is_the_one_asked_for_or_the_usual(asked: int, given_size: int) -> None:
    assert page_size(asked) == given_size


@pytest.mark.parametrize("asked", [-1, 1001, 2**31 - 1, -(2**31)])
def test_a_page_size_out_of_bounds_is_refused(asked: int) -> None:
    with pytest.raises(SignerError) as caught:
        page_size(asked)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "page_size")


@pytest.mark.parametrize(("token", "start"), [("", 0), ("0", 0), ("7", 7), ("9" * 18, 10**18 - 1)])
def test_a_page_token_of_ours_is_a_position(token: str, start: int) -> None:
    assert page_start(token) == start


@pytest.mark.parametrize(
    "token", ["-1", "+1", " 1", "1\n", "1.0", "0x1", "1_0", "\u0661", "²", "9" * 19, "abc", "9" * 100_000]
)
def test_a_page_token_that_is_not_ours_is_refused(token: str) -> None:
    with pytest.raises(SignerError) as caught:
        page_start(token)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "page_token")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_of_the_table_is_on_the_wire(name: str) -> None:
    number = resources_pb2.SigningAlgorithm.Value(f"SIGNING_ALGORITHM_{name}")
    assert wanted_algorithm(keys_pb2.CreateKeyRequest(algorithm=number)) is ALGORITHMS[name]
    assert CONVERTER.key_version(version(algorithm=ALGORITHMS[name])).algorithm == number


def test_the_wire_has_no_algorithm_that_the_table_lacks() -> None:
    names = {name.removeprefix("SIGNING_ALGORITHM_") for name in resources_pb2.SigningAlgorithm.keys()}  # noqa: SIM118 - an enum wrapper, no dict
    assert names == {*ALGORITHMS, "UNSPECIFIED"}


@pytest.mark.parametrize("number", [0, 99, -1])
def test_an_algorithm_that_is_none_is_refused(number: int) -> None:
    request_for = keys_pb2.CreateKeyRequest()
    request_for.algorithm = number  # type: ignore[assignment]  # an open enum takes any number off the wire
    with pytest.raises(SignerError) as caught:
        wanted_algorithm(request_for)
    assert caught.value.reason is Reason.ALGORITHM_NOT_SUPPORTED


@pytest.mark.parametrize("state", KeyState)
def test_every_state_has_its_number_on_the_wire(state: KeyState) -> None:
    shown = CONVERTER.key_version(version(state=state)).state
    assert resources_pb2.KeyState.Name(shown) == f"KEY_STATE_{state.value}"


def test_a_key_is_written_with_its_primary() -> None:
    shown = CONVERTER.key(key(version(1), version(2), primary=2))
    assert (shown.name, shown.primary.name) == ("keys/settlement-eu", "keys/settlement-eu/versions/2")
    assert shown.primary.protection_level == resources_pb2.PROTECTION_LEVEL_SOFTWARE_TOKEN


@pytest.mark.parametrize("name", ["ECDSA_P256_SHA256", "ECDSA_SECP256K1_KECCAK256"])
def test_a_public_key_is_written_in_every_form_that_exists(name: str) -> None:
    algorithm = ALGORITHMS[name]
    shown = public_key(version(algorithm=algorithm, public_key=key_for(algorithm)[1]))
    assert shown.der == key_for(algorithm)[1]
    assert shown.der_crc32c == google_crc32c.value(shown.der)
    assert shown.pem.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert bool(shown.jwk) is (algorithm.jws is not None)


def test_an_answer_says_who_signed_and_carries_its_checksum() -> None:
    signed = Signed(version(), b"signature", b"digest", 12, 7, Instant(NOW + 123_456))
    shown = signing_pb2.SignResult()
    CONVERTER.fill_result(shown, signed, UUID)
    assert (shown.request_id, shown.WhichOneof("outcome")) == (UUID, "response")
    response = shown.response
    assert (response.name, response.signature, response.digest) == (str(version().name), b"signature", b"digest")
    assert response.signature_crc32c == google_crc32c.value(b"signature")
    assert (response.audit_sequence, response.policy_revision, response.request_id) == (12, 7, UUID)
    assert response.authorize_time.ToMicroseconds() == NOW + 123_456
    assert response.algorithm == resources_pb2.SIGNING_ALGORITHM_ECDSA_P256_SHA256
    assert response.protection_level == resources_pb2.PROTECTION_LEVEL_SOFTWARE_TOKEN
    assert response.origin == resources_pb2.KEY_ORIGIN_GENERATED


def test_a_refusal_is_an_outcome_too() -> None:
    shown = signing_pb2.SignResult()
    CONVERTER.fill_result(shown, SignerError(Reason.QUOTA_EXCEEDED, "full"), UUID)
    assert (shown.request_id, shown.WhichOneof("outcome"), shown.error.message) == (UUID, "error", "full")


@given(instant=st.integers(0, 10**17))
def test_a_timestamp_is_exact_to_the_microsecond(instant: int) -> None:
    shown = timestamp(Instant(instant))
    assert shown.ToMicroseconds() == instant
    assert format_instant(Instant(instant)).startswith(shown.ToDatetime().strftime("%Y-%m-%dT%H:%M:%S"))


def test_a_public_key_is_written_once_however_often_its_version_signs() -> None:
    first = version(public_key=key_for(ALGORITHMS["ECDSA_P256_SHA256"])[1])
    later = replace(first, signature_count=5, revision=2, destroy_time=NOW, missing_time=NOW)
    assert public_key(later) is public_key(first)
    assert public_key(replace(first, state=KeyState.SUSPENDED)).state == resources_pb2.KEY_STATE_SUSPENDED


def test_a_compromised_version_is_shown_as_compromised_when_it_is_destroyed() -> None:
    seen = version(public_key=key_for(ALGORITHMS["ECDSA_P256_SHA256"])[1], state=KeyState.DESTROYED)
    assert public_key(seen).state == resources_pb2.KEY_STATE_DESTROYED
    compromised = replace(seen, scheduled_from=KeyState.COMPROMISED)
    assert public_key(compromised).state == resources_pb2.KEY_STATE_COMPROMISED


def test_destroyed_versions_leave_the_key_sets_and_compromised_ones_stay() -> None:
    gone = version(state=KeyState.DESTROYED)
    assert {state for state in KeyState if version(state=state).is_in_key_sets} == {*KeyState} - {KeyState.DESTROYED}
    assert replace(gone, scheduled_from=KeyState.COMPROMISED).is_in_key_sets
    assert not replace(gone, scheduled_from=KeyState.DEACTIVATED).is_in_key_sets
