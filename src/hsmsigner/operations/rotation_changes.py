"""What a rotation writes, each within one change: how it is planned, published, taken over, and how it ends early."""

from __future__ import annotations

from dataclasses import replace

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import Key, KeyState, KeyVersion, VersionName
from hsmsigner.domain.lifecycle import Verb, apply_verb
from hsmsigner.domain.rotation import TakeOver, rotation_step
from hsmsigner.domain.rotation_policy import Rotation, check_overlap
from hsmsigner.errors import Reason, SignerError, invalid_field
from hsmsigner.operations.key_changes import Cause, Change, WantedRotation
from hsmsigner.operations.ports import PendingKey, TokenKeyPair


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


def is_unmade(key: Key, name: VersionName) -> bool:
    """Whether this is the version of a rotation whose pair the token has not made yet."""
    return key.rotation is not None and key.rotation.number == name.number and key.version(name.number) is None


def call_off_unmade(change: Change, key: Key, cause: Cause) -> KeyVersion:
    """End the rotation whose pair the token has not made; gives the version that does not come to be."""
    rotation = key.rotation
    if rotation is None:
        raise SignerError(Reason.INTERNAL, f"{key.name} is not being rotated")
    name = VersionName(key.name, rotation.number)
    pending = next(one for one in change.transaction.keys.load_pending() if one.version == name)
    failure = "called off before the token had made the new version"
    change.transaction.keys.save_key(key)
    change.transaction.keys.delete_pending(name)
    change.transaction.unwanted_pairs.insert(pending.cka_id, key.algorithm, change.now)
    change.transaction.rotations.save(replace(rotation, finish_time=change.now, failure=failure))
    change.record("key.rotation_failed", name, cause, failure=failure, cka_id=pending.cka_id.hex())
    return KeyVersion(
        name,
        key.algorithm,
        KeyState.DEACTIVATED,
        pending.cka_id,
        b"",
        rotation.start_time,
        local=False,
        always_sensitive=False,
        never_extractable=False,
        deactivate_time=change.now,
    )


def fail(change: Change, key: Key, rotation: Rotation, cause: Cause, failure: str) -> None:
    """End a rotation that cannot come to its end; a version that was made stays, DEACTIVATED."""
    name = VersionName(key.name, rotation.number)
    version = key.version(rotation.number)
    change.transaction.keys.save_key(key)
    if version is None:
        change.transaction.keys.delete_pending(name)
    else:
        change.transaction.keys.save_version(apply_verb(Verb.DEACTIVATE, version, change.now, is_primary=False))
    change.transaction.rotations.save(replace(rotation, finish_time=change.now, failure=failure[:200]))
    change.record("key.rotation_failed", name, cause, failure=failure)


def hasten(change: Change, key: Key, version: KeyVersion, rotation: Rotation, cause: Cause) -> None:
    """Let a version that was made take over now, at somebody else's order, who answers for it from here on."""
    is_sooner = rotation.activate_time > change.now
    ordered = replace(rotation, principal=cause.principal.text, request_id=cause.request_id, reason=cause.reason)
    if is_sooner:
        ordered = replace(ordered, activate_time=change.now)
        if key.primary.state is KeyState.ACTIVE:
            # The statement says a later time: it is made anew. One by a version that may not sign any more has to do.
            ordered = replace(ordered, continuity_time=None, is_vouched=False)
        change.transaction.keys.save_version(replace(version, activate_time=change.now))
    change.transaction.rotations.save(ordered)
    change.record("key.activation_advanced" if is_sooner else "key.activation_ordered", version.name, cause)


def call_off(change: Change, key: Key, number: int, verb: Verb) -> None:
    """End the rotation whose version was taken away from it by a verb, if there is one."""
    if key.rotation is not None and key.rotation.number == number:
        ended = replace(key.rotation, finish_time=change.now, failure=f"the new version was {verb.value}")
        change.transaction.rotations.save(ended)


def wanted_rotation(change: Change, key: Key, wanted: WantedRotation, cause: Cause) -> Rotation:
    """A rotation as a command asks for it, not yet begun.

    Raises:
        SignerError: ROTATION_IN_PROGRESS, INVALID_FIELD.
    """
    if key.rotation is not None:
        raise in_progress(key)
    policy = key.rotation_policy
    overlap_us = policy.overlap_us if wanted.overlap_us is None else wanted.overlap_us
    check_overlap(overlap_us, policy.rotation_period_us)
    if wanted.activate_time is not None and wanted.activate_time < change.now:
        raise invalid_field("activate_time", "is in the past; leave it unset to rotate now")
    return planned_rotation(change, key, cause, activate_time=wanted.activate_time or change.now, overlap_us=overlap_us)


def publish(change: Change, pending: PendingKey, pair: TokenKeyPair, rotation: Rotation, cause: Cause) -> None:
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


def take_over(change: Change, key: Key, rotation: Rotation, cause: Cause, *, is_ordered: bool) -> None:
    """In one transaction, so that at every moment one version is the primary, and the old one's time is known.

    Raises:
        SignerError: ETAG_MISMATCH, it is not due any more: somebody suspended the key at this very moment.
    """
    if not isinstance(rotation_step(key, change.now, is_ordered=is_ordered), TakeOver):
        raise SignerError(Reason.ETAG_MISMATCH, f"{key.name} was changed meanwhile; look at it again")
    old, new, now = key.primary, key.versions[rotation.number - 1], change.now
    until = Instant(now + rotation.overlap_us)
    tables = change.transaction
    tables.keys.save_key(replace(key, primary_number=rotation.number))
    tables.keys.save_version(apply_verb(Verb.ACTIVATE, new, now, is_primary=False))
    tables.rotations.save(replace(rotation, finish_time=now))
    change.record("key.activated", new.name, cause, old_version=str(old.name), old_until=format_instant(until))
    if old.state not in (KeyState.ACTIVE, KeyState.SUSPENDED):
        return
    if rotation.overlap_us:
        tables.keys.save_version(replace(old, deactivate_time=until))
    else:
        tables.keys.save_version(apply_verb(Verb.DEACTIVATE, old, now, is_primary=False))
        change.record("key.deactivated", old.name, cause)


def refuse_failed(rotation: Rotation | None) -> None:
    """See that the rotation a request began, if any, did not end without a new primary.

    Raises:
        SignerError: WRONG_STATE.
    """
    if rotation is not None and rotation.failure:
        message = f"the rotation that this request began ended without a new primary: {rotation.failure}"
        raise SignerError(Reason.WRONG_STATE, message)


def in_progress(key: Key) -> SignerError:
    """The refusal of a second rotation."""
    number = 0 if key.rotation is None else key.rotation.number
    message = (
        f"{key.name} is being rotated to version {number} already; activate that version to let it take over now, "
        "or deactivate it to call it off"
    )
    return SignerError(Reason.ROTATION_IN_PROGRESS, message, metadata={"version": str(number)})
