"""What a stretch of the log adds up to: per key and principal, per reason, per quota, over time. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

STRETCHES = 48
_OUTCOMES = {
    "sign.completed": "signed",
    "sign.denied": "refused",
    "sign.failed": "failed",
    "sign.interrupted": "interrupted",
}
OUTCOMES = tuple(_OUTCOMES.values())


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that one counter of a quota ever held, and when."""

    observed: int
    limit: int
    time: str

    @property
    def share(self) -> float:
        """Part of the limit that was used, 0 to 1; a limit of nothing counts as used up."""
        return self.observed / self.limit if self.limit else 1.0


@dataclass(slots=True)
class Report:
    """Totals of the records from `begin` to `end`. Keys are key names without version."""

    begin: datetime
    end: datetime
    records: int = 0
    # (key, principal) -> outcome -> how many.
    counts: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    peaks: dict[tuple[str, str], Peak] = field(default_factory=dict)
    # Outcome -> how many in each of STRETCHES equal parts of the period.
    over_time: dict[str, list[int]] = field(default_factory=lambda: {name: [0] * STRETCHES for name in OUTCOMES})

    @property
    def stretch(self) -> timedelta:
        """How long each part of `over_time` is."""
        return max(self.end - self.begin, timedelta(seconds=1)) / STRETCHES

    def total(self, outcome: str) -> int:
        """How many of an outcome there were."""
        return sum(counts[outcome] for counts in self.counts.values())

    def add(self, fields: dict[str, Any]) -> None:
        """Add one record that was read; types that say nothing of signatures only count."""
        self.records += 1
        kind, key = str(fields.get("type")), _key(fields)
        if kind == "sign.authorized":
            for debit in fields.get("debits") or ():
                self._see_debit(key, debit, str(fields.get("time")))
        outcome = _OUTCOMES.get(kind)
        if outcome is None:
            return
        count = fields.get("count", 1)
        count = count if isinstance(count, int) else 1
        self.counts.setdefault((key, str(fields.get("principal"))), Counter())[outcome] += count
        self.over_time[outcome][self._place(str(fields.get("time")))] += count
        if outcome == "refused":
            reason, rule = str(fields.get("reason")), str(fields.get("rule") or "")
            self.reasons[f"{reason} ({rule})" if rule else reason] += count

    def _see_debit(self, key: str, debit: dict[str, Any], time: str) -> None:
        peak = Peak(int(debit["observed"]), int(debit["limit"]), time)
        known = self.peaks.get((key, str(debit["quota"])))
        if known is None or peak.share > known.share:
            self.peaks[key, str(debit["quota"])] = peak

    def _place(self, time: str) -> int:
        part = (datetime.fromisoformat(time) - self.begin) / self.stretch
        return min(max(int(part), 0), STRETCHES - 1)


def _key(fields: dict[str, Any]) -> str:
    return "/".join(str(fields.get("key")).split("/")[:2])
