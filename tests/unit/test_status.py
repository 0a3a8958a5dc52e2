"""Reasons on the wire: one code each, and the details that clients act on."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2 as details

from hsmsigner.api.status import CODES, grpc_code, to_status
from hsmsigner.errors import ERROR_DOMAIN, Reason, SignerError, invalid_field

EVERY = pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)


def detail(error: SignerError, kind: Any) -> list[Any]:
    found = []
    for packed in to_status(error).details:
        message = kind()
        if packed.Unpack(message):
            found.append(message)
    return found


def test_every_reason_has_exactly_one_code() -> None:
    assert set(CODES) == set(Reason)


def test_a_refusal_is_never_ok_or_untyped() -> None:
    assert not {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN} & set(CODES.values())


def test_unavailable_only_where_the_same_request_id_may_be_sent_again() -> None:
    # Clients retry UNAVAILABLE on their own (AIP-194).
    assert {reason for reason in Reason if grpc_code(reason) is grpc.StatusCode.UNAVAILABLE} == {
        Reason.REQUEST_IN_PROGRESS,
        Reason.SHUTTING_DOWN,
        Reason.TOKEN_UNAVAILABLE,
        Reason.SIGNATURE_INTERRUPTED,
        Reason.KEY_UNHEALTHY,
        Reason.AUDIT_UNAVAILABLE,
    }


@EVERY
def test_a_reason_is_its_own_name(reason: Reason) -> None:
    assert reason.value == reason.name


@EVERY
def test_every_error_carries_its_reason_and_domain(reason: Reason) -> None:
    error = SignerError(reason, "words for the client", metadata={"rule": "r"})
    status = to_status(error)
    assert (status.code, status.message) == (CODES[reason].value[0], "words for the client")
    (info,) = detail(error, details.ErrorInfo)
    assert info == details.ErrorInfo(reason=reason.value, domain=ERROR_DOMAIN, metadata={"rule": "r"})
    assert status.details[0].Is(details.ErrorInfo.DESCRIPTOR)


def test_a_full_quota_says_which_and_when() -> None:
    error = SignerError(
        Reason.QUOTA_EXCEEDED,
        "quota `burst` allows 50",
        metadata={"rule": "quotas/burst", "observed": "50", "limit": "50"},
        retry_after_s=1.016_667,
    )
    (failure,) = detail(error, details.QuotaFailure)
    assert [(each.subject, each.description) for each in failure.violations] == [
        ("quotas/burst", "quota `burst` allows 50")
    ]
    (retry,) = detail(error, details.RetryInfo)
    assert retry.retry_delay.ToMicroseconds() == 1_016_667


@pytest.mark.parametrize(
    ("retry_after_s", "microseconds"),
    [(0.0, 0), (-1.0, 0), (1e-6, 1), (60.0, 60_000_000), (1e300, 315_576_000_000_000_000)],
)
def test_a_retry_time_is_one_that_the_wire_can_carry(retry_after_s: float, microseconds: int) -> None:
    (retry,) = detail(SignerError(Reason.QUEUE_FULL, "full", retry_after_s=retry_after_s), details.RetryInfo)
    assert retry.retry_delay.ToMicroseconds() == microseconds


def test_without_a_retry_time_none_is_promised() -> None:
    assert detail(SignerError(Reason.INTERNAL, "x"), details.RetryInfo) == []


def test_a_bad_field_is_named() -> None:
    error = invalid_field("requests[3].name", "must be keys/{key}")
    (request,) = detail(error, details.BadRequest)
    assert [(each.field, each.description) for each in request.field_violations] == [
        ("requests[3].name", "requests[3].name: must be keys/{key}")
    ]
    (info,) = detail(error, details.ErrorInfo)
    assert dict(info.metadata) == {"field": "requests[3].name"}


@EVERY
def test_a_state_that_does_not_fit_is_a_precondition(reason: Reason) -> None:
    found = detail(SignerError(reason, "x"), details.PreconditionFailure)
    assert bool(found) is (grpc_code(reason) is grpc.StatusCode.FAILED_PRECONDITION)
    assert [each.type for failure in found for each in failure.violations] == [reason.value] * len(found)


def test_an_error_prints_its_reason() -> None:
    assert repr(SignerError(Reason.INTERNAL, "x")) == "SignerError(INTERNAL, 'x')"
