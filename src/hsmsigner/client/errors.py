"""What can go wrong, as exceptions named after what a caller would do about it.

The server's reasons are listed in docs/errors.md; the table below says which class each one is. A reason that this
client does not know yet is classed by its gRPC code, and an unknown code as `OutcomeUnknown`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing at fault: `subject` is the request field (BadRequest) or what the quota counts (QuotaFailure)."""

    subject: str
    description: str


class SigningClientError(Exception):
    """No signature, or no answer, and why.

    `reason` is the server's `ErrorInfo.reason`, or one of this client's own: UNREACHABLE, CONNECTION_LOST,
    CLIENT_CLOSED, UNREADABLE_ANSWER. `retry_after_s` is when a retry may succeed; None when waiting does not help.
    `grpc_code` is None when the error was found here and not sent by the server.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        grpc_code: grpc.StatusCode | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.grpc_code = grpc_code
        self.violations = violations

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}, {self.message!r})"

    def copy(self) -> Self:
        """An equal error to raise elsewhere: one raised in several threads would mix up their tracebacks."""
        return type(self)(
            self.reason,
            self.message,
            metadata=self.metadata,
            retry_after_s=self.retry_after_s,
            grpc_code=self.grpc_code,
            violations=self.violations,
        )

    @property
    def is_worth_repeating(self) -> bool:
        """Whether the same request, under the same `request_id`, may succeed without anybody doing anything."""
        return False


class Refused(SigningClientError):
    """The server decided no; the same request would be refused again."""


class QuotaExceeded(Refused):
    """A quota is used up; `retry_after_s` says when there is room again."""

    @property
    def rule(self) -> str:
        """Which rule refused: `quotas/` and the quota's id in the policy document."""
        return self.metadata.get("rule", "")

    @property
    def observed(self) -> str:
        """What the window held already."""
        return self.metadata.get("observed", "")

    @property
    def limit(self) -> str:
        """What it may hold."""
        return self.metadata.get("limit", "")


class InvalidRequest(SigningClientError):
    """The request is wrong in itself; `violations` names the fields."""


class Unavailable(SigningClientError):
    """It cannot be done now. The same `request_id` may be sent again and is counted once."""

    @property
    def is_worth_repeating(self) -> bool:
        """True where the server gave a time, and for the reasons that pass by themselves."""
        return self.retry_after_s is not None or self.reason in _PASSING


class OutcomeUnknown(SigningClientError):
    """The connection broke or the time ran out after the request was sent: a signature may exist.

    Sending the same request under the same `request_id` is safe and answers with that signature.
    """


class ChecksumMismatch(SigningClientError):
    """The answer, or the request as the server saw it, was damaged on the way or belongs to another request.

    Nothing of it is to be used. Sending the same request under the same `request_id` is safe.
    """


# Reasons of an appliance that is busy, restarting or cut off from its token or disk.
_PASSING = frozenset(
    {
        "REQUEST_IN_PROGRESS",
        "QUEUE_FULL",
        "SHUTTING_DOWN",
        "TOKEN_UNAVAILABLE",
        "SIGNATURE_INTERRUPTED",
        "AUDIT_UNAVAILABLE",
    }
)

CLASS_OF_REASON: dict[str, type[SigningClientError]] = {
    "INVALID_FIELD": InvalidRequest,
    "CHECKSUM_MISMATCH": ChecksumMismatch,
    "MESSAGE_TOO_LARGE": InvalidRequest,
    "FORMAT_NOT_SUPPORTED": InvalidRequest,
    "ALGORITHM_NOT_SUPPORTED": InvalidRequest,
    "POLICY_INVALID": InvalidRequest,
    "CERTIFICATE_INVALID": InvalidRequest,
    "REQUEST_ID_REUSED": InvalidRequest,
    "UNAUTHENTICATED": Refused,
    "KEY_NOT_FOUND_OR_FORBIDDEN": Refused,
    "FORBIDDEN": Refused,
    "KEY_RESERVED": Refused,
    "INPUT_NOT_ALLOWED": Refused,
    "NO_KEY_POLICY": Refused,
    "QUOTA_EXCEEDED": QuotaExceeded,
    "POLICY_LOCKOUT": Refused,
    "BATCH_ABORTED": Refused,
    "KEY_NOT_ACTIVE": Refused,
    "KEY_EXISTS": Refused,
    "KEY_NOT_PROTECTED": Refused,
    "REVISION_CHANGED": Refused,
    "ETAG_MISMATCH": Refused,
    "WRONG_STATE": Refused,
    "ROTATION_IN_PROGRESS": Refused,
    "KEY_NOT_ON_TOKEN": Refused,
    "NOT_IN_LOG": Refused,
    "CHECKPOINT_PENDING": Refused,
    "RECORDS_SEALED": Refused,
    "TOO_MANY_WATCHERS": Refused,
    "REQUEST_IN_PROGRESS": Unavailable,
    "QUEUE_FULL": Unavailable,
    "SHUTTING_DOWN": Unavailable,
    "TOKEN_UNAVAILABLE": Unavailable,
    "TOKEN_REFUSED": Unavailable,
    "SIGNATURE_INTERRUPTED": Unavailable,
    "SIGNATURE_INVALID": Unavailable,
    "KEY_UNHEALTHY": Unavailable,
    "AUDIT_UNAVAILABLE": Unavailable,
    "DEADLINE_PASSED": Unavailable,
    "INTERNAL": OutcomeUnknown,
}

