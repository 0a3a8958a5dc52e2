"""Refusals under a flood: the first few of a kind get a record each, the rest one record for all of them.

Every refusal is counted exactly: what gets no record of its own is added to a durable total in the same transaction,
and the total becomes a record when the period is over, or at the next start.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from hsmsigner.domain.instant import Instant

PERIOD_S = 60.0
# Of one kind, and of one principal, in one period: some 60 records of half a kilobyte a minute, whatever is sent.
RECORDED_EACH = 8
RECORDED_OF_PRINCIPAL = 32
# Names of keys are the caller's choice; beyond this many, they are counted under one.
KINDS_OF_PRINCIPAL = 32
MANY_KEYS = "*"


@dataclass(frozen=True, slots=True)
class DenialKind:
    """What refusals that are counted together have in common; `key` is MANY_KEYS where the names were too many."""

    principal: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class DenialTotal:
    """So many refusals of a kind, the first of them at `since`."""

    kind: DenialKind
    count: int
    since: Instant


class DenialLedger:
    """What one frontend has seen in this period. Only a hint: a restart, or a second frontend, records a few more."""

    def __init__(self) -> None:
        self._recorded: Counter[str] = Counter()
        self._kinds: defaultdict[str, Counter[DenialKind]] = defaultdict(Counter)

    def place(self, kind: DenialKind) -> DenialKind | None:
        """Count one; None when it is to get a record of its own, else the kind it is to be added up under."""
        kinds = self._kinds[kind.principal]
        if kind not in kinds and len(kinds) >= KINDS_OF_PRINCIPAL:
            kind = replace(kind, key=MANY_KEYS)
        kinds[kind] += 1
        if kinds[kind] > RECORDED_EACH or self._recorded[kind.principal] >= RECORDED_OF_PRINCIPAL:
            return kind
        self._recorded[kind.principal] += 1
        return None

    def clear(self) -> None:
        """A new period."""
        self._recorded.clear()
        self._kinds.clear()
