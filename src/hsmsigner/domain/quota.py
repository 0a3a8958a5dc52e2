"""Sliding-window quotas: how often a key may be used, counted so that no window anywhere holds more than the limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from msgspec import Struct

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.domain.key import VersionName

SUB_BUCKETS = 60
CounterId = NewType("CounterId", str)


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `count` authorizations in any `period_us` microseconds; one counter per key, or per key and principal.

    It follows the key, so that rotation never resets a window, unless it is `per_version`.
    """

    quota_id: str
    count: int
    period_us: int
    by_principal: bool
    per_version: bool = False

    @property
    def bucket_us(self) -> int:
        """Width of a sub-bucket; rounded up, so that 60 of them are never shorter than the period."""
        return -(-self.period_us // SUB_BUCKETS)

    def counter(self, version: VersionName, principal: str) -> CounterId:
        """The counter this quota uses for a version (that of its key, unless `per_version`) and a principal."""
        counted = version if self.per_version else version.key
        return CounterId(f"{counted}|{self.quota_id}|{self.period_us}|{principal if self.by_principal else '*'}")


class Usage(Struct, frozen=True, gc=False):
    """What one counter has counted: (bucket number, count) pairs, oldest first. Bucket n begins at n * bucket_us."""

    buckets: tuple[tuple[int, int], ...] = ()


class Spend(Struct, frozen=True, gc=False):
    """Outcome of trying to spend one: what was observed before it, and either the new usage or when to come back."""

    observed: int
    usage: Usage | None
    retry_after_s: float


def spend(quota: Quota, usage: Usage, now: Instant) -> Spend:
    """Count one authorization at `now`, or refuse it.

    A sub-bucket that the window overlaps only in part counts in full, and a `now` before the newest bucket (the clock
    was set back) counts in that bucket: the quota errs towards refusing, so that P5 holds for every window wherever it
    starts.
    """
    current = max(now // quota.bucket_us, usage.buckets[-1][0] if usage.buckets else 0)
    alive = tuple(bucket for bucket in usage.buckets if bucket[0] >= current - SUB_BUCKETS)
    observed = sum(count for _, count in alive)
    if observed >= quota.count:
        return Spend(observed, None, _wait(quota, alive, observed, now))
    return Spend(observed, Usage(_add(alive, current)), 0.0)


def give_back(quota: Quota, usage: Usage, spent_at: Instant) -> Usage:
    """Take one back that was counted at `spent_at`; only for an authorization that provably never reached the token."""
    bucket = spent_at // quota.bucket_us
    return Usage(
        tuple((number, count - (number == bucket)) for number, count in usage.buckets if (number, count) != (bucket, 1))
    )


def _add(buckets: tuple[tuple[int, int], ...], current: int) -> tuple[tuple[int, int], ...]:
    if buckets and buckets[-1][0] == current:
        return (*buckets[:-1], (current, buckets[-1][1] + 1))
    return (*buckets, (current, 1))


def _wait(quota: Quota, buckets: tuple[tuple[int, int], ...], observed: int, now: Instant) -> float:
    """Seconds until enough old buckets have left the window; the whole period when the quota is zero."""
    for number, count in buckets:
        observed -= count
        if observed < quota.count:
            free_at = (number + SUB_BUCKETS + 1) * quota.bucket_us
            return (free_at - now) / MICROSECONDS_PER_SECOND
    return quota.period_us / MICROSECONDS_PER_SECOND
