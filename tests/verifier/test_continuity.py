"""Every way to tamper with a chain of continuity statements, and the fault that it is found as."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from Crypto.Hash import keccak

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.continuity import ContinuityStatement
from hsmsigner.domain.formats import OutputFormat, plan_signature
from hsmsigner.domain.policy import InputKind
from hsmsigner.verifier import VerificationError, verify_continuity
from hsmsigner.verifier.keccak import keccak256
from tests.continuity import START, Pair, chain_of, document_of, make_pair, make_pairs, statement_between

Chain = list[ContinuityStatement]

PAIRS = make_pairs(4)
CHAIN = chain_of(PAIRS)
STRANGERS = make_pairs(4)
OTHER_KEY = make_pairs(4, key_id="settlement-us")


def fault_of(document: bytes, trusted: bytes = PAIRS[0].pem, current: bytes | None = None) -> tuple[str, int | None]:
    with pytest.raises(VerificationError) as caught:
        verify_continuity(document, trusted, current)
    assert str(caught.value)
    return caught.value.fault, caught.value.sequence


def test_chain_leads_from_the_first_key_to_todays() -> None:
    result = verify_continuity(document_of(CHAIN), PAIRS[0].pem, PAIRS[-1].pem)

    assert result.key == "keys/settlement-eu"
    assert [version.public_key for version in result.versions] == [pair.version.public_key for pair in PAIRS]
    assert len(result.activate_times) == 3


@pytest.mark.parametrize("start", [1, 2, 3])
def test_any_version_may_be_the_trusted_one(start: int) -> None:
    result = verify_continuity(document_of(CHAIN), PAIRS[start].pem, PAIRS[-1].pem)

    assert [version.number for version in result.versions] == list(range(start + 1, 5))


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if "3072" not in name and "4096" not in name])
def test_every_algorithm_has_its_chain(algorithm: str) -> None:
    pairs = make_pairs(3, algorithm)

    assert len(verify_continuity(document_of(chain_of(pairs)), pairs[0].pem).versions) == 3


def test_version_that_was_given_up_is_passed_over() -> None:
    first, _, third, fourth = PAIRS
    chain = [CHAIN[0], statement_between(first, third), statement_between(third, fourth)]

    result = verify_continuity(document_of(chain), first.pem, fourth.pem)

    assert [version.number for version in result.versions] == [1, 2, 3, 4]
    assert verify_continuity(document_of(chain[1:]), first.pem, fourth.pem).versions[1].number == 3


def edited(text: str, change: Callable[[dict[str, Any]], None], part: int = 1) -> str:
    """A JWS whose header (0) or payload (1) was changed and whose signature was not."""
    parts = text.split(".")
    fields = json.loads(urlsafe_b64decode(parts[part] + "=="))
    change(fields)
    parts[part] = urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).rstrip(b"=").decode()
    return ".".join(parts)


def edit_both(statement: ContinuityStatement, change: Callable[[dict[str, Any]], None]) -> ContinuityStatement:
    return replace(
        statement,
        signed_by_old=edited(statement.signed_by_old, change),
        signed_by_new=edited(statement.signed_by_new, change),
    )


def with_signature(text: str, other: str) -> str:
    return text.rpartition(".")[0] + "." + other.rpartition(".")[2]


def later(fields: dict[str, Any]) -> None:
    fields["activate_time"] = "2099-01-01T00:00:00.000000Z"


def as_if_of(owner: Pair, signer: Pair) -> Pair:
    """The version of one, with a private key that is not its own."""
    return Pair(owner.version, signer.private_key)


def same_name(number: int) -> Pair:
    return STRANGERS[number - 1]


ATTACKS: list[tuple[str, Callable[[], Chain], tuple[str, int | None]]] = [
    ("one side's payload edited", lambda: [
        CHAIN[0], replace(CHAIN[1], signed_by_old=edited(CHAIN[1].signed_by_old, later)), CHAIN[2]
    ], ("payload", 1)),
    ("both payloads edited", lambda: [CHAIN[0], edit_both(CHAIN[1], later), CHAIN[2]], ("signature_old", 1)),
    ("first statement dropped", lambda: CHAIN[1:], ("first_key", None)),
    ("middle statement dropped", lambda: [CHAIN[0], CHAIN[2]], ("broken_link", 1)),
    ("sides swapped", lambda: [
        ContinuityStatement(
            CHAIN[0].old_version, CHAIN[0].new_version, CHAIN[0].signed_by_new, CHAIN[0].signed_by_old
        )
    ], ("header", 0)),
    ("sides of two statements mixed", lambda: [
        CHAIN[0], replace(CHAIN[1], signed_by_new=CHAIN[2].signed_by_new)
    ], ("payload", 1)),
    ("statement of another key in between", lambda: [
        CHAIN[0], statement_between(OTHER_KEY[1], OTHER_KEY[2]), CHAIN[2]
    ], ("other_key", 1)),
    ("whole chain of another key", lambda: chain_of(OTHER_KEY), ("other_key", 0)),
    ("re-ordered", lambda: [CHAIN[1], CHAIN[0], CHAIN[2]], ("order", 1)),
    ("repeated", lambda: [CHAIN[0], CHAIN[0], CHAIN[1]], ("order", 1)),
    ("made before its predecessor", lambda: [CHAIN[0], statement_between(PAIRS[1], PAIRS[2], START)], ("time", 1)),
    ("old side forged", lambda: [
        CHAIN[0], statement_between(as_if_of(PAIRS[1], STRANGERS[0]), STRANGERS[2])
    ], ("signature_old", 1)),
    ("new side forged", lambda: [
        CHAIN[0], statement_between(PAIRS[1], as_if_of(PAIRS[2], STRANGERS[0]))
    ], ("signature_new", 1)),
    ("a stranger's version under the same name takes over", lambda: [
        CHAIN[0], statement_between(same_name(2), same_name(3))
    ], ("broken_link", 1)),
    ("whole chain of a stranger under the same names", lambda: chain_of(STRANGERS), ("first_key", None)),
    ("signature of one statement on another", lambda: [
        CHAIN[0],
        replace(CHAIN[1], signed_by_old=with_signature(CHAIN[1].signed_by_old, CHAIN[0].signed_by_new)),
    ], ("signature_old", 1)),
    ("signature removed", lambda: [
        replace(CHAIN[0], signed_by_old=CHAIN[0].signed_by_old.rpartition(".")[0] + ".")
    ], ("signature_old", 0)),
    ("algorithm none", lambda: [
        replace(CHAIN[0], signed_by_old=edited(CHAIN[0].signed_by_old, lambda fields: fields.update(alg="none"), 0))
    ], ("algorithm", 0)),
    ("header without its type", lambda: [
        replace(CHAIN[0], signed_by_old=edited(CHAIN[0].signed_by_old, lambda fields: fields.pop("typ"), 0))
    ], ("header", 0)),
    ("no statements at all", list, ("truncated", None)),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "expected"), [row[1:] for row in ATTACKS], ids=[row[0] for row in ATTACKS])
def test_attack_is_found_and_named(attack: Callable[[], Chain], expected: tuple[str, int | None]) -> None:
    assert fault_of(document_of(attack())) == expected


def test_wrong_first_key_is_named() -> None:
    assert fault_of(document_of(CHAIN), trusted=make_pair().pem) == ("first_key", None)


def test_dropped_end_is_found_when_the_current_key_is_given() -> None:
    assert fault_of(document_of(CHAIN[:-1]), current=PAIRS[-1].pem) == ("truncated", None)


def test_change_of_algorithm_is_found() -> None:
    other = make_pair(2, "ED25519")

    assert fault_of(document_of([statement_between(PAIRS[0], other)])) == ("algorithm", 0)


def test_statement_signed_as_a_callers_jws_is_found() -> None:
    # What a caller with the right to sign could get: the same payload, under the header of an ordinary JWS.
    old, new = PAIRS[0], STRANGERS[1]
    payload = urlsafe_b64decode(statement_between(old, new).signed_by_new.split(".")[1] + "==")
    plan = plan_signature(old.version, InputKind.MESSAGE, payload, OutputFormat.JWS_COMPACT)
    forged = replace(statement_between(old, new), signed_by_old=plan.encode(old.sign(plan.to_be_signed)).decode())

    assert fault_of(document_of([forged])) == ("header", 0)


def test_statement_whose_header_has_another_order_is_found() -> None:
    # Signed as a raw message, the header in an order that the appliance does not keep for itself.
    old, new = PAIRS[0], STRANGERS[1]
    header, payload, _ = statement_between(old, new).signed_by_old.split(".")
    fields = json.loads(urlsafe_b64decode(header + "=="))
    other = json.dumps(dict(reversed(fields.items())), separators=(",", ":")).encode()
    message = urlsafe_b64encode(other).rstrip(b"=") + b"." + payload.encode()
    plan = plan_signature(old.version, InputKind.MESSAGE, message, OutputFormat.RAW)
    signature = urlsafe_b64encode(old.sign(plan.to_be_signed)).rstrip(b"=")
    forged = replace(statement_between(old, new), signed_by_old=(message + b"." + signature).decode())

    assert fault_of(document_of([forged])) == ("header", 0)


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"\xff",
        b'{"key": "keys/a"}',
        b'{"key": "keys/a", "key": "keys/a", "statements": []}',
        b'{"key": "keys/settlement-eu", "statements": [7]}',
        b'{"key": "keys/settlement-eu", "statements": [{"signed_by_old": "a.b.c", "signed_by_new": "a.b.c"}]}',
        b'{"key": "keys/settlement-eu", "statements": [{"signed_by_old": 7, "signed_by_new": null}]}',
        b"[" * 100_000,
    ],
)
def test_file_that_is_none_is_said_to_be_unparsable(document: bytes) -> None:
    assert fault_of(document)[0] == "unparsable"


def test_trusted_key_that_is_none_is_said_to_be() -> None:
    assert fault_of(document_of(CHAIN), trusted=b"not a key") == ("trusted", None)


@pytest.mark.parametrize("size", [0, 1, 135, 136, 137, 271, 272, 1000])
def test_keccak_is_that_of_another_implementation(size: int) -> None:
    message = bytes(index % 251 for index in range(size))

    assert keccak256(message) == keccak.new(digest_bits=256, data=message).digest()
