"""Making keys and looking at them.

A key is made in three steps, so that a crash leaves neither a pair on the token that nobody knows of nor a key that
signs without its record: reserve name and CKA_ID in the store; generate on the token; complete in the store. What a
crash left between the steps is finished by `finish_pending` at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant, not_before
from hsmsigner.domain.key import Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import APPLIANCE, Principal
from hsmsigner.domain.record import Entry
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import refuse_log_key, require_key_rights, visible_key, visible_version
from hsmsigner.operations.commands import Command, is_known, remember
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.operations.pairs import fresh_cka_id, make_pair
from hsmsigner.operations.ports import PendingKey, RequestKey, Store, Token, TokenKeyPair, Transaction
from hsmsigner.operations.unhurried import Unhurried

_log = logging.getLogger(__name__)


class Keys:
    """The use cases behind KeyService and the public-key calls."""

    def __init__(self, store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._token = token
        self._governance = governance
        self._clock = clock
        # Names whose CreateKey is under way here; a reservation that is not among them was left half-made.
        self._being_made: set[KeyName] = set()
        self._unhurried = Unhurried()

    async def create(
        self,
        principal: Principal,
        name: KeyName,
        algorithm: SigningAlgorithm,
        request_id: RequestId,
        *,
        validate_only: bool = False,
    ) -> Key:
        """Generate a key on the token. The same `request_id` again answers with the key made the first time.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, KEY_RESERVED, KEY_EXISTS, REQUEST_ID_REUSED, REQUEST_IN_PROGRESS,
                ALGORITHM_NOT_SUPPORTED, KEY_NOT_PROTECTED, TOKEN_UNAVAILABLE, AUDIT_UNAVAILABLE.
        """
        require_key_rights(self._governance.newest, principal, name, Right.CREATE_KEY)
        refuse_log_key(name)
        await self._require_algorithm(algorithm)
        wanted = PendingKey(name, algorithm, fresh_cka_id(), RequestKey(principal.text, request_id))
        return await self._unhurried.run(self._create(wanted, validate_only=validate_only))

    async def create_own(self, name: KeyName, algorithm: SigningAlgorithm, request_id: RequestId) -> Key:
        """The same for a key of the appliance itself: no policy is asked, since no policy may be without it.

        Raises:
            SignerError: as `create`.
        """
        wanted = PendingKey(name, algorithm, fresh_cka_id(), RequestKey(APPLIANCE.text, request_id))
        return await self._unhurried.run(self._create(wanted, validate_only=False))

    async def _create(self, wanted: PendingKey, *, validate_only: bool) -> Key:
        name = wanted.name
        if name in self._being_made:
            message = f"{name} is being made; retry with the same request_id"
            raise SignerError(Reason.REQUEST_IN_PROGRESS, message, retry_after_s=1.0)
        self._being_made.add(name)
        try:
            reserved = await self._reserve(wanted, validate_only=validate_only)
            return reserved if isinstance(reserved, Key) else await self._make(reserved, is_new=reserved is wanted)
        finally:
            self._being_made.discard(name)

    async def _make(self, pending: PendingKey, *, is_new: bool) -> Key:
        try:
            pair = await make_pair(self._token, pending, is_new=is_new)
        except SignerError as error:
            # With the token lost the pair may exist: the reservation stays, for a retry or the next start.
            if error.reason is not Reason.TOKEN_UNAVAILABLE:
                await self._give_up(pending, error.reason.value)
            raise
        return await self._complete(pending, pair)

    async def finish_pending(self) -> None:
        """Finish or undo what a crash left half-made. Undoes only when a freshly opened token has no such pair.

        Raises:
            SignerError: TOKEN_UNAVAILABLE, AUDIT_UNAVAILABLE; nothing is undone then.
        """
        async with self._store.transaction() as transaction:
            left = [pending for pending in transaction.keys.load_pending() if pending.number == 1]
        for pending in left:
            # What a caller is making right now is not half-made.
            if pending.name not in self._being_made:
                self._being_made.add(pending.name)
                try:
                    await self._finish(pending)
                finally:
                    self._being_made.discard(pending.name)

    async def _finish(self, pending: PendingKey) -> None:
        pair = await self._token.find(pending.cka_id, pending.algorithm)
        if pair is None:
            await self._give_up(pending, "not on the token after a restart")
        else:
            await self._complete(pending, pair)
        _log.warning("key %s was half-made: %s", pending.name, "undone" if pair is None else "completed")

    def get(self, principal: Principal, name: KeyName) -> Key:
        """A key over which the principal has any right.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
        """
        return visible_key(self._governance.newest, principal, name)

    async def get_counted(self, principal: Principal, name: KeyName) -> Key:
        """The same, with the signatures counted up to now.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, AUDIT_UNAVAILABLE.
        """
        key = self.get(principal, name)
        counts = await self._store.read_signature_counts(name)
        versions = (replace(version, signature_count=counts[version.name.number]) for version in key.versions)
        return replace(key, versions=tuple(versions))

    def list(self, principal: Principal, right: Right | None = None) -> list[Key]:
        """Keys over which the principal has this right (or any), by name."""
        governance = self._governance.newest
        return [key for key in governance.keys.values() if _may_see(governance, principal, key, right)]

    def public_key(self, principal: Principal, name: KeyName | VersionName) -> KeyVersion:
        """The version whose public key is wanted.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN.
        """
        return visible_version(self._governance.newest, principal, name, Right.GET_PUBLIC_KEY)

    async def _require_algorithm(self, algorithm: SigningAlgorithm) -> None:
        status = await self._token.status()
        if algorithm.name not in status.algorithms:
            has = ", ".join(sorted(status.algorithms))
            message = f"the token cannot sign with {algorithm.name}; it has {has}"
            raise SignerError(Reason.ALGORITHM_NOT_SUPPORTED, message, field="algorithm")

    async def _reserve(self, wanted: PendingKey, *, validate_only: bool) -> Key | PendingKey:
        """Record that the key is about to be made; or say what an earlier call with this id reserved or made."""
        async with self._store.transaction() as transaction:
            governance = self._governance.within(transaction)
            principal = Principal(wanted.request.principal)
            if principal != APPLIANCE:
                # Again, now that nothing can change: the policy may have been replaced since the first look.
                require_key_rights(governance, principal, wanted.name, Right.CREATE_KEY)
            owner = transaction.keys.request_for(wanted.name)
            now = self._now(transaction.last_time)
            command = Command(wanted.request, "CreateKey", (str(wanted.name), wanted.algorithm.name))
            is_repeated = is_known(transaction, command)
            if owner is not None:
                return _already_reserved(transaction, governance, wanted, owner)
            if validate_only:
                nothing_yet = TokenKeyPair(b"", local=False, always_sensitive=False, never_extractable=False)
                return _complete_key(replace(_version(wanted, nothing_yet, now), state=KeyState.PRE_ACTIVATION))
            transaction.keys.insert_pending(wanted, now)
            if not is_repeated:
                remember(transaction, command, now)
            transaction.append([_entry("key.requested", wanted)], now)
            return wanted

    async def _complete(self, pending: PendingKey, pair: TokenKeyPair) -> Key:
        async with self._store.transaction() as transaction:
            now = self._now(transaction.last_time)
            version = _version(pending, pair, now)
            transaction.keys.complete(version)
            more = {
                "version": str(version.name),
                "public_key": pair.public_key.hex(),
                "local": pair.local,
                "always_sensitive": pair.always_sensitive,
                "never_extractable": pair.never_extractable,
            }
            transaction.append([_entry("key.created", pending, more)], now)
            transaction.raise_epoch()
        await self._governance.reload(self._store)
        return _complete_key(version)

    async def _give_up(self, pending: PendingKey, reason: str) -> None:
        async with self._store.transaction() as transaction:
            transaction.keys.delete_pending(pending.version)
            transaction.append([_entry("key.failed", pending, {"reason": reason})], self._now(transaction.last_time))

    def _now(self, last_time: Instant) -> Instant:
        return not_before(self._clock(), last_time)


def _already_reserved(
    transaction: Transaction, governance: Governance, wanted: PendingKey, owner: RequestKey
) -> Key | PendingKey:
    """What the name stands for, if the same request asked for it."""
    if owner != wanted.request:
        raise SignerError(Reason.KEY_EXISTS, f"{wanted.name} exists already; choose another key_id")
    return governance.key(wanted.name) or next(
        pending for pending in transaction.keys.load_pending() if pending.name == wanted.name
    )


def _may_see(governance: Governance, principal: Principal, key: Key, right: Right | None) -> bool:
    rights = governance.policy.entitlement(principal.text, str(key.name)).rights
    return bool(rights) if right is None else right in rights


def _entry(kind: str, pending: PendingKey, more: dict[str, object] | None = None) -> Entry:
    fields: dict[str, object] = {
        "request_id": pending.request.request_id,
        "principal": pending.request.principal,
        "key": str(pending.name),
        "algorithm": pending.algorithm.name,
        "cka_id": pending.cka_id.hex(),
    }
    return Entry(kind, fields | (more or {}))


def _version(pending: PendingKey, pair: TokenKeyPair, now: Instant) -> KeyVersion:
    return KeyVersion(
        VersionName(pending.name, 1),
        pending.algorithm,
        KeyState.ACTIVE,
        pending.cka_id,
        pair.public_key,
        now,
        pair.local,
        pair.always_sensitive,
        pair.never_extractable,
        activate_time=now,
    )


def _complete_key(version: KeyVersion) -> Key:
    return Key(version.name.key, version.algorithm, version.create_time, 1, (version,))
