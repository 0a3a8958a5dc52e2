"""Revisions of the policy: one after another, each with the hash of its text, and decisions only by the newest."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from hsmsigner.verifier.fault import VerificationError, shown
from hsmsigner.verifier.meaning.fields import Fields, Judge, bad_field, is_true, number, text
from hsmsigner.verifier.meaning.pattern import covers

# A document of 256 KiB has room for no more; and a pattern has at most 512 characters.
_MOST_QUOTAS = 10_000
_LONGEST_DOCUMENT = 2**18
_LONGEST_PATTERN = 512


@dataclass(frozen=True, slots=True)
class Quota:
    """At most `count` authorizations in any `period_us` microseconds, for keys that `match` covers."""

    match: str
    quota: str
    count: int
    period_us: int
    by_principal: bool
    per_version: bool

    def counter(self, key: str, version: str, principal: str) -> str:
        """The counter that an authorization debits."""
        counted = version if self.per_version else key
        return f"{counted}|{self.quota}|{self.period_us}|{principal if self.by_principal else '*'}"


class Policies:
    """The policy in force. `quotas` is None as long as it is not known, in a log whose beginning is elsewhere."""

    def __init__(self, *, is_partial: bool) -> None:
        self._is_partial = is_partial
        self.revision: int | None = None
        self.quotas: tuple[Quota, ...] | None = None

    def judges(self) -> dict[str, Judge]:
        """What to ask for which type of record."""
        return {
            "policy.published": self.published,
            "sign.authorized": self.decided,
            "sign.denied": self.denied,
        }

    def quotas_of(self, key: str) -> tuple[Quota, ...]:
        """The quotas of a key, in the document's order."""
        quotas = self.quotas or ()
        # Each pattern once: ten thousand quotas may have the same one.
        matching = {match for match in {quota.match for quota in quotas} if covers(match, key)}
        return tuple(quota for quota in quotas if quota.match in matching)

    def published(self, sequence: int, fields: Fields, _now: int) -> None:
        """A revision comes into force."""
        revision, document = number(sequence, fields, "revision"), text(sequence, fields, "document", _LONGEST_DOCUMENT)
        before, self.revision = self.revision, revision
        self.quotas = _read_quotas(sequence, fields)
        if revision != (before or 0) + 1 and not (before is None and self._is_partial):
            raise VerificationError(
                "policy", sequence, f"record {sequence} publishes revision {revision} of the policy after {before or 0}"
            )
        stated = text(sequence, fields, "sha256")
        # A lone surrogate is no text of ours; its hash is then another one, whatever is put in its place.
        if sha256(document.encode(errors="replace")).hexdigest() != stated:
            raise VerificationError(
                "policy", sequence, f"the policy in record {sequence} does not have the hash {shown(stated)} it states"
            )

    def decided(self, sequence: int, fields: Fields, _now: int) -> None:
        """A decision is by the revision in force."""
        revision = fields.get("policy_revision")
        if revision != self.revision or type(revision) is not int:
            self._check_revision(sequence, number(sequence, fields, "policy_revision"))

    def denied(self, sequence: int, fields: Fields, _now: int) -> None:
        """So is a refusal; one record for many refusals may tell of an earlier one. Its number is positive."""
        revision = number(sequence, fields, "policy_revision")
        if "count" not in fields:
            self._check_revision(sequence, revision)
            return
        if number(sequence, fields, "count") == 0:
            raise VerificationError("denial", sequence, f"record {sequence} counts 0 refusals")
        if self.revision is not None and revision > self.revision:
            self._check_revision(sequence, revision)

    def _check_revision(self, sequence: int, revision: int) -> None:
        if revision == self.revision or (self.revision is None and self._is_partial):
            return
        raise VerificationError(
            "policy",
            sequence,
            f"record {sequence} was decided by revision {revision} of the policy, while {self.revision or 'none'} was"
            " in force",
        )


def _read_quotas(sequence: int, fields: Fields) -> tuple[Quota, ...]:
    items = fields.get("quotas")
    if not isinstance(items, list) or len(items) > _MOST_QUOTAS or not all(isinstance(item, dict) for item in items):
        raise bad_field(sequence, fields, "quotas", f"a list of at most {_MOST_QUOTAS} quotas")
    quotas = tuple(_read_quota(sequence, item) for item in items)
    if sum(map(len, {quota.match for quota in quotas})) > _LONGEST_DOCUMENT:
        raise bad_field(sequence, fields, "quotas", "of patterns that fit into a document")
    return quotas


def _read_quota(sequence: int, item: Fields) -> Quota:
    match = text(sequence, item, "match")
    if len(match) > _LONGEST_PATTERN:
        raise bad_field(sequence, item, "match", f"at most {_LONGEST_PATTERN} characters")
    return Quota(
        match,
        text(sequence, item, "quota"),
        number(sequence, item, "count"),
        number(sequence, item, "period_us"),
        is_true(sequence, item, "by_principal"),
        is_true(sequence, item, "per_version"),
    )
