"""The decision to sign: a pure function of facts and `now` that explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec import Struct

from hsmsigner.domain.instant import Instant, format_instant
from hsmsigner.domain.key import LOG_KEY, Key, KeyState, KeyVersion, VersionName
from hsmsigner.domain.policy import Entitlement, Policy
from hsmsigner.domain.quota import CounterId, Quota, Usage, spend
from hsmsigner.domain.signing import SigningRequest
from hsmsigner.errors import Reason, SignerError

NO_USAGE = Usage()


class Debit(Struct, frozen=True, gc=False):
    """One counter to be set to its new usage; `observed` is what it held before."""

    counter: CounterId
    quota: Quota
    usage: Usage
    observed: int


class Allow(Struct, frozen=True, gc=False):
    """Sign with this version, once these debits are durable."""

    version: KeyVersion
    debits: tuple[Debit, ...]


@dataclass(frozen=True, slots=True)
class Deny:
    """Do not sign, and why: the rule, what was observed, the limit, and when waiting may help (seconds)."""

    reason: Reason
    message: str
    rule: str
    observed: str = ""
    limit: str = ""
    retry_after_s: float | None = None

    def error(self) -> SignerError:
        """The same as an exception, for after it has been recorded."""
        facts = {"rule": self.rule, "observed": self.observed, "limit": self.limit}
        metadata = {name: value for name, value in facts.items() if value}
        return SignerError(self.reason, self.message, metadata=metadata, retry_after_s=self.retry_after_s)


class Facts(Struct, frozen=True, gc=False):
    """All that a decision may look at. `usage` holds every counter of the entitlement that has counted anything."""

    policy: Policy
    key: Key | None
    usage: Mapping[CounterId, Usage]


def decide(facts: Facts, request: SigningRequest, now: Instant, *, debited_version: str = "") -> Allow | Deny:
    """Decide one request. Whatever is not allowed is denied.

    `debited_version` names the version for which this request's debits are durable already (a retry of an interrupted
    signature): everything is decided afresh but the quotas, and of those only what another version has of its own.
    """
    if request.key == LOG_KEY:
        # Before anything that a policy could say.
        return Deny(Reason.KEY_RESERVED, f"{LOG_KEY} signs the checkpoints of the log and nothing else", rule="log-key")
    entitlement = facts.policy.entitlement(request.principal.text, str(request.key))
    version = _version(facts.key, request)
    if version is None or request.right not in entitlement.rights:
        # Absent and forbidden must look alike (AIP-211), so they are one case.
        message = f"{request.name} does not exist, or you may not sign a {request.kind.value} with it"
        return Deny(Reason.KEY_NOT_FOUND_OR_FORBIDDEN, message, rule="grants")
    refused = _unfit_key(version, now) or _unfit_input(entitlement, request)
    if refused is not None:
        return refused
    quotas = entitlement.quotas
    if debited_version:
        is_same = debited_version == str(version.name)
        quotas = tuple(quota for quota in quotas if quota.per_version and not is_same)
    return _spend_all(facts, quotas, request, version, now)


def counters(policy: Policy, key: Key | None, request: SigningRequest) -> set[CounterId]:
    """The counters that `decide` may ask `usage` for."""
    version = _version(key, request)
    if version is None:
        return set()
    principal = request.principal.text
    entitlement = policy.entitlement(principal, str(request.key))
    return {quota.counter(version.name, principal) for quota in entitlement.quotas}


def _version(key: Key | None, request: SigningRequest) -> KeyVersion | None:
    if key is None:
        return None
    return key.version(request.name.number) if isinstance(request.name, VersionName) else key.primary


def _unfit_key(version: KeyVersion, now: Instant) -> Deny | None:
    if version.state is not KeyState.ACTIVE:
        message = f"{version.name} is {version.state.value}; only an ACTIVE version signs"
        return Deny(Reason.KEY_NOT_ACTIVE, message, "key-state", version.state.value, KeyState.ACTIVE.value)
    if version.deactivate_time is not None and now >= version.deactivate_time:
        # The scheduler is late: that must not make the overlap longer.
        since = format_instant(version.deactivate_time)
        message = f"{version.name} was rotated out and signs no more since {since}; name the key to use its primary"
        return Deny(Reason.KEY_NOT_ACTIVE, message, "key-state", KeyState.DEACTIVATED.value, KeyState.ACTIVE.value)
    if not (version.is_protected or version.allow_unprotected):
        message = f"{version.name} was not generated and kept on the token"
        return Deny(Reason.KEY_NOT_PROTECTED, message, "key-protection")
    return None


def _unfit_input(entitlement: Entitlement, request: SigningRequest) -> Deny | None:
    if not entitlement.has_key_rule:
        message = f"the policy has no entry under `keys` that matches {request.key}"
        return Deny(Reason.NO_KEY_POLICY, message, rule="keys")
    if request.kind not in entitlement.inputs:
        allowed = ", ".join(sorted(kind.value for kind in entitlement.inputs)) or "nothing"
        message = f"{request.key} does not take a {request.kind.value}; it takes {allowed}"
        return Deny(Reason.INPUT_NOT_ALLOWED, message, "inputs", request.kind.value, allowed)
    return None


def _spend_all(
    facts: Facts, quotas: Sequence[Quota], request: SigningRequest, version: KeyVersion, now: Instant
) -> Allow | Deny:
    debits, refusals = [], []
    for quota in quotas:
        counter = quota.counter(version.name, request.principal.text)
        outcome = spend(quota, facts.usage.get(counter, NO_USAGE), now)
        if outcome.usage is None:
            refusals.append((outcome.retry_after_s, quota, outcome.observed))
        else:
            debits.append(Debit(counter, quota, outcome.usage, outcome.observed))
    if refusals:
        # Of several full quotas, the one that frees last is the one worth waiting for.
        wait_s, quota, observed = max(refusals, key=lambda refusal: refusal[0])
        period_s = quota.period_us // 1_000_000
        message = f"quota `{quota.quota_id}` allows {quota.count} in {period_s} s and has counted {observed}"
        rule = f"quotas/{quota.quota_id}"
        return Deny(Reason.QUOTA_EXCEEDED, message, rule, str(observed), str(quota.count), wait_s)
    return Allow(version, tuple(debits))
