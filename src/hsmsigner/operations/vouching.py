"""Continuity: before a new version takes over, it and the old one sign each other (domain/continuity.py).

That use of both keys is recorded before it happens, like every other (P2); the signatures are made by the token and
verified by its worker. Where the old version cannot vouch, the record says why, and the rotation goes on: an emergency
must not wait for a key that is lost or no longer trusted. It also is the new version's trial: one that was not seen to
sign never takes over, whatever became of the old one.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from hsmsigner.domain.continuity import ContinuityPlan, ContinuityStatement, plan_continuity
from hsmsigner.domain.key import Key, KeyState, KeyVersion
from hsmsigner.domain.rotation_policy import Rotation
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.jobs import sign_task
from hsmsigner.operations.key_changes import Cause, Change, KeyChanges
from hsmsigner.operations.pairs import has_pair
from hsmsigner.operations.ports import SignOutcome, SignStatus, Token

_FINAL = (SignStatus.REFUSED, SignStatus.WRONG_SIGNATURE)


class VersionUnfitError(Exception):
    """The new version cannot sign; the text says what the token said."""


@dataclass(frozen=True, slots=True)
class _Permit:
    """What was recorded as about to be signed. With an `obstacle` the new version alone signs, as a trial."""

    rotation: Rotation
    old: KeyVersion
    new: KeyVersion
    plan: ContinuityPlan
    obstacle: str


async def vouch(changes: KeyChanges, token: Token, key: Key, rotation: Rotation, cause: Cause) -> None:
    """Have old and new sign each other, or settle that they will not.

    Raises:
        VersionUnfitError: the new version cannot sign.
        SignerError: TOKEN_UNAVAILABLE, try again later; ETAG_MISMATCH, the key was changed meanwhile.
    """
    async with changes.begin() as change:
        permit = _authorize(change, key, rotation, cause)
    plan, old, new = permit.plan, permit.old, permit.new
    signers = [new] if permit.obstacle else [new, old]
    by_new, *others = await token.sign([sign_task(version, plan.to_be_signed(version)) for version in signers])
    if by_new.status in _FINAL or await _is_gone(token, new, by_new):
        raise VersionUnfitError(f"{new.name} cannot sign: {by_new.cause}")
    obstacle: str | None = permit.obstacle
    for by_old in others:
        if by_old.status is SignStatus.SIGNED and by_new.status is SignStatus.SIGNED:
            async with changes.begin() as change:
                _store(change, plan.finish(by_old.signature, by_new.signature), permit, cause)
            return
        obstacle = await _obstacle(token, old, by_old)
    if obstacle is None or by_new.status is not SignStatus.SIGNED:
        message = "the token could not sign the continuity statement; the rotation goes on by itself"
        raise SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=1.0)
    async with changes.begin() as change:
        _settle_without(change, permit, cause, obstacle)


def _authorize(change: Change, key: Key, rotation: Rotation, cause: Cause) -> _Permit:
    """Record that both are about to sign, or the new one alone when the old one must not."""
    stored, rotation = change.under_way(rotation, key.name)
    old, new = _both(stored, rotation)
    if (old.name, old.revision) != (key.primary.name, key.primary.revision):
        raise SignerError(Reason.ETAG_MISMATCH, f"{old.name} was changed meanwhile; look at it again")
    if old.state is not KeyState.ACTIVE:
        # Never stored: what was signed names a version that did not sign it.
        obstacle = f"the old version is {old.state.value}"
        change.record("key.trial_authorized", new.name, cause, old_version=str(old.name))
        plan = plan_continuity(old, new, change.now, rotation.activate_time)
        return _Permit(rotation, old, new, plan, obstacle)
    if rotation.continuity_time is None:
        rotation = replace(rotation, continuity_time=change.now)
        change.transaction.rotations.save(rotation)
        change.record("key.continuity_authorized", new.name, cause, old_version=str(old.name))
    time = rotation.continuity_time or change.now
    return _Permit(rotation, old, new, plan_continuity(old, new, time, rotation.activate_time), "")


def _store(change: Change, statement: ContinuityStatement, permit: _Permit, cause: Cause) -> None:
    stored = _unsettled(change, permit)
    change.transaction.rotations.save(replace(stored, is_vouched=True))
    change.transaction.continuity.insert(statement, change.next_sequence)
    change.record(
        "key.continuity",
        statement.new_version,
        cause,
        old_version=str(statement.old_version),
        signed_by_old_sha256=hashlib.sha256(statement.signed_by_old.encode()).hexdigest(),
        signed_by_new_sha256=hashlib.sha256(statement.signed_by_new.encode()).hexdigest(),
    )


def _settle_without(change: Change, permit: _Permit, cause: Cause, obstacle: str) -> None:
    stored = _unsettled(change, permit)
    change.transaction.rotations.save(replace(stored, is_vouched=True))
    change.record("key.continuity_missing", permit.new.name, cause, old_version=str(permit.old.name), obstacle=obstacle)


def _unsettled(change: Change, permit: _Permit) -> Rotation:
    """The rotation, if it still waits for just what was signed: meanwhile somebody may have ordered another time."""
    asked = permit.rotation
    _, stored = change.under_way(asked, permit.new.name.key)
    is_same = (stored.continuity_time, stored.activate_time) == (asked.continuity_time, asked.activate_time)
    if stored.is_vouched or not is_same:
        raise SignerError(Reason.ETAG_MISMATCH, f"the rotation to {permit.new.name} was changed meanwhile; look again")
    return stored


async def _is_gone(token: Token, version: KeyVersion, outcome: SignOutcome) -> bool:
    return outcome.status is SignStatus.NOT_CALLED and not await has_pair(token, version)


async def _obstacle(token: Token, old: KeyVersion, outcome: SignOutcome) -> str | None:
    """Why the old version never will vouch; None when a later try may succeed.

    Raises:
        SignerError: TOKEN_UNAVAILABLE.
    """
    if outcome.status in _FINAL:
        return f"the old version cannot sign: {outcome.cause}"
    return "the token does not have the old version" if await _is_gone(token, old, outcome) else None


def _both(key: Key, rotation: Rotation) -> tuple[KeyVersion, KeyVersion]:
    new = key.version(rotation.number)
    if new is None:
        raise SignerError(Reason.INTERNAL, "a version that was not made cannot vouch")
    return key.primary, new
