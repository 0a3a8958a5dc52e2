"""Reasons as gRPC statuses: the one place where errors are translated (google.rpc.Status, AIP-193)."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2 as details
from google.rpc.status_pb2 import Status

from hsmsigner.errors import ERROR_DOMAIN, Reason, SignerError

_Code = grpc.StatusCode

# UNAVAILABLE is retried by clients on their own (AIP-194): only where a retry with the same request_id is safe.
CODES: dict[Reason, grpc.StatusCode] = {
    Reason.INVALID_FIELD: _Code.INVALID_ARGUMENT,
    Reason.CHECKSUM_MISMATCH: _Code.INVALID_ARGUMENT,
    Reason.MESSAGE_TOO_LARGE: _Code.INVALID_ARGUMENT,
    Reason.FORMAT_NOT_SUPPORTED: _Code.INVALID_ARGUMENT,
    Reason.ALGORITHM_NOT_SUPPORTED: _Code.INVALID_ARGUMENT,
    Reason.POLICY_INVALID: _Code.INVALID_ARGUMENT,
    Reason.CERTIFICATE_INVALID: _Code.INVALID_ARGUMENT,
    Reason.UNAUTHENTICATED: _Code.UNAUTHENTICATED,
    Reason.KEY_NOT_FOUND_OR_FORBIDDEN: _Code.PERMISSION_DENIED,
    Reason.FORBIDDEN: _Code.PERMISSION_DENIED,
    Reason.KEY_RESERVED: _Code.PERMISSION_DENIED,
    Reason.INPUT_NOT_ALLOWED: _Code.PERMISSION_DENIED,
    Reason.NO_KEY_POLICY: _Code.PERMISSION_DENIED,
    Reason.QUOTA_EXCEEDED: _Code.RESOURCE_EXHAUSTED,
    Reason.POLICY_LOCKOUT: _Code.FAILED_PRECONDITION,
    Reason.BATCH_ABORTED: _Code.ABORTED,
    Reason.KEY_NOT_ACTIVE: _Code.FAILED_PRECONDITION,
    Reason.KEY_EXISTS: _Code.ALREADY_EXISTS,
    Reason.KEY_NOT_PROTECTED: _Code.FAILED_PRECONDITION,
    Reason.REQUEST_ID_REUSED: _Code.ALREADY_EXISTS,
    Reason.REVISION_CHANGED: _Code.ABORTED,
    Reason.ETAG_MISMATCH: _Code.ABORTED,
    Reason.WRONG_STATE: _Code.FAILED_PRECONDITION,
    Reason.ROTATION_IN_PROGRESS: _Code.FAILED_PRECONDITION,
    Reason.KEY_NOT_ON_TOKEN: _Code.NOT_FOUND,
    Reason.NOT_IN_LOG: _Code.NOT_FOUND,
    Reason.CHECKPOINT_PENDING: _Code.FAILED_PRECONDITION,
    Reason.RECORDS_SEALED: _Code.FAILED_PRECONDITION,
    Reason.REQUEST_IN_PROGRESS: _Code.UNAVAILABLE,
    Reason.QUEUE_FULL: _Code.RESOURCE_EXHAUSTED,
    Reason.TOO_MANY_WATCHERS: _Code.RESOURCE_EXHAUSTED,
    Reason.SHUTTING_DOWN: _Code.UNAVAILABLE,
    Reason.DEADLINE_PASSED: _Code.DEADLINE_EXCEEDED,
    Reason.TOKEN_UNAVAILABLE: _Code.UNAVAILABLE,
    Reason.TOKEN_REFUSED: _Code.FAILED_PRECONDITION,
    Reason.SIGNATURE_INTERRUPTED: _Code.UNAVAILABLE,
    Reason.SIGNATURE_INVALID: _Code.DATA_LOSS,
    Reason.KEY_UNHEALTHY: _Code.UNAVAILABLE,
    Reason.AUDIT_UNAVAILABLE: _Code.UNAVAILABLE,
    Reason.INTERNAL: _Code.INTERNAL,
}

_PRECONDITIONS = frozenset(
    {
        Reason.CHECKPOINT_PENDING,
        Reason.KEY_NOT_ACTIVE,
        Reason.KEY_NOT_PROTECTED,
        Reason.POLICY_LOCKOUT,
        Reason.RECORDS_SEALED,
        Reason.ROTATION_IN_PROGRESS,
        Reason.TOKEN_REFUSED,
        Reason.WRONG_STATE,
    }
)


def grpc_code(reason: Reason) -> grpc.StatusCode:
    """The gRPC code of a reason."""
    return CODES[reason]


# Errors travel in HTTP/2 headers, of which clients take 8 or 16 KiB, and text counts up to three times there.
_MAX_TEXT_BYTES = 1000
# The longest google.protobuf.Duration: 10,000 years.
LONGEST_DURATION_S = 315_576_000_000


def fit(message: str) -> str:
    """The message, cut to what surely arrives."""
    return message.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")


def to_status(error: SignerError) -> Status:
    """The whole error as google.rpc.Status: ErrorInfo always, and the details that fit the reason."""
    code: int = CODES[error.reason].value[0]
    text = fit(error.message)
    status = Status(code=code, message=text)
    parts: list[Message] = [details.ErrorInfo(reason=error.reason.value, domain=ERROR_DOMAIN, metadata=error.metadata)]
    if error.field is not None:
        parts.append(
            details.BadRequest(
                field_violations=[details.BadRequest.FieldViolation(field=error.field, description=text)]
            )
        )
    if error.reason is Reason.QUOTA_EXCEEDED:
        subject = error.metadata.get("rule", "")
        parts.append(
            details.QuotaFailure(violations=[details.QuotaFailure.Violation(subject=subject, description=text)])
        )
    if error.reason in _PRECONDITIONS:
        violation = details.PreconditionFailure.Violation(type=error.reason.value, description=text)
        parts.append(details.PreconditionFailure(violations=[violation]))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromMicroseconds(round(min(max(0.0, error.retry_after_s), LONGEST_DURATION_S) * 1e6))
        parts.append(details.RetryInfo(retry_delay=delay))
    for part in parts:
        packed = AnyMessage()
        packed.Pack(part)
        status.details.append(packed)
    return status
