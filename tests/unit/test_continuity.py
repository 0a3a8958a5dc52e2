"""What a rotation's two versions sign, and that nobody else gets it signed."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest

from hsmsigner.domain.continuity import plan_continuity
from hsmsigner.domain.formats import OutputFormat, plan_signature
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.policy import InputKind
from hsmsigner.errors import Reason, SignerError
from tests.continuity import START, make_pair, make_pairs, statement_between


def decode(part: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(urlsafe_b64decode(part + "=="))
    return fields


def test_statement_is_what_the_proto_says() -> None:
    old, new = make_pairs(2)

    statement = statement_between(old, new)

    header, payload, _ = statement.signed_by_old.split(".")
    assert decode(header) == {
        "typ": "hsmsigner-continuity-v1",
        "alg": "ES256",
        "kid": "keys/settlement-eu/versions/1",
    }
    fields = decode(payload)
    assert fields["type"] == "hsmsigner-continuity-v1"
    assert fields["key"] == "keys/settlement-eu"
    assert fields["new"]["name"] == "keys/settlement-eu/versions/2"
    assert urlsafe_b64decode(fields["new"]["public_key"] + "==") == new.version.public_key
    assert statement.signed_by_new.split(".")[1] == payload


def test_activation_that_was_due_earlier_takes_place_when_the_statement_is_made() -> None:
    old, new = make_pairs(2)

    statement = statement_between(old, new, lead=-1000)

    fields = decode(statement.signed_by_old.split(".")[1])
    assert fields["activate_time"] == fields["create_time"]


def test_third_version_has_no_part_in_a_statement() -> None:
    old, new, third = make_pairs(3)
    plan = plan_continuity(old.version, new.version, START, START)

    with pytest.raises(ValueError, match="no part"):
        plan.to_be_signed(third.version)


@pytest.mark.parametrize("algorithm", ["ECDSA_P256_SHA256", "RSA_PSS_2048_SHA256", "ED25519"])
@pytest.mark.parametrize("output_format", [OutputFormat.RAW, OutputFormat.DER])
def test_no_caller_gets_a_continuity_statement_signed_as_a_message(algorithm: str, output_format: OutputFormat) -> None:
    old, new = make_pairs(2, algorithm)
    signing_input = statement_between(old, new).signed_by_old.rpartition(".")[0].encode()

    with pytest.raises(SignerError) as caught:
        plan_signature(old.version, InputKind.MESSAGE, signing_input, output_format)

    assert caught.value.reason is Reason.INVALID_FIELD


def test_other_messages_and_jws_payloads_are_not_touched() -> None:
    version = make_pair().version

    for message in (b"eyJ0eXAi", b'{"typ":"hsmsigner-continuity-v1",', b"pay"):
        plan_signature(version, InputKind.MESSAGE, message, OutputFormat.RAW)
        plan_signature(version, InputKind.MESSAGE, message, OutputFormat.JWS_COMPACT)


def test_same_rotation_is_signed_over_the_same_bytes() -> None:
    old, new = (pair.version for pair in make_pairs(2))

    first, second = (plan_continuity(old, new, START, Instant(START + 1)) for _ in range(2))

    assert first.to_be_signed(old) == second.to_be_signed(old)
    assert first.to_be_signed(new) == second.to_be_signed(new)
