"""What the use cases need from the outside, as Protocols that state their guarantees."""

from hsmsigner.operations.ports.store import (
    KeyTable,
    LogPage,
    PendingKey,
    PolicyRevision,
    PolicyTable,
    RequestKey,
    RequestState,
    RequestTable,
    Store,
    StoredRequest,
    Transaction,
    UsageTable,
)
from hsmsigner.operations.ports.token import SignOutcome, SignStatus, SignTask, Token, TokenKeyPair, TokenStatus

__all__ = [
    "KeyTable",
    "LogPage",
    "PendingKey",
    "PolicyRevision",
    "PolicyTable",
    "RequestKey",
    "RequestState",
    "RequestTable",
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
