from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2

from hsmsigner.client import InvalidRequest, OutcomeUnknown, Refused, Unavailable, Violation
from hsmsigner.client.errors import CLASS_OF_REASON, error_of_status
from hsmsigner.errors import Reason
from tests.client.fake_server import status


def test_every_reason_of_the_server_has_a_class() -> None:
    assert set(CLASS_OF_REASON) == {reason.value for reason in Reason}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.INTERNAL, OutcomeUnknown),
        (grpc.StatusCode.UNKNOWN, OutcomeUnknown),
    ],
)
def test_reason_of_a_newer_server_is_classed_by_its_code(code: grpc.StatusCode, kind: type[Exception]) -> None:
    error = error_of_status(status("REASON_OF_NEXT_YEAR", code))
    assert type(error) is kind
    assert error.reason == "REASON_OF_NEXT_YEAR"
    assert not error.is_worth_repeating


def test_fields_at_fault_are_named() -> None:
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="name", description="must be keys/…")]
    )
    error = error_of_status(status("INVALID_FIELD", grpc.StatusCode.INVALID_ARGUMENT, details=[bad]))
    assert error.violations == (Violation("name", "must be keys/…"),)


def test_quota_violations_are_named() -> None:
    quota = error_details_pb2.QuotaFailure(
        violations=[error_details_pb2.QuotaFailure.Violation(subject="day", description="20000 in 1d")]
    )
    error = error_of_status(status("QUOTA_EXCEEDED", grpc.StatusCode.RESOURCE_EXHAUSTED, details=[quota]))
    assert error.violations == (Violation("day", "20000 in 1d"),)
    assert not error.is_worth_repeating


@pytest.mark.parametrize("reason", ["TOKEN_REFUSED", "SIGNATURE_INVALID", "KEY_UNHEALTHY"])
def test_lasting_faults_are_not_repeated_unless_the_server_gives_a_time(reason: str) -> None:
    assert not error_of_status(status(reason, grpc.StatusCode.UNAVAILABLE)).is_worth_repeating
    assert error_of_status(status(reason, grpc.StatusCode.UNAVAILABLE, retry_s=1.0)).is_worth_repeating
