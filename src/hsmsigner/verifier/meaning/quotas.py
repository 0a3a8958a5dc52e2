"""Debits: those the policy asks for, and in no window of a quota's length more than it allows, recounted exactly.

The appliance counts in sub-buckets, in favour of refusing; here each debit is counted at its own time. So what it
allowed must fit here too, and it may have observed more than is counted here, but never less.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning.fields import Fields, Judge, bad_field, number, text, version
from hsmsigner.verifier.meaning.policies import Policies
from hsmsigner.verifier.meaning.requests import Requests

# Debits, over all keys and principals.
_MOST_REMEMBERED = 50_000
_MOST_OLD = 1024


class Window:
    """The debits of one counter that are younger than its period, by time: eight bytes each, for there are millions."""

    __slots__ = ("_begin", "_returned", "_times", "count")

    def __init__(self) -> None:
        self.count = 0
        self._times = array("q")
        # Those before this place are too old.
        self._begin = 0
        # Debits that were taken back, by time; they are no longer in `count`.
        self._returned: dict[int, int] = {}

    def add(self, now: int, period_us: int) -> int:
        """Count one debit, drop those that are a whole period old, and say how many there are now."""
        times, begin, returned = self._times, self._begin, self._returned
        times.append(now)
        self.count += 1
        until, end = now - period_us, len(times)
        while begin < end and times[begin] <= until:
            if returned and times[begin] in returned:
                returned[times[begin]] -= 1
                returned = self._returned = {time: count for time, count in returned.items() if count}
            else:
                self.count -= 1
            begin += 1
        if begin > _MOST_OLD and begin > end // 2:
            del times[:begin]
            begin = 0
        self._begin = begin
        return self.count

    def give_back(self, spent_at: int) -> None:
        """Take back one debit of that time, if it still counts."""
        times, taken = self._times, self._returned.get(spent_at, 0)
        spent = bisect_right(times, spent_at, self._begin) - bisect_left(times, spent_at, self._begin)
        if taken < spent:
            self._returned[spent_at] = taken + 1
            self.count -= 1


class Due(NamedTuple):
    """A debit that an authorization must make."""

    quota: str
    counter: str
    limit: int
    period_us: int
    per_version: bool


class Quotas:
    """Recounts every counter."""

    def __init__(self, policies: Policies, requests: Requests) -> None:
        self._policies = policies
        self._requests = requests
        self._windows: dict[str, Window] = {}
        # Debits of authorizations without an outcome: one that never reached the token gives them back.
        self._open: dict[int, tuple[int, list[Window]]] = {}
        self._remembered: dict[tuple[str, str], tuple[Due, ...]] = {}
        self._remembered_debits = 0
        self._remembered_for: object = None

    def judges(self) -> dict[str, Judge]:
        """What to ask for which type of record."""
        return {
            "sign.authorized": self.authorized,
            "sign.completed": self.ended,
            "sign.failed": self.ended,
            "sign.interrupted": self.ended,
        }

    def authorized(self, sequence: int, fields: Fields, now: int) -> None:
        """An authorization debits exactly what is due.

        One that goes on with an earlier one debits nothing, or if another version does, what that has of its own.
        """
        debits = fields.get("debits")
        if not isinstance(debits, list):
            raise bad_field(sequence, fields, "debits", "a list")
        is_resumed = fields.get("resumed") is True
        resumed_version = self._requests.resumed_version(sequence, fields) if is_resumed else ""
        if self._policies.quotas is None or resumed_version is None:
            return
        due = self._due(sequence, fields)
        if is_resumed:
            due = tuple(item for item in due if item.per_version and resumed_version != fields["key"])
        # Before anything is counted: a record costs no more than it is long.
        _compare_number(sequence, debits, due)
        spent: list[Window] = []
        if not is_resumed:
            # One that was resumed keeps its debits, whatever becomes of it.
            self._open[sequence] = now, spent
        over = None
        for item in due:
            window = self._windows.get(item.counter)
            if window is None:
                window = self._windows[item.counter] = Window()
            count = window.add(now, item.period_us)
            spent.append(window)
            if count > item.limit:
                over = over or VerificationError(
                    "quota",
                    sequence,
                    f"record {sequence} is authorization {count} of {item.counter} within"
                    f" {item.period_us / 1_000_000:g} s, and the policy allows {item.limit}",
                )
        if over is not None:
            raise over
        _compare(sequence, debits, due, spent)

    def ended(self, sequence: int, fields: Fields, _now: int) -> None:
        """An authorization that provably never reached the token gives its debits back."""
        spent = self._open.pop(number(sequence, fields, "authorized"), None)
        if spent is not None and fields.get("debit_returned") is True and fields["type"] == "sign.failed":
            spent_at, windows = spent
            for window in windows:
                window.give_back(spent_at)

    def _due(self, sequence: int, fields: Fields) -> tuple[Due, ...]:
        if self._remembered_for is not self._policies.quotas or self._remembered_debits > _MOST_REMEMBERED:
            self._remembered_for, self._remembered, self._remembered_debits = self._policies.quotas, {}, 0
        name, principal = text(sequence, fields, "key"), text(sequence, fields, "principal")
        due = self._remembered.get((name, principal))
        if due is None:
            key, _ = version(sequence, fields, "key")
            due = self._remembered[name, principal] = tuple(
                Due(quota.quota, quota.counter(key, name, principal), quota.count, quota.period_us, quota.per_version)
                for quota in self._policies.quotas_of(key)
            )
            self._remembered_debits += 1 + len(due)
        return due


def _compare_number(sequence: int, debits: list[object], due: tuple[Due, ...]) -> None:
    if len(debits) != len(due):
        raise VerificationError(
            "debit", sequence, f"record {sequence} makes {len(debits)} debits, and the policy asks for {len(due)}"
        )


def _compare(sequence: int, debits: list[object], due: tuple[Due, ...], windows: list[Window]) -> None:
    for debit, item, window in zip(debits, due, windows, strict=True):
        if not isinstance(debit, dict) or (debit.get("quota"), debit.get("counter"), debit.get("limit")) != item[:3]:
            raise VerificationError(
                "debit",
                sequence,
                f"record {sequence} debits {shown(debit)}, and the policy asks for {item.counter} with the limit"
                f" {item.limit}",
            )
        observed = debit.get("observed")
        if type(observed) is not int or not window.count <= observed <= item.limit:
            raise VerificationError(
                "debit",
                sequence,
                f"record {sequence} observed {shown(observed)} of {item.limit} on {item.counter}, while"
                f" {window.count} are in the log: the counter was changed",
            )
