"""Rotating a key: the next version is made, published and vouched for before it takes over.

Each step is a short transaction, or a call to the token between two of them, and what is left to do is always read from
the store: after a crash, in another process, or when the token is back, `advance` goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant, format_instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.lifecycle import Verb
from hsmsigner.domain.lifecycle import change as changed
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.rotation import MakeVersion, RotationStep, TakeOver, Vouch, rotation_step
from hsmsigner.domain.rotation_policy import Rotation, check_overlap
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.access import check_etag, visible_key
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges, WantedRotation
from hsmsigner.operations.pairs import fresh_cka_id, make_pair
from hsmsigner.operations.ports import PendingKey, RequestKey, Store, Token, TokenKeyPair
from hsmsigner.operations.unhurried import Unhurried
from hsmsigner.operations.vouching import VersionUnfitError, vouch

# Three steps, and each may have to be looked at again a few times; beyond that somebody is at odds with us.
_MOST_STEPS = 12


class Rotations:
    """The use cases behind RotateKey and ActivateKeyVersion, and the hands of the scheduler."""

    def __init__(self, store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._changes = KeyChanges(store, governance, clock)
        self._token = token
        # One advance per key at a time in this process; between processes the store decides.
        self._locks: dict[KeyName, asyncio.Lock] = defaultdict(asyncio.Lock)
        # Reservations made here for which the token has not been asked yet: it cannot have their pairs.
        self._unasked: set[CkaId] = set()
        self._unhurried = Unhurried()

    async def rotate(
        self, principal: Principal, name: KeyName, wanted: WantedRotation, cause: Cause, *, validate_only: bool = False
    ) -> Key:
        """Make the next version, and let it take over at once or at a time.

        The same `request_id` again goes on with the rotation it began, or answers with the key.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, INVALID_FIELD, ETAG_MISMATCH, ROTATION_IN_PROGRESS, WRONG_STATE,
                and TOKEN_UNAVAILABLE, after which the rotation goes on by itself once the token is back.
        """
        visible_key(self._changes.governance, principal, name, Right.ROTATE)
        cause.check()
        async with self._changes.begin() as change:
            key = change.permitted_key(principal, name, Right.ROTATE)
            change.claim("RotateKey", cause, str(name), wanted.activate_time, wanted.overlap_us)
            request = RequestKey(principal.text, RequestId(cause.request_id))
            known = change.transaction.rotations.find(name, request)
            if known is None:
                check_etag(wanted.etag, key.etag)
                rotation = _planned(key, wanted, cause, change)
                if validate_only:
                    return key
                self.begin_within(change, key, rotation, cause)
            elif known.failure:
                message = f"the rotation that this request began ended without a new primary: {known.failure}"
                raise SignerError(Reason.WRONG_STATE, message)
        if not validate_only:
            await self._unhurried.run(self.advance(name))
        return self._newest(name)

    async def activate(self, principal: Principal, name: VersionName, cause: Cause, *, etag: str = "") -> KeyVersion:
        """Let a PRE_ACTIVATION version take over now: one that was adopted, or before the time its rotation set.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, ETAG_MISMATCH, ROTATION_IN_PROGRESS, WRONG_STATE,
                TOKEN_UNAVAILABLE.
        """
        async with self._changes.begin() as change:
            key, version = change.permitted_version(principal, name, Right.MANAGE_KEY)
            check_etag(etag, version.etag)
            changed(Verb.ACTIVATE, version, change.now, is_primary=False)
            if name.number < key.primary_number:
                # Statements lead from older to newer: one that leads back would break the chain for every verifier.
                message = f"{name} is older than the primary; rotate the key instead"
                raise SignerError(Reason.WRONG_STATE, message)
            rotation = key.rotation
            if rotation is None:
                planned = _planned(key, WantedRotation(), cause, change)
                self.begin_within(change, key, replace(planned, number=name.number), cause)
            elif rotation.number != name.number:
                raise _in_progress(key)
            elif rotation.activate_time > change.now:
                sooner = replace(rotation, activate_time=change.now, principal=principal.text, reason=cause.reason)
                change.transaction.rotations.save(sooner)
                change.transaction.keys.save_version(replace(version, activate_time=change.now))
                change.record("key.activation_advanced", name, cause)
        await self._unhurried.run(self.advance(name.key))
        return self._newest(name.key).versions[name.number - 1]

    def begin_within(self, change: Change, key: Key, rotation: Rotation, cause: Cause) -> None:
        """Reserve the version, unless it is there, and record what is about to happen."""
        # Raises the key's revision: of two operators who saw the same key, the second finds it changed.
        change.transaction.keys.save_key(key)
        change.transaction.rotations.insert(key.name, rotation)
        version, more = key.version(rotation.number), {}
        if version is None:
            request = change.transaction.keys.request_for(key.name)
            if request is None:
                raise SignerError(Reason.INTERNAL, f"nobody made {key.name}")
            pending = PendingKey(key.name, key.algorithm, fresh_cka_id(), request, rotation.number)
            change.transaction.keys.insert_pending(pending, change.now)
            self._unasked.add(pending.cka_id)
            more = {"cka_id": pending.cka_id.hex()}
        change.record(
            "key.rotation_started",
            VersionName(key.name, rotation.number),
            cause,
            activate_time=format_instant(rotation.activate_time),
            publish_lead_s=rotation.publish_lead_us / MICROSECONDS_PER_SECOND,
            overlap_s=rotation.overlap_us / MICROSECONDS_PER_SECOND,
            **more,
        )

    def is_busy(self, name: KeyName) -> bool:
        """Whether `advance` is at work on this key in this process."""
        return name in self._locks and self._locks[name].locked()

    async def advance(self, name: KeyName) -> None:
        """Take every step that is due of the rotation under way.

        Raises:
            SignerError: what stopped it; what was done stays done.
        """
        async with self._locks[name]:
            for _ in range(_MOST_STEPS):
                async with self._changes.begin() as change:
                    key = change.key(name)
                    step = rotation_step(key, change.now)
                if step is None:
                    return
                try:
                    await self._take(key, step)
                except SignerError as error:
                    # Somebody else was faster: look again what is left to do.
                    if error.reason is not Reason.ETAG_MISMATCH:
                        raise
        raise SignerError(Reason.ETAG_MISMATCH, f"{name} is being changed by others; try again later")

    async def _take(self, key: Key, step: RotationStep) -> None:
        cause = Cause(Principal(step.rotation.principal), step.rotation.reason, step.rotation.request_id)
        match step:
            case MakeVersion(rotation):
                await self._make(key, rotation, cause)
            case Vouch(rotation):
                try:
                    await vouch(self._changes, self._token, key, rotation, cause)
                except VersionUnfitError as error:
                    await self._fail(key, rotation, cause, str(error))
                    message = "the token cannot sign with the new version; the rotation was given up"
                    raise SignerError(Reason.TOKEN_REFUSED, message) from error
            case TakeOver(rotation):
                async with self._changes.begin() as change:
                    _take_over(change, *change.under_way(rotation, key.name), cause)

    async def _make(self, key: Key, rotation: Rotation, cause: Cause) -> None:
        name = VersionName(key.name, rotation.number)
        async with self._changes.begin() as change:
            pending = next((one for one in change.transaction.keys.load_pending() if one.version == name), None)
        if pending is None:
            raise SignerError(Reason.ETAG_MISMATCH, f"{name} was completed or given up meanwhile")
        is_new = pending.cka_id in self._unasked
        self._unasked.discard(pending.cka_id)
        try:
            pair = await make_pair(self._token, pending, is_new=is_new)
        except SignerError as error:
            if error.reason is not Reason.TOKEN_UNAVAILABLE:
                await self._fail(key, rotation, cause, error.reason.value)
            raise
        async with self._changes.begin() as change:
            _publish(change, pending, pair, rotation, cause)

    async def _fail(self, key: Key, rotation: Rotation, cause: Cause, failure: str) -> None:
        async with self._changes.begin() as change:
            stored, rotation = change.under_way(rotation, key.name)
            name = VersionName(key.name, rotation.number)
            version = stored.version(rotation.number)
            change.transaction.keys.save_key(stored)
            if version is None:
                change.transaction.keys.delete_pending(name)
            else:
                change.transaction.keys.save_version(changed(Verb.DEACTIVATE, version, change.now, is_primary=False))
            change.transaction.rotations.save(replace(rotation, finish_time=change.now, failure=failure[:200]))
            change.record("key.rotation_failed", name, cause, failure=failure)

    def _newest(self, name: KeyName) -> Key:
        key = self._changes.governance.key(name)
        if key is None:
            raise SignerError(Reason.INTERNAL, f"{name} is gone")
        return key


def planned_rotation(
    change: Change, key: Key, cause: Cause, *, activate_time: Instant, overlap_us: int, publish_lead_us: int = 0
) -> Rotation:
    """A rotation to the next version, not yet begun."""
    return Rotation(
        sequence=change.next_sequence,
        number=len(key.versions) + 1,
        principal=cause.principal.text,
        request_id=cause.request_id,
        reason=cause.reason,
        start_time=change.now,
        activate_time=activate_time,
        publish_lead_us=publish_lead_us,
        overlap_us=overlap_us,
    )


def call_off(change: Change, key: Key, number: int, verb: Verb) -> None:
    """End the rotation whose version was taken away from it by a verb, if there is one."""
    if key.rotation is not None and key.rotation.number == number:
        ended = replace(key.rotation, finish_time=change.now, failure=f"the new version was {verb.value}")
        change.transaction.rotations.save(ended)


def _planned(key: Key, wanted: WantedRotation, cause: Cause, change: Change) -> Rotation:
    if key.rotation is not None:
        raise _in_progress(key)
    policy = key.rotation_policy
    overlap_us = policy.overlap_us if wanted.overlap_us is None else wanted.overlap_us
    check_overlap(overlap_us, policy.rotation_period_us)
    if wanted.activate_time is not None and wanted.activate_time < change.now:
        raise invalid_field("activate_time", "is in the past; leave it unset to rotate now")
    return planned_rotation(change, key, cause, activate_time=wanted.activate_time or change.now, overlap_us=overlap_us)


def _publish(change: Change, pending: PendingKey, pair: TokenKeyPair, rotation: Rotation, cause: Cause) -> None:
    """From here on the new public key is in every key set, and its lead begins."""
    key, stored = change.under_way(rotation, pending.name)
    activate_time = Instant(max(stored.activate_time, change.now + stored.publish_lead_us))
    version = KeyVersion(
        pending.version,
        key.algorithm,
        KeyState.PRE_ACTIVATION,
        pending.cka_id,
        pair.public_key,
        change.now,
        pair.local,
        pair.always_sensitive,
        pair.never_extractable,
        activate_time=activate_time,
    )
    change.transaction.keys.complete(version)
    change.transaction.rotations.save(replace(stored, activate_time=activate_time))
    change.record(
        "key.version_created",
        version.name,
        cause,
        algorithm=key.algorithm.name,
        cka_id=pending.cka_id.hex(),
        public_key=pair.public_key.hex(),
        local=pair.local,
        always_sensitive=pair.always_sensitive,
        never_extractable=pair.never_extractable,
    )


def _take_over(change: Change, key: Key, rotation: Rotation, cause: Cause) -> None:
    """In one transaction, so that at every moment one version is the primary, and the old one's time is known."""
    old, new, now = key.primary, key.versions[rotation.number - 1], change.now
    until = Instant(now + rotation.overlap_us)
    tables = change.transaction
    tables.keys.save_key(replace(key, primary_number=rotation.number))
    tables.keys.save_version(changed(Verb.ACTIVATE, new, now, is_primary=False))
    tables.rotations.save(replace(rotation, finish_time=now))
    change.record("key.activated", new.name, cause, old_version=str(old.name), old_until=format_instant(until))
    if old.state not in (KeyState.ACTIVE, KeyState.SUSPENDED):
        return
    if rotation.overlap_us:
        tables.keys.save_version(replace(old, deactivate_time=until))
    else:
        tables.keys.save_version(changed(Verb.DEACTIVATE, old, now, is_primary=False))
        change.record("key.deactivated", old.name, cause)


def _in_progress(key: Key) -> SignerError:
    number = 0 if key.rotation is None else key.rotation.number
    message = f"{key.name} is being rotated to version {number} already; deactivate that version to call it off"
    return SignerError(Reason.ROTATION_IN_PROGRESS, message, metadata={"version": str(number)})
