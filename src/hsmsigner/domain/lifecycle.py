"""The life of a key version: one table of transitions (NIST SP 800-57 Part 1 section 7), and what each changes.

Schedule, restore and destroy are ours: SP 800-57 knows the destroyed state, not the time in which it can be averted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, unique

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import KeyState, KeyVersion
from hsmsigner.errors import Reason, SignerError, invalid_field

_DAY_US = 86_400 * MICROSECONDS_PER_SECOND
SHORTEST_DELAY_US = 60 * MICROSECONDS_PER_SECOND
LONGEST_DELAY_US = 400 * _DAY_US
USUAL_DELAY_US = 30 * _DAY_US


@unique
class Verb(Enum):
    """What may be done to a version; the value is the type of its record, after `key.`."""

    ACTIVATE = "activated"
    SUSPEND = "suspended"
    RESUME = "resumed"
    DEACTIVATE = "deactivated"
    MARK_COMPROMISED = "compromised"
    SCHEDULE_DESTROY = "destroy_scheduled"
    RESTORE = "restored"
    DESTROY = "destroyed"


@dataclass(frozen=True, slots=True)
class Transition:
    """From which states, to which (None: the one it was scheduled from), and whether the primary may take it."""

    sources: frozenset[KeyState]
    target: KeyState | None
    is_for_primary: bool = True


_S = KeyState

TRANSITIONS: Mapping[Verb, Transition] = {
    Verb.ACTIVATE: Transition(frozenset({_S.PRE_ACTIVATION}), _S.ACTIVE),
    Verb.SUSPEND: Transition(frozenset({_S.ACTIVE}), _S.SUSPENDED),
    Verb.RESUME: Transition(frozenset({_S.SUSPENDED}), _S.ACTIVE),
    Verb.DEACTIVATE: Transition(
        frozenset({_S.ACTIVE, _S.SUSPENDED, _S.PRE_ACTIVATION}), _S.DEACTIVATED, is_for_primary=False
    ),
    Verb.MARK_COMPROMISED: Transition(frozenset(KeyState) - {_S.DESTROYED}, _S.COMPROMISED),
    Verb.SCHEDULE_DESTROY: Transition(
        frozenset({_S.DEACTIVATED, _S.COMPROMISED, _S.PRE_ACTIVATION}), _S.DESTROY_SCHEDULED, is_for_primary=False
    ),
    Verb.RESTORE: Transition(frozenset({_S.DESTROY_SCHEDULED}), None),
    Verb.DESTROY: Transition(frozenset({_S.DESTROY_SCHEDULED}), _S.DESTROYED, is_for_primary=False),
}


def apply_verb(
    verb: Verb, version: KeyVersion, now: Instant, *, is_primary: bool, destroy_time: Instant | None = None
) -> KeyVersion:
    """The version after a verb, by the table alone. `destroy_time` goes with SCHEDULE_DESTROY.

    Raises:
        SignerError: WRONG_STATE.
    """
    moved = replace(version, state=_target(verb, version, is_primary=is_primary))
    if version.state is KeyState.PRE_ACTIVATION:
        moved = replace(moved, activate_time=now if verb is Verb.ACTIVATE else None)
    match verb:
        case Verb.DEACTIVATE | Verb.MARK_COMPROMISED:
            ended = now if version.deactivate_time is None else min(now, version.deactivate_time)
            return replace(moved, deactivate_time=ended, destroy_time=None, scheduled_from=None)
        case Verb.SCHEDULE_DESTROY:
            return replace(moved, destroy_time=destroy_time, scheduled_from=version.state)
        case Verb.RESTORE:
            return replace(moved, destroy_time=None)
        case Verb.DESTROY:
            return replace(moved, destroy_time=now)
        case Verb.ACTIVATE | Verb.SUSPEND | Verb.RESUME:
            return moved


def _target(verb: Verb, version: KeyVersion, *, is_primary: bool) -> KeyState:
    transition = TRANSITIONS[verb]
    if version.state not in transition.sources:
        raise _wrong_state(verb, version)
    if is_primary and not transition.is_for_primary:
        message = f"{version.name} is the primary; rotate the key first, then it can be {_words(verb)}"
        raise SignerError(Reason.WRONG_STATE, message, metadata={"state": version.state.value, "primary": "true"})
    if version.is_destroying and verb is not Verb.DESTROY:
        message = f"the destruction of {version.name} has begun; its pair may be gone from the token already"
        raise SignerError(Reason.WRONG_STATE, message, metadata={"state": version.state.value})
    target = transition.target or version.scheduled_from
    if target is None:
        raise SignerError(Reason.INTERNAL, f"nobody knows which state {version.name} was scheduled from")
    return target


def destroy_time_after(delay_us: int | None, now: Instant) -> Instant:
    """When a version scheduled now is destroyed. None takes the usual 30 days.

    Raises:
        SignerError: INVALID_FIELD.
    """
    delay_us = USUAL_DELAY_US if delay_us is None else delay_us
    if not SHORTEST_DELAY_US <= delay_us <= LONGEST_DELAY_US:
        raise invalid_field("delay", "must be 1 minute to 400 days")
    return Instant(now + delay_us)


def begin_destruction(version: KeyVersion) -> KeyVersion:
    """The version from when its pair may be gone: there is no way back.

    Raises:
        SignerError: WRONG_STATE.
    """
    if version.state is not KeyState.DESTROY_SCHEDULED:
        raise _wrong_state(Verb.DESTROY, version)
    return replace(version, is_destroying=True)


def _wrong_state(verb: Verb, version: KeyVersion) -> SignerError:
    sources = " or ".join(sorted(state.value for state in TRANSITIONS[verb].sources))
    message = f"{version.name} is {version.state.value}; only a version that is {sources} can be {_words(verb)}"
    return SignerError(Reason.WRONG_STATE, message, metadata={"state": version.state.value})


def _words(verb: Verb) -> str:
    return {
        Verb.MARK_COMPROMISED: "marked compromised",
        Verb.SCHEDULE_DESTROY: "scheduled for destruction",
    }.get(verb, verb.value)