_CLASS_OF_CODE: dict[grpc.StatusCode, type[SigningClientError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: Refused,
    grpc.StatusCode.ALREADY_EXISTS: Refused,
    grpc.StatusCode.PERMISSION_DENIED: Refused,
    grpc.StatusCode.UNAUTHENTICATED: Refused,
    grpc.StatusCode.FAILED_PRECONDITION: Refused,
    grpc.StatusCode.ABORTED: Refused,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Refused,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}

# gRPC refused to read, or to send, a whole request. (What the client will not read begins with "CLIENT: Received".)
_TOO_LARGE = re.compile(r"(?:SERVER: Received|CLIENT: Sent|Sent) message larger than max \((\d+) vs\. (\d+)\)")

# gRPC itself made the status: the transport gave up, and no server spoke.
_REASON_OF_BARE_CODE = {
    grpc.StatusCode.UNAVAILABLE: "CONNECTION_LOST",
    grpc.StatusCode.DEADLINE_EXCEEDED: "NO_ANSWER_IN_TIME",
}


def error_of_status(status: status_pb2.Status) -> SigningClientError:
    """Read a google.rpc.Status, as in `SignResult.error`, into the exception to raise."""
    info: error_details_pb2.ErrorInfo | None = None
    retry_after_s: float | None = None
    violations: list[Violation] = []
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [Violation(item.field, item.description) for item in bad.field_violations]
        elif detail.Is(error_details_pb2.QuotaFailure.DESCRIPTOR):
            quota = error_details_pb2.QuotaFailure()
            detail.Unpack(quota)
            violations += [Violation(item.subject, item.description) for item in quota.violations]
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    reason = info.reason if info is not None else ""
    kind = CLASS_OF_REASON.get(reason) or _CLASS_OF_CODE.get(code, OutcomeUnknown)
    return kind(
        reason or code.name,
        status.message or f"the server gave no words for {code.name}",
        metadata=dict(info.metadata) if info is not None else {},
        retry_after_s=retry_after_s,
        grpc_code=code,
        violations=tuple(violations),
    )


def too_large(message: str, observed: int, limit: int, grpc_code: grpc.StatusCode | None = None) -> InvalidRequest:
    """More bytes than may be sent."""
    metadata = {"observed": str(observed), "limit": str(limit)}
    return InvalidRequest("MESSAGE_TOO_LARGE", message, metadata=metadata, grpc_code=grpc_code)


def error_of_call(error: grpc.aio.AioRpcError, *, changes_something: bool) -> SigningClientError:
    """Read what a whole call ended with.

    `changes_something` says whether a call that broke on the way may have had an effect; a read may not.
    """
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_of_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and (match := _TOO_LARGE.match(error.details() or "")):
        size, limit = map(int, match.groups())
        return too_large(f"the request has {size} bytes; this server reads up to {limit}", size, limit, code)
    reason = _REASON_OF_BARE_CODE.get(code, code.name)
    kind = _CLASS_OF_CODE.get(code, OutcomeUnknown)
    if reason in ("CONNECTION_LOST", "NO_ANSWER_IN_TIME"):
        kind = OutcomeUnknown if changes_something else Unavailable
    return kind(reason, error.details() or f"the call ended with {code.name}", grpc_code=code)
