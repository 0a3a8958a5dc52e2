"""What is due for a key now: pure, found afresh from the store each time, so that nothing is lost with a process.

A rotation begins, its version is made and thereby published, old and new vouch for each other, the new one takes over,
the old one is deactivated when its overlap is over, and perhaps destroyed. Each step is due only when those before it
are done: a clock that jumps forward hurries them and skips none; one that jumps backward undoes none.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import Key, KeyState, KeyVersion, VersionName
from hsmsigner.domain.rotation_policy import Rotation

# However late a version is found to be due for destruction, an operator has this long to restore it.
_LAST_CHANCE_US = 3600 * MICROSECONDS_PER_SECOND


@dataclass(frozen=True, slots=True)
class BeginRotation:
    """Reserve the next version; `cause` says what made it due."""

    cause: str


@dataclass(frozen=True, slots=True)
class MakeVersion:
    """Have the token generate the reserved pair, and publish its public key."""

    rotation: Rotation


@dataclass(frozen=True, slots=True)
class Vouch:
    """Have the old and the new version sign each other."""

    rotation: Rotation


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Make the new version the primary."""

    rotation: Rotation


@dataclass(frozen=True, slots=True)
class Deactivate:
    """The overlap of a version is over."""

    version: KeyVersion


@dataclass(frozen=True, slots=True)
class ScheduleDestroy:
    """A version was DEACTIVATED long enough."""

    version: KeyVersion
    destroy_time: Instant


@dataclass(frozen=True, slots=True)
class Destroy:
    """The time of a version has come, or its destruction was begun and not finished."""

    version: KeyVersion


# A version and its `destroy_time`.
DueDestruction = tuple[VersionName, Instant]
RotationStep = MakeVersion | Vouch | TakeOver
Step = RotationStep | BeginRotation | Deactivate | ScheduleDestroy | Destroy


@dataclass(frozen=True, slots=True)
class PrimaryFacts:
    """What rotation asks of a primary and its row does not say."""

    signature_count: int = 0
    certificate_expire_time: Instant | None = None


def next_step(key: Key, now: Instant, facts: PrimaryFacts, ripe: Container[DueDestruction]) -> Step | None:
    """The one thing that is due first; None when nothing is.

    Of the versions that were to be destroyed by now, only the `ripe` ones are.

    What needs no token comes first, and destruction last: a token that is away holds up neither the end of an overlap
    nor, when it refuses to destroy, the next rotation.
    """
    for version in key.versions:
        if _is_over(version, now) and version.name.number != key.primary_number:
            return Deactivate(version)
    if key.rotation is not None:
        step = rotation_step(key, now)
        if step is not None:
            return step
    else:
        cause = due_cause(key, now, facts)
        if cause is not None:
            return BeginRotation(cause)
    return _destruction(key, now, ripe)


def rotation_step(key: Key, now: Instant, *, is_ordered: bool = False) -> RotationStep | None:
    """The next step of the rotation under way, if it is due.

    Who suspends a key wants it to sign nothing, and a version that takes over signs: while the primary is SUSPENDED,
    nothing takes over that was planned before. `is_ordered` says that somebody orders it now. Nor is it settled until
    then who vouches: once resumed, the primary can.
    """
    rotation = key.rotation
    if rotation is None:
        return None
    version = key.version(rotation.number)
    if version is None:
        return MakeVersion(rotation)
    is_suspended, is_due = key.primary.state is KeyState.SUSPENDED, now >= rotation.activate_time
    if is_suspended and not (is_due and is_ordered):
        return None
    if not rotation.is_vouched:
        return Vouch(rotation)
    return TakeOver(rotation) if is_due else None


def due_cause(key: Key, now: Instant, facts: PrimaryFacts) -> str | None:
    """Why a rotation is due by the key's policy; None when it is not. Only an ACTIVE primary rotates by itself."""
    policy = key.rotation_policy
    if key.primary.state is not KeyState.ACTIVE or key.rotation is not None:
        return None
    if policy.max_signatures and facts.signature_count >= policy.max_signatures:
        return f"due by signatures: {facts.signature_count} of {policy.max_signatures}"
    for cause, due_time in _due_times(key, facts):
        if now >= due_time:
            return cause
    return None


def next_rotation_time(key: Key, facts: PrimaryFacts) -> Instant | None:
    """When the next rotation begins by itself, as far as it is known; in the past when it is due; None without one."""
    if key.rotation is not None or key.primary.state is not KeyState.ACTIVE:
        return None
    if 0 < key.rotation_policy.max_signatures <= facts.signature_count:
        return key.primary.activate_time
    return min((due_time for _, due_time in _due_times(key, facts)), default=None)


def _due_times(key: Key, facts: PrimaryFacts) -> list[tuple[str, Instant]]:
    """When a rotation has to begin for the next version to take over in time, by cause."""
    policy, found = key.rotation_policy, []
    if policy.rotation_period_us:
        since = key.primary.activate_time or key.primary.create_time
        found.append(("due by age", Instant(since + policy.rotation_period_us - policy.publish_lead_us)))
    if policy.before_certificate_expiry_us and facts.certificate_expire_time is not None:
        begin = facts.certificate_expire_time - policy.before_certificate_expiry_us - policy.publish_lead_us
        found.append(("due by the certificate's expiry", Instant(begin)))
    return found


def _is_over(version: KeyVersion, now: Instant) -> bool:
    is_usable = version.state in (KeyState.ACTIVE, KeyState.SUSPENDED)
    return is_usable and version.deactivate_time is not None and now >= version.deactivate_time


def due_destructions(key: Key, now: Instant) -> list[DueDestruction]:
    """Which versions are to be destroyed by schedule, their time having come."""
    return [
        (version.name, version.destroy_time)
        for version in key.versions
        if version.state is KeyState.DESTROY_SCHEDULED
        and version.destroy_time is not None
        and now >= version.destroy_time
        and version.name.number != key.primary_number
    ]


def _destruction(key: Key, now: Instant, ripe: Container[DueDestruction]) -> ScheduleDestroy | Destroy | None:
    after_us = key.rotation_policy.destroy_after_us
    due = {one[0] for one in due_destructions(key, now) if one in ripe}
    for version in key.versions:
        if version.name.number == key.primary_number:
            continue
        # One that was restored (it has a `scheduled_from`) was wanted back by somebody: it is left alone.
        if after_us and version.state is KeyState.DEACTIVATED and version.scheduled_from is None:
            time = (version.deactivate_time or now) + after_us
            return ScheduleDestroy(version, Instant(max(time, now + min(after_us, _LAST_CHANCE_US))))
        is_begun = version.state is KeyState.DESTROY_SCHEDULED and version.is_destroying
        if is_begun or version.name in due:
            return Destroy(version)
    return None
