"""Reading, checking and publishing the policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.policy import Policy, Right
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.domain.positioned_yaml import DocumentError, Problem
from hsmsigner.domain.principal import APPLIANCE, Principal
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.access import require_right
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.ports import PolicyRevision, Store, Transaction

MAX_COMMENT = 1000


class Policies:
    """The use cases behind PolicyService."""

    def __init__(self, store: Store, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._governance = governance
        self._clock = clock

    def get(self, principal: Principal) -> PolicyRevision:
        """The revision in force.

        Raises:
            SignerError: FORBIDDEN.
        """
        require_right(self._governance.newest, principal, Right.READ_AUDIT, Right.PUBLISH_POLICY)
        return self._governance.newest.revision

    async def validate(self, principal: Principal, document: bytes) -> list[Problem]:
        """Every fault of a document; none when it could be published.

        Raises:
            SignerError: FORBIDDEN.
        """
        require_right(self._governance.newest, principal, Right.PUBLISH_POLICY)
        try:
            # In a thread: a large document takes a second, and signing goes on meanwhile.
            await asyncio.to_thread(parse_policy, document, 0)
        except DocumentError as error:
            return error.problems
        return []

    async def publish(
        self,
        principal: Principal,
        document: bytes,
        *,
        expected_revision: int,
        comment: str,
        allow_lockout: bool,
    ) -> PolicyRevision:
        """Put a document in force, from the next decision on.

        Raises:
            SignerError: FORBIDDEN, INVALID_FIELD, POLICY_INVALID, POLICY_LOCKOUT, REVISION_CHANGED, AUDIT_UNAVAILABLE.
        """
        require_right(self._governance.newest, principal, Right.PUBLISH_POLICY)
        if not 1 <= len(comment) <= MAX_COMMENT:
            raise invalid_field("comment", f"must say why, in 1-{MAX_COMMENT} characters")
        policy = await asyncio.to_thread(_parsed, document)
        if not allow_lockout and not policy.holds_somewhere(principal.text, Right.PUBLISH_POLICY):
            message = "with this policy you could not publish another one; set allow_lockout if that is meant"
            raise SignerError(Reason.POLICY_LOCKOUT, message, metadata={"rule": "grants"})
        async with self._store.transaction() as transaction:
            governance = self._governance.within(transaction)
            require_right(governance, principal, Right.PUBLISH_POLICY)
            in_force = governance.policy.revision
            if expected_revision not in (0, in_force):
                message = f"revision {in_force} is in force, not {expected_revision}; look at it and publish again"
                raise SignerError(Reason.REVISION_CHANGED, message, metadata={"revision": str(in_force)})
            now = not_before(self._clock(), transaction.last_time)
            policy = replace(policy, revision=in_force + 1)
            revision = _publish_within(transaction, policy, document, now, publisher=principal, comment=comment)
        await self._governance.reload(self._store)
        return revision


async def publish_first(store: Store, clock: Callable[[], Instant], document: bytes) -> bool:
    """Publish the state folder's policy if the store has none yet; returns whether it did.

    Raises:
        DocumentError: the document has faults.
        SignerError: AUDIT_UNAVAILABLE.
    """
    async with store.transaction() as transaction:
        if transaction.policies.newest() is not None:
            return False
        policy = parse_policy(document, 1)
        now = not_before(clock(), transaction.last_time)
        comment = "the state folder's policy, at the first start"
        _publish_within(transaction, policy, document, now, publisher=APPLIANCE, comment=comment)
    return True


def _publish_within(
    transaction: Transaction, policy: Policy, document: bytes, now: Instant, *, publisher: Principal, comment: str
) -> PolicyRevision:
    """Write a checked document as the policy's revision, with its record, and end the epoch."""
    number, sha256 = policy.revision, policy.sha256
    revision = PolicyRevision(number, document, sha256, now, publisher.text, comment)
    transaction.policies.insert(revision)
    fields = {"principal": publisher.text, "revision": number, "sha256": sha256, "comment": comment}
    # The whole text is in the log too: an auditor can redo every decision without trusting the store's tables. The
    # quotas stand beside it as they were understood, for a verifier that does not read YAML.
    fields |= {"document": document.decode(), "quotas": _quota_fields(policy)}
    transaction.append([Entry("policy.published", fields)], now)
    transaction.raise_epoch()
    return revision


def _quota_fields(policy: Policy) -> list[dict[str, object]]:
    return [
        {
            "match": rule.match.text,
            "quota": quota.quota_id,
            "count": quota.count,
            "period_us": quota.period_us,
            "by_principal": quota.by_principal,
            "per_version": quota.per_version,
        }
        for rule in policy.key_rules
        for quota in rule.quotas
    ]


def _parsed(document: bytes) -> Policy:
    try:
        return parse_policy(document, 0)
    except DocumentError as error:
        count = len(error.problems)
        shown = "; ".join(str(problem) for problem in error.problems[:5])
        message = f"the policy has {count} fault{'s'[: count != 1]}: {shown}"
        raise SignerError(Reason.POLICY_INVALID, message, field="document") from error
