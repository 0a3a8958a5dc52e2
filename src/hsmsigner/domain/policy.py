"""The policy in force: who holds which right over which key, and what each key accepts and allows. Default deny."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, unique

from hsmsigner.domain.pattern import Pattern
from hsmsigner.domain.quota import Quota


@unique
class Right(Enum):
    """What a grant may give. Rights over the admin plane and the right to sign never imply one another."""

    SIGN = "sign"
    SIGN_DIGEST = "sign_digest"
    GET_PUBLIC_KEY = "get_public_key"
    CREATE_KEY = "create_key"
    ROTATE = "rotate"
    MANAGE_KEY = "manage_key"
    READ_AUDIT = "read_audit"
    SEAL_AUDIT = "seal_audit"
    PUBLISH_POLICY = "publish_policy"
    SIMULATE = "simulate"


@unique
class InputKind(Enum):
    """What a caller hands in to be signed."""

    MESSAGE = "message"
    DIGEST = "digest"


@dataclass(frozen=True, slots=True)
class Grant:
    """These principals hold these rights over these keys."""

    principals: tuple[Pattern, ...]
    keys: tuple[Pattern, ...]
    rights: frozenset[Right]


@dataclass(frozen=True, slots=True)
class KeyRule:
    """What keys whose name matches accept, and how often they may be used."""

    match: Pattern
    inputs: frozenset[InputKind]
    quotas: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class Entitlement:
    """Everything the policy says of one principal and one key.

    Several matching key rules only tighten: inputs are those all of them accept, quotas are those of all of them.
    `has_key_rule` is False when no key rule matches; then nothing may be signed.
    """

    rights: frozenset[Right]
    inputs: frozenset[InputKind]
    quotas: tuple[Quota, ...]
    has_key_rule: bool


# Principals x keys seen; far above any real appliance, and it keeps a flood of made-up names from growing memory.
_CACHE_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class Policy:
    """One published revision, ready to be asked. Answers are remembered: a revision never changes."""

    revision: int
    sha256: str
    grants: tuple[Grant, ...]
    key_rules: tuple[KeyRule, ...]
    _remembered: dict[tuple[str, str], Entitlement] = field(default_factory=dict, repr=False, compare=False)

    def entitlement(self, principal: str, key: str) -> Entitlement:
        """What `principal` may do with `key` (`keys/{key}`)."""
        known = self._remembered.get((principal, key))
        if known is None:
            known = self._work_out(principal, key)
            if len(self._remembered) >= _CACHE_LIMIT:
                self._remembered.clear()
            self._remembered[principal, key] = known
        return known

    def holds_somewhere(self, principal: str, right: Right) -> bool:
        """Whether some grant gives `principal` this right, over whatever keys; for rights that are not over a key."""
        return any(
            right in grant.rights and any(pattern.matches(principal) for pattern in grant.principals)
            for grant in self.grants
        )

    def _work_out(self, principal: str, key: str) -> Entitlement:
        rights = frozenset[Right]().union(
            *(
                grant.rights
                for grant in self.grants
                if any(pattern.matches(principal) for pattern in grant.principals)
                and any(pattern.matches(key) for pattern in grant.keys)
            )
        )
        rules = [rule for rule in self.key_rules if rule.match.matches(key)]
        inputs = frozenset.intersection(*(rule.inputs for rule in rules)) if rules else frozenset[InputKind]()
        quotas = tuple(quota for rule in rules for quota in rule.quotas)
        return Entitlement(rights, inputs, quotas, bool(rules))
