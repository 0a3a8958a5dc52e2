"""Rotating a key: the next version is made, published and vouched for before it takes over.

Each step is a short transaction, or a call to the token between two of them, and what is left to do is always read from
the store: after a crash, in another process, or when the token is back, `advance` goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant, format_instant
from hsmsigner.domain.key import CkaId, Key, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.lifecycle import Verb, apply_verb
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.rotation import MakeVersion, RotationStep, TakeOver, Vouch, rotation_step
from hsmsigner.domain.rotation_policy import Rotation
from hsmsigner.domain.signing import RequestId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import check_etag, visible_key
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges, WantedRotation
from hsmsigner.operations.pairs import fresh_cka_id, make_pair
from hsmsigner.operations.ports import PendingKey, RequestKey, Store, Token
from hsmsigner.operations.rotation_changes import (
    fail,
    hasten,
    in_progress,
    publish,
    refuse_failed,
    take_over,
    wanted_rotation,
)
from hsmsigner.operations.unhurried import Unhurried
from hsmsigner.operations.unwanted import discard
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
            is_repeated = change.claim("RotateKey", cause, str(name), wanted.activate_time, wanted.overlap_us)
            request = RequestKey(principal.text, RequestId(cause.request_id))
            is_ordered = False
            begun = change.transaction.rotations.find(name, request)
            refuse_failed(begun)
            # A store of before the ids of commands were kept knows only the rotation.
            if begun is None and not is_repeated:
                check_etag(wanted.etag, key.etag)
                rotation = wanted_rotation(change, key, wanted, cause)
                if validate_only:
                    return key
                self.begin_within(change, key, rotation, cause)
                # Said by somebody who could see that the key is suspended; a retry may be older than that.
                is_ordered = key.primary.state is KeyState.SUSPENDED
        if not validate_only:
            await self._unhurried.run(self.advance(name, is_ordered=is_ordered))
            async with self._changes.begin() as change:
                # Somebody may have called it off, or another frontend given it up, while this one was at it.
                refuse_failed(change.transaction.rotations.find(name, request))
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
            apply_verb(Verb.ACTIVATE, version, change.now, is_primary=False)
            if name.number < key.primary_number:
                # Statements lead from older to newer: one that leads back would break the chain for every verifier.
                message = f"{name} is older than the primary; rotate the key instead"
                raise SignerError(Reason.WRONG_STATE, message)
            rotation = key.rotation
            if rotation is None:
                planned = wanted_rotation(change, key, WantedRotation(), cause)
                self.begin_within(change, key, replace(planned, number=name.number), cause)
            elif rotation.number != name.number:
                raise in_progress(key)
            else:
                hasten(change, key, version, rotation, cause)
        await self._unhurried.run(self.advance(name.key, is_ordered=True))
        version = self._newest(name.key).versions[name.number - 1]
        if version.activate_time is None:
            message = f"{name} became {version.state.value} before it could take over"
            raise SignerError(Reason.WRONG_STATE, message, metadata={"state": version.state.value})
        return version

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

    async def advance(self, name: KeyName, *, is_ordered: bool = False) -> None:
        """Take every step that is due of the rotation under way; see `rotation_step` for `is_ordered`.

        Raises:
            SignerError: what stopped it; what was done stays done.
        """
        async with self._locks[name]:
            for _ in range(_MOST_STEPS):
                async with self._changes.begin() as change:
                    key = change.key(name)
                    step = rotation_step(key, change.now, is_ordered=is_ordered)
                if step is None:
                    return
                try:
                    await self._take(key, step, is_ordered=is_ordered)
                except SignerError as error:
                    # Somebody else was faster: look again what is left to do.
                    if error.reason is not Reason.ETAG_MISMATCH:
                        raise
        raise SignerError(Reason.ETAG_MISMATCH, f"{name} is being changed by others; try again later")

    async def _take(self, key: Key, step: RotationStep, *, is_ordered: bool) -> None:
        cause = _cause(step.rotation)
        match step:
            case MakeVersion(rotation):
                await self._make(key, rotation, cause)
            case Vouch(rotation):
                try:
                    await vouch(self._changes, self._token, key, rotation, cause)
                except VersionUnfitError as error:
                    async with self._changes.begin() as change:
                        fail(change, *change.under_way(rotation, key.name), cause, str(error))
                    message = "the token cannot sign with the new version; the rotation was given up"
                    raise SignerError(Reason.TOKEN_REFUSED, message) from error
            case TakeOver(rotation):
                async with self._changes.begin() as change:
                    key, rotation = change.under_way(rotation, key.name)
                    take_over(change, key, rotation, _cause(rotation), is_ordered=is_ordered)

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
            async with self._changes.begin() as change:
                stored, rotation = change.under_way(rotation, key.name)
                if stored.version(rotation.number) is not None:
                    # Another frontend made it: what went wrong here does not matter any more.
                    raise SignerError(Reason.ETAG_MISMATCH, f"{name} was completed meanwhile") from error
                if error.reason is not Reason.TOKEN_UNAVAILABLE:
                    fail(change, stored, rotation, cause, error.reason.value)
            raise
        try:
            async with self._changes.begin() as change:
                publish(change, pending, pair, rotation, cause)
        except SignerError as error:
            if error.reason is Reason.ETAG_MISMATCH:
                await self.discard(pending.cka_id, key.algorithm)
            raise

    async def discard(self, cka_id: CkaId, algorithm: SigningAlgorithm) -> None:
        """Destroy the pair of a rotation that was called off, if there is one."""
        await discard(self._changes, self._token, cka_id, algorithm)

    def _newest(self, name: KeyName) -> Key:
        key = self._changes.governance.key(name)
        if key is None:
            raise SignerError(Reason.INTERNAL, f"{name} is gone")
        return key


def _cause(rotation: Rotation) -> Cause:
    return Cause(Principal(rotation.principal), rotation.reason, rotation.request_id)
