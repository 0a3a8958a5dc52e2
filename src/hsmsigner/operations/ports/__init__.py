"""What the use cases need from the outside, as Protocols that state their guarantees."""

from hsmsigner.operations.ports.keys import (
    CommandTable,
    ContinuityTable,
    KeyTable,
    LeaseTable,
    PendingKey,
    RequestKey,
    RotationTable,
)
from hsmsigner.operations.ports.store import (
    LogPage,
    PolicyRevision,
    PolicyTable,
    RequestState,
    RequestTable,
    Store,
    StoredRequest,
    Transaction,
    UsageTable,
)
from hsmsigner.operations.ports.token import (
    TOKEN_ANSWERED,
    SignOutcome,
    SignStatus,
    SignTask,
    Token,
    TokenKeyPair,
    TokenStatus,
)

__all__ = [
    "TOKEN_ANSWERED",
    "CommandTable",
    "ContinuityTable",
    "KeyTable",
    "LeaseTable",
    "LogPage",
    "PendingKey",
    "PolicyRevision",
    "PolicyTable",
    "RequestKey",
    "RequestState",
    "RequestTable",
    "RotationTable",
    "SignOutcome",
    "SignStatus",
    "SignTask",
    "Store",
    "StoredRequest",
    "Token",
    "TokenKeyPair",
    "TokenStatus",
    "Transaction",
    "UsageTable",
]
