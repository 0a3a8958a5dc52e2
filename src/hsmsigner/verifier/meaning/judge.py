"""All rules of meaning, asked record by record."""

from __future__ import annotations

from collections import Counter, defaultdict

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning.fields import Fields, Judge
from hsmsigner.verifier.meaning.keys import Keys
from hsmsigner.verifier.meaning.own_uses import OwnUses
from hsmsigner.verifier.meaning.policies import Policies
from hsmsigner.verifier.meaning.quotas import Quotas
from hsmsigner.verifier.meaning.requests import Requests
from hsmsigner.verifier.record import microseconds

MOST_FAULTS = 100
_LONGEST_TYPE = 100
# What the log could not know when it was written, by the type of the record that says so.
_DOUBTS = {
    "log.rollback_accepted": "what was lost before record {}: there the operators accepted that the log was set back",
    "log.memory_missing": "whether the log was set back before record {}: there the token remembered nothing of it",
}


class Meaning:
    """Judges records from `begin` on, in order; what lies before a `begin` above 0 is taken as it comes.

    `faults` are those found, oldest first, at most 100: then nothing more is judged. `types` counts the records;
    `doubts` are what they say that nobody can check, at most 100.
    """

    def __init__(self, begin: int = 0) -> None:
        self.faults: list[VerificationError] = []
        self.doubts: list[str] = []
        self.types: Counter[str] = Counter()
        self._judged_to = begin
        # Of the record at hand: many of one commit have one time.
        self._time, self._now = "", 0
        is_partial = begin > 0
        policies, self.keys = Policies(is_partial=is_partial), Keys(is_partial=is_partial)
        requests = Requests(begin)
        # In this order: what a record debits depends on what it resumes.
        rules = (policies, self.keys, OwnUses(self.keys, is_partial=is_partial), requests, Quotas(policies, requests))
        judges: dict[str, list[Judge]] = defaultdict(list)
        for rule in rules:
            for kind, judge in rule.judges().items():
                judges[kind].append(judge)
        self._judges = dict(judges)

    def judge(self, sequence: int, fields: Fields) -> None:
        """Ask every rule about a record, unless it was judged before."""
        if sequence < self._judged_to:
            return
        self._judged_to = sequence + 1
        kind = fields.get("type")
        if not isinstance(kind, str) or len(kind) > _LONGEST_TYPE:
            self._add(VerificationError("field", sequence, f"record {sequence} has the type {shown(kind)}"))
            return
        judges = self._judges.get(kind)
        self.types[kind if judges or len(self.types) < MOST_FAULTS else "others"] += 1
        if kind in _DOUBTS and len(self.doubts) < MOST_FAULTS:
            self.doubts.append(_DOUBTS[kind].format(sequence))
        if len(self.faults) >= MOST_FAULTS:
            return
        time = fields["time"]
        if time != self._time:
            try:
                self._time, self._now = time, microseconds(time)
            except ValueError:
                self._time = ""
                self._add(VerificationError("time", sequence, f"record {sequence} has a time that never was"))
                return
        for judge in judges or ():
            try:
                judge(sequence, fields, self._now)
            except VerificationError as error:
                self._add(error)

    def _add(self, fault: VerificationError) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)
