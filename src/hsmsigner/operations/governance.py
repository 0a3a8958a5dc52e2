"""Policy and keys as the running frontend sees them: a cache that is good for one epoch of the store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from hsmsigner.domain.key import Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.policy import Policy
from hsmsigner.domain.policy_document import parse_policy
from hsmsigner.operations.ports import PolicyRevision, Store, Transaction


@dataclass(frozen=True, slots=True)
class Governance:
    """One epoch: the policy in force, its document, and every key."""

    epoch: int
    policy: Policy
    revision: PolicyRevision
    keys: Mapping[str, Key]

    def key(self, name: KeyName) -> Key | None:
        """The key of this name."""
        return self.keys.get(name.key_id)

    def version(self, name: VersionName) -> KeyVersion | None:
        """The version of this name."""
        key = self.key(name.key)
        return None if key is None else key.version(name.number)


# What an operator who takes a version out of use means: nothing gets out that it was signing then. One that is rotated
# out finishes what was authorized before.
_TAKEN_OUT = frozenset({KeyState.SUSPENDED, KeyState.COMPROMISED, KeyState.DESTROY_SCHEDULED, KeyState.DESTROYED})


class GovernanceCache:
    """Holds the newest epoch seen; every transaction asks it, so that a decision never uses an older one.

    `taken_out` has the versions that were ever seen out of use, with the log's size when last they were: what was
    authorized before is released no more, whatever became of the version since. Every change of a key asks for the
    state before it, so none is missed; and what was authorized before a restart is not released either.
    """

    def __init__(self) -> None:
        self.taken_out: dict[VersionName, int] = {}
        self._newest: Governance | None = None
        self._changed = asyncio.Event()

    @property
    def newest(self) -> Governance:
        """The newest epoch seen; for reads that no transaction covers."""
        if self._newest is None:
            raise RuntimeError("the store has not been read yet")
        return self._newest

    def within(self, transaction: Transaction) -> Governance:
        """The epoch of this transaction; loaded only when it changed."""
        if self._newest is None or self._newest.epoch != transaction.epoch:
            self._newest = load_governance(transaction)
            for key in self._newest.keys.values():
                out = [version.name for version in key.versions if version.state in _TAKEN_OUT]
                self.taken_out |= dict.fromkeys(out, transaction.next_sequence)
            # Whoever waits has this event; the next change is the next one's.
            self._changed.set()
            self._changed = asyncio.Event()
        return self._newest

    async def after(self, epoch: int | None) -> Governance:
        """The newest epoch seen, as soon as it is another than this one."""
        while self._newest is None or self._newest.epoch == epoch:
            await self._changed.wait()
        return self._newest

    async def reload(self, store: Store) -> None:
        """Take what is durable now. Never called inside a writing transaction: that one may still fail.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        async with store.transaction() as transaction:
            self.within(transaction)


def load_governance(transaction: Transaction) -> Governance:
    """Read policy and keys.

    Raises:
        RuntimeError: the store has no policy; `operations.recovery.start_up` publishes the first one.
    """
    revision = transaction.policies.newest()
    if revision is None:
        raise RuntimeError("the store has no policy")
    keys = {key.name.key_id: key for key in transaction.keys.load_all()}
    policy = parse_policy(revision.document, revision.revision)
    return Governance(transaction.epoch, policy, revision, keys)
