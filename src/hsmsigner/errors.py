"""The closed list of reasons for which hsmsigner refuses, and the one exception that carries them.

`api/status.py` gives each reason its gRPC code; docs/errors.md explains each to users. A test holds the three together.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, unique

ERROR_DOMAIN = "hsmsigner.v1"


@unique
class Reason(Enum):
    """Why something was refused; goes to clients as `ErrorInfo.reason`."""

    # The request itself is wrong: sending it again unchanged is of no use.
    INVALID_FIELD = "INVALID_FIELD"
    CHECKSUM_MISMATCH = "CHECKSUM_MISMATCH"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    FORMAT_NOT_SUPPORTED = "FORMAT_NOT_SUPPORTED"
    ALGORITHM_NOT_SUPPORTED = "ALGORITHM_NOT_SUPPORTED"
    POLICY_INVALID = "POLICY_INVALID"
    CERTIFICATE_INVALID = "CERTIFICATE_INVALID"
    # Who is calling.
    UNAUTHENTICATED = "UNAUTHENTICATED"
    # The policy says no.
    KEY_NOT_FOUND_OR_FORBIDDEN = "KEY_NOT_FOUND_OR_FORBIDDEN"
    FORBIDDEN = "FORBIDDEN"
    KEY_RESERVED = "KEY_RESERVED"
    INPUT_NOT_ALLOWED = "INPUT_NOT_ALLOWED"
    NO_KEY_POLICY = "NO_KEY_POLICY"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    POLICY_LOCKOUT = "POLICY_LOCKOUT"
    BATCH_ABORTED = "BATCH_ABORTED"
    # The state of things does not allow it.
    KEY_NOT_ACTIVE = "KEY_NOT_ACTIVE"
    KEY_EXISTS = "KEY_EXISTS"
    KEY_NOT_PROTECTED = "KEY_NOT_PROTECTED"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    REVISION_CHANGED = "REVISION_CHANGED"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    WRONG_STATE = "WRONG_STATE"
    ROTATION_IN_PROGRESS = "ROTATION_IN_PROGRESS"
    KEY_NOT_ON_TOKEN = "KEY_NOT_ON_TOKEN"  # noqa: S105 - a reason, not a secret
    NOT_IN_LOG = "NOT_IN_LOG"
    CHECKPOINT_PENDING = "CHECKPOINT_PENDING"
    RECORDS_SEALED = "RECORDS_SEALED"
    # The appliance cannot do it now; the same request_id may be sent again.
    REQUEST_IN_PROGRESS = "REQUEST_IN_PROGRESS"
    QUEUE_FULL = "QUEUE_FULL"
    TOO_MANY_WATCHERS = "TOO_MANY_WATCHERS"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    DEADLINE_PASSED = "DEADLINE_PASSED"
    TOKEN_UNAVAILABLE = "TOKEN_UNAVAILABLE"  # noqa: S105 - a reason, not a secret
    TOKEN_REFUSED = "TOKEN_REFUSED"  # noqa: S105 - a reason, not a secret
    SIGNATURE_INTERRUPTED = "SIGNATURE_INTERRUPTED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    KEY_UNHEALTHY = "KEY_UNHEALTHY"
    AUDIT_UNAVAILABLE = "AUDIT_UNAVAILABLE"
    # Ours.
    INTERNAL = "INTERNAL"


class SignerError(Exception):
    """A refusal with its reason, in words a client may read.

    `message` says what was wrong and what would be right, and never holds secrets, SQL, CKR names or paths.
    `metadata` goes to the client as `ErrorInfo.metadata`: rule, observed, limit and the like.
    `retry_after_s` is when a retry may succeed, in seconds; None when waiting alone does not help.
    `field` names the request field at fault, as in `requests[3].name`; it goes out as `BadRequest`.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.retry_after_s = retry_after_s
        self.field = field

    def __repr__(self) -> str:
        return f"SignerError({self.reason.name}, {self.message!r})"


class ConfigurationError(Exception):
    """The appliance cannot start as it is set up; the text names the fault and the way out."""


def cannot_record() -> SignerError:
    """Say that the audit log cannot be written (or read): everything that needs it is refused (P9)."""
    message = "the audit log is not available, so nothing is signed; retry with the same request_id"
    return SignerError(Reason.AUDIT_UNAVAILABLE, message, retry_after_s=1.0)


def invalid_field(field: str, message: str) -> SignerError:
    """Say that one request field is wrong; `message` says what would be right."""
    return SignerError(Reason.INVALID_FIELD, f"{field}: {message}", field=field, metadata={"field": field})
