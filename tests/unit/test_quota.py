"""P5, as a property: in no window of a quota's length, wherever it starts, is more than its limit authorized."""

from __future__ import annotations

from collections import defaultdict
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsmsigner.domain.decision import Allow, Deny, Facts, decide
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyName, VersionName
from hsmsigner.domain.quota import SUB_BUCKETS, CounterId, Quota, Usage, give_back, spend
from hsmsigner.errors import Reason
from tests.unit.samples import ENGINE, NOW, OTHER_ENGINE, SECOND, key, key_rule, policy, quota, request

MOST_BUCKETS = SUB_BUCKETS + 1
# 60 sub-buckets divide few of these: 1 s is 60 x 16,666.67 us.
PERIODS_US = st.sampled_from(
    [1, 7, 59, 60, 61, 119, 121, SECOND, SECOND + 1, 60 * SECOND, 86_400 * SECOND]
) | st.integers(1, 10 * SECOND)
QUOTAS = st.builds(quota, st.integers(1, 6), PERIODS_US)


def version_name(key: str) -> VersionName:
    return VersionName(KeyName.parse(key), 1)


def at_most(limit: int, period_us: int, times: list[int]) -> bool:
    """Whether no window [s, s + period) holds more than `limit` of the ordered `times`."""
    return all(later - first >= period_us for first, later in zip(times, times[limit:], strict=False))


