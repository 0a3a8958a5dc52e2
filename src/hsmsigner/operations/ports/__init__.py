"""What the use cases need from the outside, as Protocols that state their guarantees."""

from hsmsigner.operations.ports.keys import (
    ContinuityTable,
    KeyTable,
    LeaseTable,
    PendingKey,
    RequestKey,
    RotationTable,
)
from hsmsigner.operations.ports.log import (
    NO_FILTER,
    Checkpoint,
    CheckpointTable,
    LogFilter,
    LogPage,
    LogReader,
    Outcome,
    TreeHead,
)
from hsmsigner.operations.ports.store import (
    DenialTable,
    PolicyRevision,
    PolicyTable,
    RequestState,
    RequestTable,
    Store,
    StoredRequest,
    Transaction,
    UsageTable,
)
from hsmsigner.operations.ports.token import SignOutcome, SignStatus, SignTask, Token, TokenKeyPair, TokenStatus

__all__ = [
    "NO_FILTER",
    "Checkpoint",
    "CheckpointTable",
    "ContinuityTable",
    "DenialTable",
    "KeyTable",
    "LeaseTable",
    "LogFilter",
    "LogPage",
    "LogReader",
    "Outcome",
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
    "TreeHead",
    "UsageTable",
]
