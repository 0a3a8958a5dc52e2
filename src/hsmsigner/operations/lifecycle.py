"""Changing the state of a version, one verb at a time, and a key's rotation policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.lifecycle import Verb, apply_verb, begin_destruction, destroy_time_after
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.rotation_policy import RotationPolicy
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import check_etag, visible_key
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges
from hsmsigner.operations.ports import Store, Token
from hsmsigner.operations.rotation import Rotations
from hsmsigner.operations.rotation_changes import call_off, call_off_unmade, is_unmade


class Lifecycle:
    """The use cases behind UpdateKey and the verbs of KeyService."""

    def __init__(
        self,
        store: Store,
        token: Token,
        governance: GovernanceCache,
        clock: Callable[[], Instant],
        rotations: Rotations,
    ) -> None:
        self._changes = KeyChanges(store, governance, clock)
        self._token = token
        self._rotations = rotations

    async def set_rotation_policy(
        self, principal: Principal, name: KeyName, policy: RotationPolicy, cause: Cause, *, etag: str = ""
    ) -> Key:
        """Replace the rotation policy of a key.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, INVALID_FIELD, ETAG_MISMATCH.
        """
        visible_key(self._changes.governance, principal, name, Right.MANAGE_KEY)
        cause.check()
        policy.check()
        async with self._changes.begin() as change:
            key = change.permitted_key(principal, name, Right.MANAGE_KEY)
            check_etag(etag, key.etag)
            key = change.transaction.keys.save_key(replace(key, rotation_policy=policy))
            change.record("key.rotation_policy_set", name, cause, rotation_policy=asdict(policy))
        return key

    async def change(
        self,
        verb: Verb,
        principal: Principal,
        name: VersionName,
        cause: Cause,
        *,
        etag: str = "",
        delay_us: int | None = None,
    ) -> KeyVersion:
        """Do one verb. `delay_us` goes with SCHEDULE_DESTROY.

        DEACTIVATE of a version that the token has not made yet calls its rotation off.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, INVALID_FIELD, ETAG_MISMATCH, WRONG_STATE; with DESTROY also
                TOKEN_UNAVAILABLE, after which the destruction goes on by itself.
        """
        visible_key(self._changes.governance, principal, name.key, Right.MANAGE_KEY)
        cause.check()
        if verb is Verb.ACTIVATE:
            return await self._rotations.activate(principal, name, cause, etag=etag)
        async with self._changes.begin() as change:
            key = change.permitted_key(principal, name.key, Right.MANAGE_KEY)
            if calls_off := verb is Verb.DEACTIVATE and is_unmade(key, name):
                check_etag(etag, key.etag)
                version = call_off_unmade(change, key, cause)
            else:
                key, version = change.permitted_version(principal, name, Right.MANAGE_KEY)
                check_etag(etag, version.etag)
                if verb is Verb.DESTROY:
                    begin_destroying(change, version, cause)
                else:
                    due = destroy_time_after(delay_us, change.now) if verb is Verb.SCHEDULE_DESTROY else None
                    version = change_within(change, verb, key, version, cause, destroy_time=due)
        if calls_off:
            await self._rotations.discard(version.cka_id, version.algorithm)
        return await self.finish_destroying(name, cause) if verb is Verb.DESTROY else version

    async def finish_destroying(self, name: VersionName, cause: Cause) -> KeyVersion:
        """Destroy the pair of a version whose destruction was begun, and record it. May be repeated at will.

        Raises:
            SignerError: TOKEN_UNAVAILABLE, TOKEN_REFUSED; the version stays DESTROY_SCHEDULED, without a way back.
        """
        version = self._stored(name)
        await self._token.destroy(version.cka_id, version.public_key, version.algorithm)
        async with self._changes.begin() as change:
            version = change.key(name.key).versions[name.number - 1]
            if version.state is KeyState.DESTROYED:
                return version
            version = apply_verb(Verb.DESTROY, version, change.now, is_primary=False)
            version = change.transaction.keys.save_version(version)
            change.record("key.destroyed", name, cause)
        return version

    def _stored(self, name: VersionName) -> KeyVersion:
        version = self._changes.governance.version(name)
        if version is None or not version.is_destroying:
            raise SignerError(Reason.INTERNAL, f"the destruction of {name} was not begun")
        return version


def change_within(
    change: Change, verb: Verb, key: Key, version: KeyVersion, cause: Cause, *, destroy_time: Instant | None = None
) -> KeyVersion:
    """Do a verb that needs no token, as part of a change; a rotation that it takes its version from is called off."""
    number = version.name.number
    after = apply_verb(verb, version, change.now, is_primary=number == key.primary_number, destroy_time=destroy_time)
    after = change.transaction.keys.save_version(after)
    more: dict[str, object] = {"from": version.state.value, "to": after.state.value}
    if destroy_time is not None:
        more["destroy_time"] = format_instant(destroy_time)
    change.record(f"key.{verb.value}", version.name, cause, **more)
    if version.state is KeyState.PRE_ACTIVATION:
        call_off(change, key, number, verb)
    return after


def begin_destroying(change: Change, version: KeyVersion, cause: Cause) -> None:
    """Record that the pair is about to be destroyed, before the token is asked: from here on there is no way back."""
    begun = begin_destruction(version)
    if begun != version:
        change.transaction.keys.save_version(begun)
        change.record("key.destroy_started", version.name, cause)
