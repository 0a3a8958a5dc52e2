"""One request_id, one command: what had an effect under an id is what that id stands for, for good (AIP-155)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from hsmsigner.domain.instant import Instant
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import RequestKey, Transaction


@dataclass(frozen=True, slots=True)
class Command:
    """A call that changes keys, by its id: the method, and everything that makes it another command if it differs.

    An etag does not: it says when the command may be done, not what is done.
    """

    request: RequestKey
    method: str
    details: tuple[str | int | bool | None, ...]

    def fingerprint(self) -> bytes:
        """SHA-256 of all of it. Stored: another way to write it would make old ids stand for nothing."""
        text = json.dumps([self.method, *self.details], separators=(",", ":"))
        return hashlib.sha256(text.encode()).digest()


def is_known(transaction: Transaction, command: Command) -> bool:
    """Whether this very command had an effect before.

    Raises:
        SignerError: REQUEST_ID_REUSED, its id stands for another command.
    """
    fingerprint = transaction.commands.find(command.request)
    if fingerprint not in (None, command.fingerprint()):
        message = "this request_id stands for another command; take a fresh one for each request"
        raise SignerError(Reason.REQUEST_ID_REUSED, message, field="request_id")
    return fingerprint is not None


def remember(transaction: Transaction, command: Command, now: Instant) -> None:
    """Let the id stand for this command; in the transaction of its first effect."""
    transaction.commands.insert(command.request, command.fingerprint(), now)
