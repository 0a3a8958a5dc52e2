"""What is read from text: key names, request ids, labels, durations, instants, algorithm names."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsmsigner.domain.algorithm import ALGORITHMS, algorithm_named
from hsmsigner.domain.instant import Instant, format_instant, parse_duration_us
from hsmsigner.domain.key import KeyName, VersionName, parse_name
from hsmsigner.domain.signing import check_labels, parse_request_id
from hsmsigner.errors import Reason, SignerError
from tests.unit.samples import NOW, SECOND, UUID, key, version

NOT_KEY_IDS = [
    "", "A", "Settlement", "1a", "-a", "a-", "a_b", "a.b", "a b", "a/b", "a\n", "\na", "a\x00", "é", "\uff41", "a" * 64,
    "*", "a|b",
]  # fmt: skip


@pytest.mark.parametrize("key_id", ["a", "a1", "a-1", "settlement-eu", "a--b", "a" * 63])
def test_a_key_id_is_read_and_written_alike(key_id: str) -> None:
    name = KeyName.from_id(key_id)
    assert str(name) == f"keys/{key_id}"
    assert KeyName.parse(str(name)) == parse_name(str(name)) == name


@pytest.mark.parametrize("key_id", NOT_KEY_IDS)
def test_other_key_ids_are_refused_wherever_they_stand(key_id: str) -> None:
    with pytest.raises(SignerError) as bare:
        KeyName.from_id(key_id)
    assert (bare.value.reason, bare.value.field) == (Reason.INVALID_FIELD, "key_id")
    for text in (f"keys/{key_id}", f"keys/{key_id}/versions/1"):
        with pytest.raises(SignerError) as named:
            parse_name(text, "requests[3].name")
        assert (named.value.reason, named.value.field) == (Reason.INVALID_FIELD, "requests[3].name")


@pytest.mark.parametrize("number", [1, 9, 10, 999_999_999])
def test_a_version_name_is_read_and_written_alike(number: int) -> None:
    name = VersionName(KeyName("a"), number)
    assert parse_name(f"keys/a/versions/{number}") == name
    assert str(name) == f"keys/a/versions/{number}"


@pytest.mark.parametrize(
    "text",
    [
        "a", "keys", "key/a", "Keys/a", "/keys/a", "keys/a/", "keys/a\n", " keys/a", "keys//a",
        "keys/a/versions", "keys/a/versions/",
        "keys/a/versions/0", "keys/a/versions/01", "keys/a/versions/-1", "keys/a/versions/+1", "keys/a/versions/1.0",
        "keys/a/versions/1/", "keys/a/versions/1\n", "keys/a/versions/1000000000", "keys/a/versions/\u0661",
        "keys/a/versions/latest", "keys/a/Versions/1", "projects/p/keys/a", "keys/" + "a" * 1_000_000,
    ],
)  # fmt: skip
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(SignerError) as caught:
        parse_name(text)
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "name")
    assert len(caught.value.message) < 300


def test_a_version_is_not_taken_for_a_key() -> None:
    with pytest.raises(SignerError) as caught:
        KeyName.parse("keys/a/versions/1", "key")
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "key")


@given(text=st.text(max_size=40) | st.from_regex(r"keys/[a-z-]{0,5}(/versions/[0-9]{0,11})?\n?", fullmatch=True))
def test_a_name_that_is_read_is_written_back_byte_for_byte(text: str) -> None:
    # Anything but a SignerError fails the test.
    with suppress(SignerError):
        assert str(parse_name(text)) == text


def test_a_key_knows_its_versions_by_number() -> None:
    found = key(version(1), version(2), primary=2)
    assert found.primary == version(2)
    assert [found.version(number) for number in (-1, 0, 1, 2, 3)] == [None, None, version(1), version(2), None]


@pytest.mark.parametrize("text", [UUID, UUID.upper(), "00000000-0000-0000-0000-000000000000"])
def test_a_request_id_is_a_uuid_in_lower_case(text: str) -> None:
    assert parse_request_id(text) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "1", UUID[:-1], UUID + "0", UUID + "\n", " " + UUID, UUID.replace("-", ""), "{" + UUID + "}",
        "urn:uuid:" + UUID,
        UUID.replace("3", "g", 1), UUID.replace("3", "\u0663", 1), UUID.replace("3", "\uff13", 1),
        "3b24110-1e2bb-4255-8caf-4136c566a962",
        UUID.replace("-", "_"), "\x00" * 36, "a" * 1_000_000,
    ],
)  # fmt: skip
def test_anything_else_is_no_request_id(text: str) -> None:
    with pytest.raises(SignerError) as caught:
        parse_request_id(text, "requests[0].request_id")
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "requests[0].request_id")
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    "labels",
    [{}, {"a": ""}, {"k" * 63: "v" * 255}, {str(number): "" for number in range(16)}, {"é\n": "\u202e"}],
)
def test_labels_within_the_limits_are_taken(labels: dict[str, str]) -> None:
    check_labels(labels)


@pytest.mark.parametrize(
    "labels",
    [{"": "a"}, {"k" * 64: ""}, {"a": "v" * 256}, {str(number): "" for number in range(17)}],
)
def test_labels_beyond_the_limits_are_refused(labels: dict[str, str]) -> None:
    with pytest.raises(SignerError) as caught:
        check_labels(labels, "requests[1].labels")
    assert (caught.value.reason, caught.value.field) == (Reason.INVALID_FIELD, "requests[1].labels")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("5m", 300), ("12h", 43_200), ("7d", 604_800), ("999999999d", 86_399_999_913_600)],
)
def test_a_duration_is_a_whole_number_with_its_unit(text: str, seconds: int) -> None:
    assert parse_duration_us(text) == seconds * SECOND


@pytest.mark.parametrize(
    "text",
    [
        "", "0s", "00s", "01s", "s", "1", "1S", "1 s", " 1s", "1s\n", "1.5s", "-1s", "+1s", "1ms", "1w",
        "1s1s", "\u0661s", "1000000000s",
    ],
)  # fmt: skip
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="whole number with s, m, h or d"):
        parse_duration_us(text)


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000001Z"),
        (NOW, "2027-01-15T08:00:00.000000Z"),
        (951_782_400 * SECOND + 999_999, "2000-02-29T00:00:00.999999Z"),
    ],
)
def test_an_instant_is_written_with_six_decimals(instant: int, text: str) -> None:
    assert format_instant(Instant(instant)) == text


@given(first=st.integers(0, 10**17), second=st.integers(0, 10**17))
def test_instants_sort_as_their_text_does(first: int, second: int) -> None:
    texts = [format_instant(Instant(instant)) for instant in (first, second)]
    assert (first < second) is (texts[0] < texts[1])


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_is_found_by_its_name(name: str) -> None:
    assert algorithm_named(name).name == name


@pytest.mark.parametrize("name", ["", "ES256", "ecdsa_p256_sha256", "RSA_PSS_1024_SHA256", "UNSPECIFIED", "x" * 10_000])
def test_an_unknown_algorithm_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(SignerError) as caught:
        algorithm_named(name)
    assert (caught.value.reason, caught.value.field) == (Reason.ALGORITHM_NOT_SUPPORTED, "algorithm")
    assert "ECDSA_P256_SHA256" in caught.value.message
    assert len(caught.value.message) < 1_000
