"""Python client: `SignerClient` for threads, `AsyncSignerClient` for asyncio.

`SignerClient.from_profile(Path("operator.yaml")).sign("keys/settlement-eu", message)` is all of it; both are context
managers.
"""

from hsmsigner.client.aio import AsyncSignerClient
from hsmsigner.client.aio_audit import NEW_RECORDS
from hsmsigner.client.audit import OUTCOMES, audit_filter
from hsmsigner.client.credentials import Credentials, Profile, ProfileError
from hsmsigner.client.errors import (
    ChecksumMismatch,
    InvalidRequest,
    OutcomeUnknown,
    QuotaExceeded,
    Refused,
    SigningClientError,
    Unavailable,
    Violation,
)
from hsmsigner.client.key_set import KeySet, KeySetCache
from hsmsigner.client.rotation import RotationPolicy
from hsmsigner.client.sync import SignerClient
from hsmsigner.client.sync_keys import ThreadKeySetCache
from hsmsigner.client.values import Signature, SignItem

__all__ = [
    "NEW_RECORDS",
    "OUTCOMES",
    "AsyncSignerClient",
    "ChecksumMismatch",
    "Credentials",
    "InvalidRequest",
    "KeySet",
    "KeySetCache",
    "OutcomeUnknown",
    "Profile",
    "ProfileError",
    "QuotaExceeded",
    "Refused",
    "RotationPolicy",
    "SignItem",
    "Signature",
    "SignerClient",
    "SigningClientError",
    "ThreadKeySetCache",
    "Unavailable",
    "Violation",
    "audit_filter",
]
