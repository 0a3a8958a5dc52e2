"""`decide`, case by case: default deny, and a refusal that explains itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from msgspec import structs

from hsmsigner.domain.decision import Allow, Deny, Facts, decide
from hsmsigner.domain.key import Key, KeyName, KeyState, VersionName
from hsmsigner.domain.pattern import Pattern
from hsmsigner.domain.policy import Grant, InputKind, Policy, Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.quota import CounterId, Usage
from hsmsigner.domain.signing import SigningRequest
from hsmsigner.errors import Reason
from tests.unit.samples import (
    ENGINE,
    NOW,
    OTHER_ENGINE,
    SECOND,
    STRANGER,
    key,
    key_rule,
    policy,
    quota,
    request,
    version,
)

DIGEST = request(bytes(32), kind=InputKind.DIGEST)
SIGN_ONLY = frozenset({Right.SIGN})


def version_name(key: str) -> VersionName:
    return VersionName(KeyName.parse(key), 1)


def decided(
    asked: SigningRequest | None = None,
    *,
    in_force: Policy | None = None,
    found: Key | None = None,
    usage: Mapping[CounterId, Usage] | None = None,
    debited_version: str = "",
) -> Allow | Deny:
    facts = Facts(in_force or policy(), found or key(), usage or {})
    return decide(facts, asked or request(), NOW, debited_version=debited_version)


def refused(
    asked: SigningRequest | None = None,
    *,
    in_force: Policy | None = None,
    found: Key | None = None,
    usage: Mapping[CounterId, Usage] | None = None,
    debited_version: str = "",
) -> Deny:
    outcome = decided(asked, in_force=in_force, found=found, usage=usage, debited_version=debited_version)
    assert isinstance(outcome, Deny)
    return outcome


def spent(count: int, period_us: int, ago_us: int = 0) -> Usage:
    return Usage((((NOW - ago_us) // -(-period_us // 60), count),))


def test_a_granted_request_is_allowed_with_the_primary() -> None:
    outcome = decided(found=key(version(1), version(2), primary=2))
    assert outcome == Allow(version(2), ())


def test_a_named_version_signs_itself() -> None:
    asked = request(name=str(version().name))
    assert decided(asked, found=key(version(1), version(2), primary=2)) == Allow(version(1), ())


@pytest.mark.parametrize(
    ("asked", "in_force"),
    [
        (request(principal=STRANGER), policy()),
        (request(principal=Principal("spiffe://test/settlement/engine-1/x")), policy()),
        (request(), Policy(1, "", (), (key_rule(),))),
        (request(), policy(rights=frozenset())),
        (request(), policy(rights=frozenset({Right.SIGN_DIGEST}))),
        (DIGEST, policy(rights=SIGN_ONLY)),
        (request(), policy(rights=frozenset(Right) - {Right.SIGN})),
        (DIGEST, policy(rights=frozenset(Right) - {Right.SIGN_DIGEST})),
        (request(name="keys/settlement-eu/versions/2"), policy()),
        (request(name="keys/settlement-eu/versions/999999999"), policy()),
    ],
)
def test_what_no_grant_gives_is_refused_as_if_the_key_were_not_there(asked: SigningRequest, in_force: Policy) -> None:
    assert refused(asked, in_force=in_force).reason is Reason.KEY_NOT_FOUND_OR_FORBIDDEN


def test_a_grant_over_other_keys_gives_nothing() -> None:
    grant = Grant((Pattern("**"),), (Pattern("keys/other"),), frozenset(Right))
    outcome = refused(in_force=Policy(1, "", (grant,), (key_rule(),)))
    assert outcome.reason is Reason.KEY_NOT_FOUND_OR_FORBIDDEN


@pytest.mark.parametrize("asked", [request(), DIGEST])
def test_unknown_and_forbidden_answer_alike_byte_for_byte(asked: SigningRequest) -> None:
    absent = decide(Facts(policy(), None, {}), asked, NOW)
    forbidden = decide(Facts(policy(), key(), {}), structs.replace(asked, principal=STRANGER), NOW)
    both = decide(Facts(policy(), None, {}), structs.replace(asked, principal=STRANGER), NOW)
    assert absent == forbidden == both


@pytest.mark.parametrize("state", [state for state in KeyState if state is not KeyState.ACTIVE])
def test_only_an_active_version_signs(state: KeyState) -> None:
    outcome = refused(found=key(version(state=state)))
    assert (outcome.reason, outcome.observed, outcome.limit) == (Reason.KEY_NOT_ACTIVE, state.value, "ACTIVE")


@pytest.mark.parametrize("state", [state for state in KeyState if state is not KeyState.ACTIVE])
def test_one_who_may_not_sign_does_not_learn_the_state(state: KeyState) -> None:
    outcome = refused(request(principal=STRANGER), found=key(version(state=state)))
    assert outcome == refused(request(principal=STRANGER))


@pytest.mark.parametrize("lacking", ["local", "always_sensitive", "never_extractable"])
def test_a_key_that_could_have_left_the_token_is_refused(lacking: str) -> None:
    unprotected = replace(version(), **{lacking: False})  # type: ignore[arg-type]  # the three are booleans
    assert refused(found=key(unprotected)).reason is Reason.KEY_NOT_PROTECTED


def test_a_key_that_no_rule_covers_signs_nothing() -> None:
    outcome = refused(in_force=policy(key_rule(match="keys/other")))
    assert outcome.reason is Reason.NO_KEY_POLICY


def test_an_input_that_is_not_listed_is_refused() -> None:
    outcome = refused(DIGEST, in_force=policy(key_rule(inputs=frozenset({InputKind.MESSAGE}))))
    assert (outcome.reason, outcome.observed, outcome.limit) == (Reason.INPUT_NOT_ALLOWED, "digest", "message")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("asked", [request(), DIGEST])
def test_rules_that_agree_on_no_input_allow_nothing(asked: SigningRequest, order: int) -> None:
    rules = [
        key_rule(inputs=frozenset({InputKind.MESSAGE})),
        key_rule(match="**", inputs=frozenset({InputKind.DIGEST})),
    ]
    outcome = refused(asked, in_force=policy(*rules[::order]))
    assert (outcome.reason, outcome.limit) == (Reason.INPUT_NOT_ALLOWED, "nothing")


@pytest.mark.parametrize("order", [1, -1])
def test_a_second_rule_only_tightens(order: int) -> None:
    wide, narrow = quota(10, SECOND, "wide"), quota(1, SECOND, "narrow")
    in_force = policy(*[key_rule(wide), key_rule(narrow, match="keys/**")][::order])

    first = decided(in_force=in_force)

    assert isinstance(first, Allow)
    assert {debit.quota.quota_id for debit in first.debits} == {"wide", "narrow"}
    usage = {debit.counter: debit.usage for debit in first.debits}
    assert refused(in_force=in_force, usage=usage).rule == "quotas/narrow"


def test_a_full_quota_says_rule_observed_limit_and_when() -> None:
    tested = quota(2, 10 * SECOND, "burst")
    counter = tested.counter(version_name("keys/settlement-eu"), ENGINE.text)

    outcome = refused(in_force=policy(key_rule(tested)), usage={counter: spent(2, tested.period_us)})

    assert outcome.reason is Reason.QUOTA_EXCEEDED
    assert (outcome.rule, outcome.observed, outcome.limit) == ("quotas/burst", "2", "2")
    assert outcome.retry_after_s is not None
    assert 10 < outcome.retry_after_s <= 10 * 61 / 60
    error = outcome.error()
    assert error.metadata == {"rule": "quotas/burst", "observed": "2", "limit": "2"}
    assert error.retry_after_s == outcome.retry_after_s


@pytest.mark.parametrize("order", [1, -1])
def test_of_two_full_quotas_the_one_that_frees_last_is_reported(order: int) -> None:
    burst, day = quota(1, SECOND, "burst"), quota(5, 86_400 * SECOND, "day")
    version = version_name("keys/settlement-eu")
    full = {each.counter(version, ENGINE.text): spent(each.count, each.period_us) for each in (burst, day)}
    outcome = refused(in_force=policy(key_rule(*[burst, day][::order])), usage=full)
    assert outcome.rule == "quotas/day"
    assert outcome.retry_after_s is not None
    assert outcome.retry_after_s > 86_000


def test_a_quota_by_principal_of_one_leaves_the_other_alone() -> None:
    tested = quota(1, SECOND, by_principal=True)
    full = {tested.counter(version_name("keys/settlement-eu"), ENGINE.text): spent(1, tested.period_us)}
    in_force = policy(key_rule(tested))

    assert refused(in_force=in_force, usage=full).reason is Reason.QUOTA_EXCEEDED
    assert isinstance(decided(request(principal=OTHER_ENGINE), in_force=in_force, usage=full), Allow)


def test_naming_a_version_spends_the_same_quota_as_naming_the_key() -> None:
    in_force = policy(key_rule(quota(1, SECOND)))
    first = decided(in_force=in_force)
    assert isinstance(first, Allow)
    usage = {debit.counter: debit.usage for debit in first.debits}
    assert refused(request(name=str(version().name)), in_force=in_force, usage=usage).rule == "quotas/q"


def test_a_debit_holds_what_was_observed_and_one_more() -> None:
    tested = quota(5, 60 * SECOND)
    counter = tested.counter(version_name("keys/settlement-eu"), ENGINE.text)

    outcome = decided(in_force=policy(key_rule(tested)), usage={counter: spent(3, tested.period_us)})

    assert isinstance(outcome, Allow)
    (debit,) = outcome.debits
    assert (debit.counter, debit.observed, debit.usage) == (counter, 3, spent(4, tested.period_us))


def test_a_request_already_debited_passes_a_full_quota_without_a_debit() -> None:
    assert decided(in_force=policy(key_rule(quota(0, SECOND))), debited_version=str(version().name)) == Allow(
        version(), ()
    )


@pytest.mark.parametrize(
    ("asked", "in_force", "found", "reason"),
    [
        (request(principal=STRANGER), policy(), key(), Reason.KEY_NOT_FOUND_OR_FORBIDDEN),
        (request(), policy(), key(version(state=KeyState.SUSPENDED)), Reason.KEY_NOT_ACTIVE),
        (request(), policy(), key(version(local=False)), Reason.KEY_NOT_PROTECTED),
        (request(), policy(key_rule(match="keys/other")), key(), Reason.NO_KEY_POLICY),
        (DIGEST, policy(key_rule(inputs=frozenset({InputKind.MESSAGE}))), key(), Reason.INPUT_NOT_ALLOWED),
    ],
)
def test_a_request_already_debited_is_decided_afresh_in_all_else(
    asked: SigningRequest, in_force: Policy, found: Key, reason: Reason
) -> None:
    assert refused(asked, in_force=in_force, found=found, debited_version=str(version().name)).reason is reason