@st.composite
def gaps(draw: st.DrawFn, period_us: int) -> list[int]:
    """Waits between requests: bursts, parts of a bucket, whole buckets, and around the period's very end."""
    bucket = -(-period_us // SUB_BUCKETS)
    around = [0, 1, bucket - 1, bucket, bucket + 1, period_us - bucket, period_us - 1, period_us, period_us + 1]
    gap = st.sampled_from(around) | st.integers(0, max(1, period_us // 3))
    return draw(st.lists(gap.map(lambda value: max(0, value)), min_size=1, max_size=60))


@settings(deadline=None, max_examples=300)
@given(data=st.data(), tested=QUOTAS, start=st.integers(0, 10**16))
def test_no_window_anywhere_holds_more_than_the_limit(data: st.DataObject, tested: Quota, start: int) -> None:
    usage = Usage()
    authorized: list[int] = []
    for now in accumulate(data.draw(gaps(tested.period_us)), initial=start):
        outcome = spend(tested, usage, Instant(now))
        if outcome.usage is not None:
            usage = outcome.usage
            authorized.append(now)
        assert len(usage.buckets) <= MOST_BUCKETS
        assert all(count > 0 for _, count in usage.buckets)
    assert at_most(tested.count, tested.period_us, authorized)


@settings(deadline=None, max_examples=200)
@given(data=st.data(), tested=QUOTAS)
def test_a_refusal_is_never_older_than_one_sub_bucket_more_than_the_period(data: st.DataObject, tested: Quota) -> None:
    usage = Usage()
    authorized: list[int] = []
    for now in accumulate(data.draw(gaps(tested.period_us)), initial=NOW):
        outcome = spend(tested, usage, Instant(now))
        if outcome.usage is None:
            held = [time for time in authorized if now - time <= MOST_BUCKETS * tested.bucket_us]
            assert len(held) >= tested.count
        else:
            usage = outcome.usage
            authorized.append(now)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), tested=QUOTAS)
def test_a_clock_that_jumps_back_frees_nothing(data: st.DataObject, tested: Quota) -> None:
    span = 3 * tested.period_us
    usage, latest = Usage(), 0
    authorized: list[int] = []
    for offset in data.draw(st.lists(st.integers(0, span), min_size=1, max_size=60)):
        now = NOW + offset
        latest = max(latest, now)
        outcome = spend(tested, usage, Instant(now))
        if outcome.usage is not None:
            usage = outcome.usage
            # A clock that was set back says nothing of the time that really passed since the latest one seen.
            authorized.append(latest)
        assert len(usage.buckets) <= MOST_BUCKETS
    assert at_most(tested.count, tested.period_us, authorized)


def test_a_clock_that_runs_backwards_does_not_let_usage_grow() -> None:
    tested, usage = quota(10_000, 60), Usage()
    for step in range(1_000):
        usage = spend(tested, usage, Instant(NOW - step)).usage or usage
    assert len(usage.buckets) <= MOST_BUCKETS
    assert sum(count for _, count in usage.buckets) == 1_000


@st.composite
def found_usage(draw: st.DrawFn, tested: Quota, now: int) -> Usage:
    """What a store may hold, also more than the limit: a newer policy may have lowered it."""
    current = now // tested.bucket_us
    numbers = draw(st.sets(st.integers(max(0, current - 70), current), max_size=20))
    return Usage(tuple((number, draw(st.integers(1, 4))) for number in sorted(numbers)))


@settings(deadline=None, max_examples=300)
@given(data=st.data(), tested=QUOTAS)
def test_the_retry_time_is_honest_to_the_microsecond(data: st.DataObject, tested: Quota) -> None:
    now = NOW + data.draw(st.integers(0, 2 * tested.period_us))
    usage = data.draw(found_usage(tested, now))

    outcome = spend(tested, usage, Instant(now))

    if outcome.usage is not None:
        assert outcome.retry_after_s == 0
        return
    wait_us = round(outcome.retry_after_s * 1e6)
    assert wait_us > 0
    assert spend(tested, usage, Instant(now + wait_us - 1)).usage is None
    assert spend(tested, usage, Instant(now + wait_us)).usage is not None


@settings(deadline=None, max_examples=200)
@given(data=st.data(), tested=QUOTAS)
def test_give_back_undoes_exactly_one_spend(data: st.DataObject, tested: Quota) -> None:
    usage = data.draw(found_usage(tested, NOW))
    outcome = spend(tested, usage, NOW)
    if outcome.usage is None:
        return

    returned = give_back(tested, outcome.usage, NOW)

    assert sum(count for _, count in returned.buckets) == outcome.observed
    assert spend(tested, returned, NOW) == outcome


def test_give_back_never_takes_more_than_was_counted() -> None:
    tested = quota(3, SECOND)
    once = spend(tested, Usage(), NOW).usage
    assert once is not None

    assert give_back(tested, once, NOW) == Usage()
    assert give_back(tested, Usage(), NOW) == Usage()
    assert give_back(tested, once, Instant(NOW + 10 * SECOND)) == once


def test_give_back_leaves_other_buckets_alone() -> None:
    tested = quota(9, 60)
    usage = Usage(((NOW - 2, 1), (NOW - 1, 3), (NOW, 1)))
    assert give_back(tested, usage, Instant(NOW - 1)) == Usage(((NOW - 2, 1), (NOW - 1, 2), (NOW, 1)))


def test_a_quota_of_zero_never_allows_and_names_its_period() -> None:
    outcome = spend(quota(0, 90 * SECOND), Usage(), NOW)
    assert (outcome.usage is not None, outcome.observed, outcome.retry_after_s) == (False, 0, 90.0)


def test_the_limit_is_reached_and_not_passed() -> None:
    tested, usage, allowed = quota(50, SECOND), Usage(), 0
    for _ in range(60):
        outcome = spend(tested, usage, NOW)
        allowed += outcome.usage is not None
        usage = outcome.usage or usage
    assert allowed == 50


@pytest.mark.parametrize("period_us", [1, 59, 60, 61, SECOND, SECOND + 1, 86_400 * SECOND])
def test_sixty_buckets_are_never_shorter_than_the_period(period_us: int) -> None:
    bucket_us = quota(1, period_us).bucket_us
    assert bucket_us * SUB_BUCKETS >= period_us
    assert (bucket_us - 1) * SUB_BUCKETS < period_us


@pytest.mark.parametrize(
    "different",
    [
        quota(1, SECOND, "other").counter(version_name("keys/a"), "p"),
        quota(1, 2 * SECOND).counter(version_name("keys/a"), "p"),
        quota(1, SECOND).counter(version_name("keys/b"), "p"),
        quota(1, SECOND, by_principal=True).counter(version_name("keys/a"), "p"),
    ],
)
def test_each_quota_key_and_period_has_its_own_counter(different: CounterId) -> None:
    assert quota(1, SECOND).counter(version_name("keys/a"), "p") != different


def test_a_shared_quota_has_one_counter_and_a_quota_by_principal_one_each() -> None:
    shared, each = quota(1, SECOND), quota(1, SECOND, by_principal=True)
    assert shared.counter(version_name("keys/a"), "p") == shared.counter(version_name("keys/a"), "q")
    assert each.counter(version_name("keys/a"), "p") != each.counter(version_name("keys/a"), "q")


def test_a_changed_limit_keeps_what_was_counted() -> None:
    version = version_name("keys/a")
    assert quota(1, SECOND).counter(version, "p") == quota(9, SECOND).counter(version, "p")


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_several_quotas_at_once_all_hold_for_each_counter(data: st.DataObject) -> None:
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 5), PERIODS_US, st.booleans()), min_size=1, max_size=3))
    quotas = [
        quota(count, period_us, f"q{number}", by_principal=by_principal)
        for number, (count, period_us, by_principal) in enumerate(shapes)
    ]
    in_force = policy(key_rule(*quotas))
    usage: dict[CounterId, Usage] = {}
    authorized: dict[CounterId, list[int]] = defaultdict(list)
    waits = data.draw(gaps(min(tested.period_us for tested in quotas)))
    callers = data.draw(st.lists(st.sampled_from([ENGINE, OTHER_ENGINE]), min_size=len(waits), max_size=len(waits)))
    for now, caller in zip(accumulate(waits, initial=NOW), callers, strict=False):
        before = dict(usage)
        match decide(Facts(in_force, key(), usage), request(principal=caller), Instant(now)):
            case Allow() as allow:
                assert len(allow.debits) == len(quotas)
                for debit in allow.debits:
                    usage[debit.counter] = debit.usage
                    authorized[debit.counter].append(now)
            case Deny() as deny:
                assert deny.reason is Reason.QUOTA_EXCEEDED
                assert usage == before
    for tested in quotas:
        for caller in (ENGINE, OTHER_ENGINE):
            times = authorized[tested.counter(version_name("keys/settlement-eu"), caller.text)]
            assert at_most(tested.count, tested.period_us, times)
