"""Certificates of a version, from the request that the token signs to the chain that is served; and what is refused."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from hsmsigner.domain.certificate_names import WantedCertificate
from hsmsigner.domain.key import KeyState, VersionName
from hsmsigner.domain.principal import Principal
from hsmsigner.domain.public_key import to_jwk
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.certificates import Certificates
from hsmsigner.operations.ports import SignOutcome, SignStatus
from tests.builder import ENGINE, OPERATOR, POLICY, STRANGER, Signer, make_signer, read_log, record_types, usage_total

MANAGED = POLICY.replace("[create_key,", "[create_key, manage_key,")
WANTED = WantedCertificate("CN=settlement-eu")


def run(folder: Path, use: Callable[[Signer, Certificates, VersionName], Awaitable[None]]) -> None:
    """Use a signer that has one key."""

    async def whole() -> None:
        async with make_signer(folder, policy=MANAGED) as signer:
            key = await signer.create_key()
            certificates = Certificates(signer.store, signer.token, signer.governance, signer.clock)
            await use(signer, certificates, key.primary.name)

    asyncio.run(whole())


async def put_in_state(signer: Signer, name: VersionName, state: KeyState) -> None:
    async with signer.store.transaction() as transaction:
        version = signer.governance.within(transaction).version(name)
        assert version is not None
        transaction.keys.save_version(replace(version, state=state))
        transaction.raise_epoch()
    await signer.governance.reload(signer.store)


def certificate_for(public_key: bytes, now_us: int, *, days: int = 30) -> str:
    """What a CA would make: a certificate that it signed, alone."""
    authority = ec.generate_private_key(ec.SECP256R1())
    begin = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    name = x509.Name.from_rfc4514_string("CN=settlement-eu")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(x509.Name.from_rfc4514_string("CN=CA"))
        .public_key(load_der_public_key(public_key))  # type: ignore[arg-type] # one that has certificates
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .sign(authority, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


async def refusal(call: Awaitable[object]) -> Reason:
    with pytest.raises(SignerError) as caught:
        await call
    return caught.value.reason


def test_request_is_recorded_before_the_token_is_asked_and_after_it_answered(tmp_path: Path) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        def look(_task: object) -> None:
            # P2: what the token is asked for is in the log by then.
            assert record_types(signer.database)[-1] == "key.csr_authorized"

        signer.token.answer = look
        version, pem = await certificates.create_request(OPERATOR, name.key, WANTED)

        assert version.name == name
        assert x509.load_pem_x509_csr(pem.encode()).is_signature_valid
        authorized, made = read_log(signer.database)[-2:]
        assert (authorized["principal"], authorized["subject"]) == (OPERATOR.text, "CN=settlement-eu")
        assert (made["type"], made["key"]) == ("key.csr", str(name))
        assert made["csr_sha256"] == hashlib.sha256(pem.encode()).hexdigest()

    run(tmp_path, use)


def test_self_signed_certificate_is_recorded_before_the_token_is_asked_and_takes_no_quota(tmp_path: Path) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        seen: list[str] = []

        def look(_task: object) -> None:
            seen.append(record_types(signer.database)[-1])

        signer.token.answer = look
        # More than the quota of the key lets anybody sign: a certificate is not what it counts.
        for _ in range(6):
            await certificates.create_request(OPERATOR, name, WANTED, self_signed_us=3_600_000_000)

        assert seen == ["key.csr_authorized"] * 6
        *_, authorized, made = read_log(signer.database)
        assert (authorized["self_signed"], made["type"]) == (True, "key.csr")
        assert usage_total(signer.database, "burst") == 0

    run(tmp_path, use)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (SignStatus.NOT_CALLED, Reason.TOKEN_UNAVAILABLE),
        (SignStatus.UNKNOWN, Reason.TOKEN_UNAVAILABLE),
        (SignStatus.REFUSED, Reason.TOKEN_REFUSED),
        (SignStatus.WRONG_SIGNATURE, Reason.SIGNATURE_INVALID),
    ],
)
def test_request_that_the_token_does_not_sign_is_recorded_as_failed(
    tmp_path: Path, status: SignStatus, reason: Reason
) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        signer.token.answer = lambda _task: SignOutcome(status, cause="told to")

        assert await refusal(certificates.create_request(OPERATOR, name, WANTED)) is reason
        assert record_types(signer.database)[-2:] == ["key.csr_authorized", "key.csr_failed"]

    run(tmp_path, use)


@pytest.mark.parametrize(
    "state",
    [state for state in KeyState if state not in (KeyState.ACTIVE, KeyState.PRE_ACTIVATION)],
)
def test_version_that_is_not_in_use_has_no_certificate_requested(tmp_path: Path, state: KeyState) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        await put_in_state(signer, name, state)
        before = record_types(signer.database)

        assert await refusal(certificates.create_request(OPERATOR, name, WANTED)) is Reason.WRONG_STATE
        assert record_types(signer.database) == before
        assert signer.token.signed == []

    run(tmp_path, use)


@pytest.mark.parametrize("principal", [ENGINE, STRANGER])
def test_who_may_not_manage_the_key_is_told_what_a_stranger_is_told(tmp_path: Path, principal: Principal) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        chain = certificate_for(signer.governance.newest.keys["settlement-eu"].primary.public_key, signer.clock.now)

        for call in (
            certificates.create_request(principal, name, WANTED),
            certificates.attach(principal, name, chain, etag="", reason="x"),
        ):
            assert await refusal(call) is Reason.KEY_NOT_FOUND_OR_FORBIDDEN
        assert "key.csr_authorized" not in record_types(signer.database)

    run(tmp_path, use)


def test_attached_certificate_is_recorded_and_served_with_the_public_key(tmp_path: Path) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        version = signer.keys.public_key(ENGINE, name)
        chain = certificate_for(version.public_key, signer.clock.now)
        epoch = signer.governance.newest.epoch

        attached = await certificates.attach(OPERATOR, name, chain, etag=version.etag, reason="issued")

        assert attached.certificate_chain == chain
        assert attached.etag != version.etag
        assert signer.governance.newest.epoch > epoch
        served = signer.keys.public_key(ENGINE, name)
        assert served.certificate_chain == chain
        assert len((to_jwk(served) or {})["x5c"]) == 1
        record = read_log(signer.database)[-1]
        assert (record["type"], record["reason"], record["serial_number"]) == (
            "key.certificate_attached", "issued", "7"
        )  # fmt: skip

    run(tmp_path, use)


def test_refused_attachment_changes_nothing(tmp_path: Path) -> None:
    async def use(signer: Signer, certificates: Certificates, name: VersionName) -> None:
        public_key = signer.keys.public_key(ENGINE, name).public_key
        good = certificate_for(public_key, signer.clock.now)
        other = (await signer.create_key("settlement-us")).primary.public_key
        before = record_types(signer.database)

        async def attempt(chain: str, etag: str = "", reason: str = "x") -> Reason:
            return await refusal(certificates.attach(OPERATOR, name, chain, etag=etag, reason=reason))

        assert await attempt(certificate_for(other, signer.clock.now)) is Reason.CERTIFICATE_INVALID
        assert await attempt(certificate_for(public_key, signer.clock.now - 10**15)) is Reason.CERTIFICATE_INVALID
        assert await attempt(good, etag="v999") is Reason.ETAG_MISMATCH
        assert await attempt(good, reason=" ") is Reason.INVALID_FIELD
        assert await attempt("nothing") is Reason.INVALID_FIELD
        for state in (KeyState.DESTROYED, KeyState.COMPROMISED, KeyState.DESTROY_SCHEDULED):
            await put_in_state(signer, name, state)
            assert await attempt(good) is Reason.WRONG_STATE
        assert record_types(signer.database) == before
        assert signer.keys.public_key(ENGINE, name).certificate_chain == ""

    run(tmp_path, use)


def test_statements_need_the_right_to_the_public_key(tmp_path: Path) -> None:
    async def use(_signer: Signer, certificates: Certificates, name: VersionName) -> None:
        assert await certificates.continuity(ENGINE, name.key, 0, 10) == []
        assert await refusal(certificates.continuity(STRANGER, name.key, 0, 10)) is Reason.KEY_NOT_FOUND_OR_FORBIDDEN

    run(tmp_path, use)
