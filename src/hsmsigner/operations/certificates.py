"""What vouches for a version's public key: requests for certificates, certificates, and continuity statements."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.certificate import check_certificate_chain
from hsmsigner.domain.certificate_names import WantedCertificate
from hsmsigner.domain.certificate_request import CertificateRequestPlan, plan_certificate_request, plan_self_signed
from hsmsigner.domain.continuity import ContinuityStatement
from hsmsigner.domain.instant import Instant, format_instant, not_before
from hsmsigner.domain.key import KeyName, KeyState, KeyVersion, VersionName
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.record import Entry
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.access import check_etag, check_reason, refuse_log_key, visible_key, visible_version
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.jobs import sign_task
from hsmsigner.operations.ports import SignOutcome, SignStatus, Store, Token

_RETRY_SOON_S = 0.5
_MAY_REQUEST = (KeyState.ACTIVE, KeyState.PRE_ACTIVATION)
_MAY_ATTACH = (KeyState.ACTIVE, KeyState.PRE_ACTIVATION, KeyState.SUSPENDED, KeyState.DEACTIVATED)


class Certificates:
    """The use cases behind the certificate and continuity methods of KeyService."""

    def __init__(self, store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
        self._store = store
        self._token = token
        self._governance = governance
        self._clock = clock

    async def create_request(
        self,
        principal: Principal,
        name: KeyName | VersionName,
        wanted: WantedCertificate,
        *,
        self_signed_us: int | None = None,
    ) -> tuple[KeyVersion, str]:
        """Have a version sign a PKCS#10 request, or a certificate of its own; the version, and what it signed in PEM.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, KEY_RESERVED, INVALID_FIELD, ALGORITHM_NOT_SUPPORTED, WRONG_STATE,
                TOKEN_UNAVAILABLE, TOKEN_REFUSED, SIGNATURE_INVALID, AUDIT_UNAVAILABLE.
        """
        version, plan = await self._authorize(principal, name, wanted, self_signed_us)
        outcomes = await self._token.sign([sign_task(version, plan.to_be_signed)])
        return version, await self._record(principal, version, plan, outcomes[0])

    async def attach(
        self, principal: Principal, name: VersionName, certificate_chain: str, *, etag: str, reason: str
    ) -> KeyVersion:
        """Attach a chain whose leaf certifies exactly this version's public key; a chain attached before is replaced.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, KEY_RESERVED, INVALID_FIELD, CERTIFICATE_INVALID, WRONG_STATE,
                ETAG_MISMATCH, AUDIT_UNAVAILABLE.
        """
        check_reason(reason)
        async with self._store.transaction() as transaction:
            governance = self._governance.within(transaction)
            version = visible_version(governance, principal, name, Right.MANAGE_KEY)
            refuse_log_key(name)
            check_etag(etag, version.etag)
            _require_state(version, _MAY_ATTACH, "have a certificate attached")
            now = self._now(transaction.last_time)
            chain = check_certificate_chain(certificate_chain, version.public_key, now)
            attached = transaction.keys.save_version(replace(version, certificate_chain=chain.pem))
            fields = {
                "principal": principal.text,
                "key": str(name),
                "reason": reason,
                "subject": chain.subject,
                "issuer": chain.issuer,
                "serial_number": f"{chain.serial_number:x}",
                "expire_time": format_instant(chain.expire_time),
                "certificate_chain_sha256": hashlib.sha256(chain.pem.encode()).hexdigest(),
            }
            transaction.append([Entry("key.certificate_attached", fields)], now)
            transaction.raise_epoch()
        await self._governance.reload(self._store)
        return attached

    async def continuity(
        self, principal: Principal, name: KeyName, start: int, limit: int
    ) -> list[ContinuityStatement]:
        """Continuity statements of a key, oldest first, from the `start`-th (from 0) on.

        Raises:
            SignerError: KEY_NOT_FOUND_OR_FORBIDDEN, AUDIT_UNAVAILABLE.
        """
        async with self._store.transaction() as transaction:
            visible_key(self._governance.within(transaction), principal, name, Right.GET_PUBLIC_KEY)
            return transaction.continuity.list(name, start, limit)

    async def _authorize(
        self,
        principal: Principal,
        name: KeyName | VersionName,
        wanted: WantedCertificate,
        self_signed_us: int | None,
    ) -> tuple[KeyVersion, CertificateRequestPlan]:
        """Record that the key is about to be used, before it is (P2)."""
        async with self._store.transaction() as transaction:
            version = visible_version(self._governance.within(transaction), principal, name, Right.MANAGE_KEY)
            refuse_log_key(name)
            now = self._now(transaction.last_time)
            _require_state(version, _MAY_REQUEST, "have a certificate requested")
            if version.deactivate_time is not None and now >= version.deactivate_time:
                raise _wrong_state(version, KeyState.DEACTIVATED, _MAY_REQUEST, "have a certificate requested")
            plan = (
                plan_certificate_request(version, wanted)
                if self_signed_us is None
                else plan_self_signed(version, wanted, now, self_signed_us)
            )
            fields = _fields(principal, version) | {
                "subject": wanted.subject,
                "self_signed": self_signed_us is not None,
                "to_be_signed_sha256": hashlib.sha256(plan.to_be_signed).hexdigest(),
            }
            transaction.append([Entry("key.csr_authorized", fields)], now)
        return version, plan

    async def _record(
        self, principal: Principal, version: KeyVersion, plan: CertificateRequestPlan, outcome: SignOutcome
    ) -> str:
        """Record the request before it leaves (P3), or that there is none."""
        fields = _fields(principal, version)
        is_signed = outcome.status is SignStatus.SIGNED
        pem = plan.finish(outcome.signature) if is_signed else ""
        fields |= {"csr_sha256": hashlib.sha256(pem.encode()).hexdigest()} if is_signed else {"cause": outcome.cause}
        async with self._store.transaction() as transaction:
            kind = "key.csr" if is_signed else "key.csr_failed"
            transaction.append([Entry(kind, fields)], self._now(transaction.last_time))
        if not is_signed:
            raise _token_error(outcome.status)
        return pem

    def _now(self, last_time: Instant) -> Instant:
        return not_before(self._clock(), last_time)


def _fields(principal: Principal, version: KeyVersion) -> dict[str, object]:
    return {"principal": principal.text, "key": str(version.name), "algorithm": version.algorithm.name}


def _require_state(version: KeyVersion, states: tuple[KeyState, ...], what: str) -> None:
    if version.state not in states or version.is_destroying:
        raise _wrong_state(version, version.state, states, what)


def _wrong_state(version: KeyVersion, state: KeyState, states: tuple[KeyState, ...], what: str) -> SignerError:
    message = f"{version.name} is {state.value}; a version can {what} while it is {', '.join(s.value for s in states)}"
    return SignerError(Reason.WRONG_STATE, message, metadata={"state": state.value})


def _token_error(status: SignStatus) -> SignerError:
    match status:
        case SignStatus.REFUSED:
            return SignerError(Reason.TOKEN_REFUSED, "the token refused to sign; there is no request")
        case SignStatus.WRONG_SIGNATURE:
            message = "the token's answer did not verify under the key and was withheld"
            return SignerError(Reason.SIGNATURE_INVALID, message)
        case _:
            message = "the token could not be asked, or was lost meanwhile; nothing was released; ask again"
            return SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=_RETRY_SOON_S)
