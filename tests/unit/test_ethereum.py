"""r || s || v, as Ethereum's own libraries read it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from eth_account import Account
from eth_account.messages import encode_defunct
from eth_keys.datatypes import PublicKey, Signature

from hsmsigner.domain.algorithm import ALGORITHMS
from hsmsigner.domain.formats import OutputFormat, plan_signature
from hsmsigner.domain.policy import InputKind
from hsmsigner.errors import Reason, SignerError
from tests.fakes import sign_raw
from tests.unit.samples import key_for, version

KECCAK = ALGORITHMS["ECDSA_SECP256K1_KECCAK256"]
PRIVATE, PUBLIC = key_for(KECCAK)
OWN_VERSION = version(algorithm=KECCAK, public_key=PUBLIC)
OWNER = PublicKey(PUBLIC[-64:])
HALF_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141 // 2


def signed(body: bytes, kind: InputKind = InputKind.MESSAGE) -> bytes:
    plan = plan_signature(OWN_VERSION, kind, body, OutputFormat.ETHEREUM)
    return plan.encode(sign_raw(PRIVATE, KECCAK, plan.to_be_signed))


def test_eth_keys_recovers_the_owner_from_every_signature() -> None:
    seen = set()
    for number in range(64):
        message = b"transfer %d" % number
        signature = signed(message)

        assert len(signature) == 65
        seen.add(signature[64])
        read = Signature(signature[:64] + bytes([signature[64] - 27]))
        assert read.recover_public_key_from_msg(message) == OWNER
        assert read.verify_msg(message, OWNER)
        assert read.s <= HALF_ORDER
    # Two recovery ids, each half of the time: 64 of one kind happen once in 2**63 runs.
    assert seen == {27, 28}


def test_eth_account_recovers_the_owner_of_a_personal_message() -> None:
    message = encode_defunct(text="I own this account")
    body = b"\x19" + message.version + message.header + message.body
    assert Account.recover_message(message, signature=signed(body)) == OWNER.to_checksum_address()


def test_a_transaction_hash_is_signed_as_a_digest() -> None:
    digest = bytes(range(32))
    signature = signed(digest, InputKind.DIGEST)
    read = Signature(signature[:64] + bytes([signature[64] - 27]))
    assert read.recover_public_key_from_msg_hash(digest) == OWNER


@pytest.mark.parametrize("damage", [0, 31, 32, 63])
def test_a_signature_that_leads_to_another_key_is_withheld(damage: int) -> None:
    plan = plan_signature(OWN_VERSION, InputKind.MESSAGE, b"pay", OutputFormat.ETHEREUM)
    raw = bytearray(sign_raw(PRIVATE, KECCAK, plan.to_be_signed))
    raw[damage] ^= 1
    with pytest.raises(SignerError) as caught:
        plan.encode(bytes(raw))
    assert caught.value.reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("raw", [bytes(64), b"\xff" * 64], ids=["zeros", "ones"])
def test_what_is_no_signature_at_all_is_withheld(raw: bytes) -> None:
    plan = plan_signature(OWN_VERSION, InputKind.MESSAGE, b"pay", OutputFormat.ETHEREUM)
    with pytest.raises(SignerError) as caught:
        plan.encode(raw)
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_a_signature_of_another_key_is_withheld() -> None:
    other = ec.generate_private_key(ec.SECP256K1())
    public = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    plan = plan_signature(replace(OWN_VERSION, public_key=public), InputKind.MESSAGE, b"pay", OutputFormat.ETHEREUM)
    with pytest.raises(SignerError) as caught:
        plan.encode(sign_raw(PRIVATE, KECCAK, plan.to_be_signed))
    assert caught.value.reason is Reason.SIGNATURE_INVALID
