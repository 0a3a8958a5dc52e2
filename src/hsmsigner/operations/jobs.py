"""What passes through the commit cycle: jobs that wait for a decision, and flights that wait for the token."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from hsmsigner.domain.decision import Debit
from hsmsigner.domain.formats import SignaturePlan
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyVersion
from hsmsigner.domain.signing import SigningRequest
from hsmsigner.errors import SignerError
from hsmsigner.operations.ports import RequestKey, SignOutcome, SignTask, StoredRequest


class Signed(Struct, frozen=True, gc=False):
    """A released signature, or (`signature` empty, `audit_sequence` 0) the answer to `validate_only`."""

    version: KeyVersion
    signature: bytes
    digest: bytes  # empty for EdDSA
    audit_sequence: int
    policy_revision: int
    authorize_time: Instant


Answer = Signed | SignerError


class Job(Struct, eq=False):
    """One request and who is told of its answer, once. `deadline_s` is the event loop's time, None for no deadline.

    A callback and not a future: at thousands of signatures a second a future each would be felt.
    """

    request: SigningRequest
    key: RequestKey
    on_answer: Callable[[Answer], None]
    deadline_s: float | None
    validate_only: bool = False
    is_answered: bool = False

    def resolve(self, answer: Answer) -> None:
        """Give the answer, unless there was one already."""
        if not self.is_answered:
            self.is_answered = True
            self.on_answer(answer)


class Group(Struct, eq=False):
    """Jobs decided together, in order; with `all_or_nothing`, one refusal refuses all.

    `is_abandoned` tells that the caller has gone: what is still in the queue then is not decided at all.
    """

    jobs: list[Job]
    all_or_nothing: bool
    size_bytes: int
    is_abandoned: Callable[[], bool]


class Flight(Struct, eq=False):
    """An authorized request on its way through the token, and everyone who waits for it (P4: twins share one)."""

    request: SigningRequest
    stored: StoredRequest
    version: KeyVersion
    plan: SignaturePlan
    # Debits made by this authorization. One that resumed an older one keeps them: its row now says
    # that they are made for this version.
    debits: tuple[Debit, ...]
    is_resumed: bool
    waiters: list[Job]

    def task(self) -> SignTask:
        """What the token is asked."""
        return sign_task(self.version, self.plan.to_be_signed)

    def resolve(self, answer: Answer) -> None:
        """Answer everyone who waits."""
        for job in self.waiters:
            job.resolve(answer)


class Landing(Struct, frozen=True, gc=False):
    """A flight that came back from the token."""

    flight: Flight
    outcome: SignOutcome


def sign_task(version: KeyVersion, data: bytes) -> SignTask:
    """What the token is asked: `data` is the digest, or the message for EdDSA."""
    return SignTask(version.cka_id, version.public_key, version.algorithm, data, version.allow_unprotected)


def signed(
    version: KeyVersion, plan: SignaturePlan, signature: bytes, stored: StoredRequest, audit_sequence: int
) -> Signed:
    """The answer for a signature whose record is durable."""
    digest = plan.to_be_signed if version.algorithm.takes_digest else b""
    return Signed(version, signature, digest, audit_sequence, stored.policy_revision, stored.authorize_time)
