"""P1: keys cannot leave the token, and one that could is not used; only the key that is meant signs."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace
from pkcs11 import Mechanism

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import SignOutcome, SignStatus, SignTask, TokenKeyPair
from hsmsigner.token.client import TokenClient
from tests.signing_tasks import P256, TestKey, new_key
from tests.softhsm import SoftHsm
from tests.token.other_client import ask_token


@pytest.mark.parametrize("name", ["ECDSA_P256_SHA256", "ED25519", "RSA_PSS_2048_SHA256"])
def test_another_client_sees_a_key_that_only_signs_and_cannot_leave(hsm: SoftHsm, name: str) -> None:
    with hsm.start_worker() as worker:
        key = hsm.ask(lambda client: new_key(client, ALGORITHMS[name]))
        assert worker.stop() == 0

    shown = ask_token(hsm, "attributes", cka_id=key.cka_id.hex())

    allowed = {"ECDSA_P256_SHA256": Mechanism.ECDSA, "ED25519": Mechanism.EDDSA}.get(name, Mechanism.RSA_PKCS_PSS)
    assert shown.pop("ALLOWED_MECHANISMS") == [allowed]
    assert shown.pop("VALUE") == "sensitive"
    true = {"PRIVATE", "LOCAL", "SENSITIVE", "ALWAYS_SENSITIVE", "NEVER_EXTRACTABLE", "SIGN", "VERIFY"}
    assert shown == {name: name in true for name in shown}
    assert (key.pair.local, key.pair.always_sensitive, key.pair.never_extractable) == (True, True, True)


def sign_once(hsm: SoftHsm, task: SignTask) -> SignOutcome:
    async def use(client: TokenClient) -> SignOutcome:
        (outcome,) = await client.sign([task])
        return outcome

    return hsm.ask(use)


def planted(hsm: SoftHsm, cka_id: CkaId, *, extractable: bool) -> TestKey:
    public_key = bytes.fromhex(ask_token(hsm, "plant", cka_id=cka_id.hex(), extractable=extractable))
    described = TokenKeyPair(public_key, local=True, always_sensitive=True, never_extractable=not extractable)
    return TestKey(cka_id, described, P256)


def test_extractable_key_is_refused(hsm: SoftHsm) -> None:
    key = planted(hsm, CkaId(os.urandom(8)), extractable=True)
    with hsm.start_worker():
        outcome = sign_once(hsm, key.task(b"message"))
    assert outcome.status is SignStatus.NOT_CALLED
    assert "EXTRACTABLE" in outcome.cause


def test_two_keys_with_one_cka_id_are_both_refused(hsm: SoftHsm) -> None:
    cka_id = CkaId(os.urandom(8))
    keys = [planted(hsm, cka_id, extractable=False) for _ in range(2)]
    with hsm.start_worker():
        outcomes = [sign_once(hsm, key.task(b"message")) for key in keys]
    assert [outcome.status for outcome in outcomes] == [SignStatus.NOT_CALLED] * 2


def test_key_with_another_public_key_than_expected_is_refused(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> list[SignOutcome]:
        one, other = await new_key(client), await new_key(client)
        return await client.sign([replace(one.task(b"message"), public_key=other.pair.public_key)])

    (outcome,) = shared_hsm.ask(use)
    assert outcome.status is SignStatus.NOT_CALLED
    assert "not the expected one" in outcome.cause


def test_generating_under_a_taken_cka_id_is_refused_and_changes_nothing(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> tuple[SignerError, TokenKeyPair | None, TestKey]:
        key = await new_key(client)
        with pytest.raises(SignerError) as refusal:
            await client.generate(key.cka_id, "twin", P256)
        return refusal.value, await client.find(key.cka_id, P256), key

    refusal, found, key = shared_hsm.ask(use)
    assert refusal.reason is Reason.TOKEN_REFUSED
    assert found == key.pair


@pytest.mark.parametrize("length", [0, 20, 31, 33])
@pytest.mark.parametrize("name", ["ECDSA_P256_SHA256", "RSA_PKCS1_2048_SHA256"])
def test_digest_of_wrong_length_never_reaches_the_token(shared_hsm: SoftHsm, name: str, length: int) -> None:
    async def use(client: TokenClient) -> list[SignOutcome]:
        key = await new_key(client, ALGORITHMS[name])
        return await client.sign([replace(key.task(b"message"), data=bytes(length)), key.task(b"message")])

    outcomes = shared_hsm.ask(use)
    assert [outcome.status for outcome in outcomes] == [SignStatus.NOT_CALLED, SignStatus.SIGNED]


def test_key_is_not_used_with_another_kind_of_algorithm(shared_hsm: SoftHsm) -> None:
    async def use(client: TokenClient) -> list[SignOutcome]:
        key = await new_key(client)
        names = ("ED25519", "ECDSA_P384_SHA384", "RSA_PSS_2048_SHA256", "ECDSA_SECP256K1_SHA256")
        return await client.sign([key.task(b"message", ALGORITHMS[name]) for name in names])

    assert {outcome.status for outcome in shared_hsm.ask(use)} == {SignStatus.NOT_CALLED}


def test_key_that_a_fresh_worker_cannot_find_is_refused_without_a_restart(hsm: SoftHsm) -> None:
    with hsm.start_worker() as worker:
        here, gone = hsm.ask(new_key), hsm.ask(new_key)
        worker.stop()
    assert ask_token(hsm, "destroy", cka_id=gone.cka_id.hex()) == 2

    with hsm.start_worker() as worker:

        async def use(client: TokenClient) -> tuple[list[SignOutcome], TokenKeyPair | None]:
            outcomes = await client.sign([gone.task(b"one"), here.task(b"two"), gone.task(b"three")])
            return outcomes, await client.find(gone.cka_id, P256)

        outcomes, found = hsm.ask(use)
        statuses = [outcome.status for outcome in outcomes]
        assert statuses == [SignStatus.NOT_CALLED, SignStatus.SIGNED, SignStatus.NOT_CALLED]
        assert found is None
        assert worker.process.poll() is None
