"""The table of transitions: what proto/hsmsigner/v1/keys.proto promises, and that nothing else is possible."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId, KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.lifecycle import TRANSITIONS, Verb, apply_verb, begin_destruction
from hsmsigner.errors import Reason, SignerError

NOW = Instant(1_800_000_000_000_000)
S = KeyState
# As the comments of keys.proto say it, not as the code does.
PROMISED = {
    Verb.ACTIVATE: {S.PRE_ACTIVATION: S.ACTIVE},
    Verb.SUSPEND: {S.ACTIVE: S.SUSPENDED},
    Verb.RESUME: {S.SUSPENDED: S.ACTIVE},
    Verb.DEACTIVATE: dict.fromkeys((S.ACTIVE, S.SUSPENDED, S.PRE_ACTIVATION), S.DEACTIVATED),
    Verb.MARK_COMPROMISED: dict.fromkeys(set(S) - {S.DESTROYED}, S.COMPROMISED),
    Verb.SCHEDULE_DESTROY: dict.fromkeys((S.DEACTIVATED, S.COMPROMISED, S.PRE_ACTIVATION), S.DESTROY_SCHEDULED),
    Verb.RESTORE: {S.DESTROY_SCHEDULED: S.DEACTIVATED},
    Verb.DESTROY: {S.DESTROY_SCHEDULED: S.DESTROYED},
}


def in_state(state: KeyState) -> KeyVersion:
    scheduled_from = S.DEACTIVATED if state is S.DESTROY_SCHEDULED else None
    name = VersionName(KeyName("settlement-eu"), 1)
    algorithm = ALGORITHMS["ECDSA_P256_SHA256"]
    version = KeyVersion(name, algorithm, state, CkaId(b"1"), b"key", NOW, True, True, True)
    return replace(version, scheduled_from=scheduled_from)


@pytest.mark.parametrize(("verb", "state"), list(itertools.product(Verb, KeyState)))
def test_each_verb_leads_from_its_states_to_its_state_and_from_no_other(verb: Verb, state: KeyState) -> None:
    version = in_state(state)
    if state in PROMISED[verb]:
        assert apply_verb(verb, version, NOW, is_primary=False).state is PROMISED[verb][state]
        return
    with pytest.raises(SignerError) as refused:
        apply_verb(verb, version, NOW, is_primary=False)
    assert refused.value.reason is Reason.WRONG_STATE
    assert refused.value.metadata["state"] == state.value


@given(some.lists(some.sampled_from(list(Verb)), max_size=12), some.booleans())
def test_whatever_is_tried_in_whatever_order_a_version_stays_within_the_table(
    verbs: list[Verb],
    primary: bool,  # noqa: FBT001 - hypothesis gives it by position
) -> None:
    version = in_state(S.PRE_ACTIVATION)
    now = NOW
    for verb in verbs:
        now = Instant(now + 1)
        before = version
        try:
            version = apply_verb(verb, version, now, is_primary=primary, destroy_time=Instant(now + 10))
        except SignerError as refused:
            assert refused.reason is Reason.WRONG_STATE  # noqa: PT017 - most verbs are refused, some are not
            continue
        assert before.state in TRANSITIONS[verb].sources
        assert version.state is (TRANSITIONS[verb].target or before.scheduled_from)
        if primary:
            assert version.state not in (S.DEACTIVATED, S.DESTROY_SCHEDULED, S.DESTROYED)
        # What could not sign any more never can again; what was compromised never is anything else but gone.
        if before.state in (S.DEACTIVATED, S.COMPROMISED, S.DESTROYED):
            assert version.state not in (S.ACTIVE, S.SUSPENDED, S.PRE_ACTIVATION)
        if before.is_compromised:
            assert version.is_compromised
        assert (version.state is S.ACTIVE) <= (version.activate_time is not None)


def test_a_destruction_that_has_begun_has_no_way_back() -> None:
    version = begin_destruction(in_state(S.DESTROY_SCHEDULED))
    for verb in set(Verb) - {Verb.DESTROY}:
        with pytest.raises(SignerError):
            apply_verb(verb, version, NOW, is_primary=False)
    assert apply_verb(Verb.DESTROY, version, NOW, is_primary=False).state is S.DESTROYED


def test_only_the_state_before_comes_back_when_a_version_is_restored() -> None:
    for state in (S.PRE_ACTIVATION, S.DEACTIVATED, S.COMPROMISED):
        scheduled = apply_verb(Verb.SCHEDULE_DESTROY, in_state(state), NOW, is_primary=False, destroy_time=NOW)
        assert apply_verb(Verb.RESTORE, scheduled, NOW, is_primary=False).state is state
