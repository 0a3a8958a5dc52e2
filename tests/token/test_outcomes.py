"""What each failure means for the item and for the process, without a token: codes that SoftHSM never gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsigner.pb import token_pb2 as pb
from hsmsigner.token.batch import sign_items
from hsmsigner.token.faults import KeyMissingError, SignFailedError, TokenError
from hsmsigner.token.health import FRESH_S, MISSING_S, Health
from hsmsigner.token.mechanism import MECHANISMS
from hsmsigner.token.pool import Watch
from hsmsigner.token.sessions import KeyIdentity, TokenSession, UsableKey
from hsmsigner.token.verification import verifier

ROW = MECHANISMS["ECDSA_P256_SHA256"]
DIGEST = bytes(range(32))


@dataclass
class Bench:
    """A health with a clock that the test turns, and the restarts it asked for."""

    note: Path
    now: float = 1000.0
    restarts: int = 0
    health: Health = field(init=False)

    def __post_init__(self) -> None:
        self.health = Health(self.note, self._restart, lambda: self.now)

    def _restart(self) -> None:
        self.restarts += 1


@dataclass
class SoftwareSession:
    """Stands where a TokenSession stands: a key in memory that really signs, and faults to order."""

    fault: Exception | None = None
    finds: int = 0
    is_forger: bool = False
    secret: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    @property
    def identity(self) -> KeyIdentity:
        public_key = self.secret.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return KeyIdentity(b"id", public_key, ROW.algorithm.name)

    def key(self, identity: KeyIdentity) -> UsableKey:
        self.finds += 1
        if isinstance(self.fault, KeyMissingError):
            raise self.fault
        return UsableKey(1, ROW, verifier(identity.public_key, ROW.algorithm))

    def check_alive(self) -> None:
        """The token is there."""

    def sign(self, _key: UsableKey, data: bytes) -> bytes:
        if self.fault is not None:
            raise self.fault
        secret = ec.generate_private_key(ec.SECP256R1()) if self.is_forger else self.secret
        r, s = decode_dss_signature(secret.sign(data, ec.ECDSA(Prehashed(SHA256()))))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "token.missing")


def signed(session: SoftwareSession, bench: Bench, count: int = 1) -> list[pb.SignOutcome]:
    items = [pb.SignItem(key=0, data=DIGEST)] * count
    return sign_items(cast("TokenSession", session), Watch(), bench.health, [session.identity], items)


@pytest.mark.parametrize(
    ("function", "code", "status", "ends"),
    [
        ("C_SignInit", 0x70, pb.SIGN_STATUS_NOT_CALLED, False),  # MECHANISM_INVALID
        ("C_SignInit", 0x82, pb.SIGN_STATUS_NOT_CALLED, True),  # OBJECT_HANDLE_INVALID
        ("C_SignInit", 0x90, pb.SIGN_STATUS_NOT_CALLED, True),  # OPERATION_ACTIVE
        ("C_SignInit", 0x30, pb.SIGN_STATUS_NOT_CALLED, True),  # DEVICE_ERROR
        ("C_Sign", 0x21, pb.SIGN_STATUS_REFUSED, False),  # DATA_LEN_RANGE
        ("C_Sign", 0x200, pb.SIGN_STATUS_REFUSED, False),  # FUNCTION_REJECTED
        ("C_Sign", 0x101, pb.SIGN_STATUS_REFUSED, True),  # USER_NOT_LOGGED_IN
        ("C_Sign", 0x05, pb.SIGN_STATUS_UNSPECIFIED, False),  # GENERAL_ERROR
        ("C_Sign", 0x31, pb.SIGN_STATUS_UNSPECIFIED, False),  # DEVICE_MEMORY
        ("C_Sign", 0x30, pb.SIGN_STATUS_UNSPECIFIED, True),  # DEVICE_ERROR
        ("C_Sign", 0x32, pb.SIGN_STATUS_UNSPECIFIED, True),  # DEVICE_REMOVED
        ("C_Sign", 0x150, pb.SIGN_STATUS_UNSPECIFIED, False),  # BUFFER_TOO_SMALL
        ("C_Sign", 0x80000001, pb.SIGN_STATUS_UNSPECIFIED, False),  # a vendor's own
    ],
)
def test_code_decides_the_outcome_and_whether_the_process_ends(
    bench: Bench, function: str, code: int, status: pb.SignStatus.ValueType, *, ends: bool
) -> None:
    session = SoftwareSession(SignFailedError(function, code, was_called=function == "C_Sign"))

    first, second = signed(session, bench, 2)

    assert first.status == status
    assert first.cause.startswith(f"{function}: CKR_")
    assert bench.restarts == (1 if ends else 0)
    # Once it is lost, the token is not asked again.
    assert second.status == (pb.SIGN_STATUS_NOT_CALLED if ends else status)


def test_signature_that_does_not_verify_is_never_handed_out(bench: Bench) -> None:
    (outcome,) = signed(SoftwareSession(is_forger=True), bench)
    assert outcome.status == pb.SIGN_STATUS_WRONG_SIGNATURE
    assert outcome.signature == b""


def test_item_naming_no_key_of_the_call_is_not_signed(bench: Bench) -> None:
    session = SoftwareSession()
    items = [pb.SignItem(key=7, data=DIGEST), pb.SignItem(key=0, data=DIGEST)]
    outcomes = sign_items(cast("TokenSession", session), Watch(), bench.health, [session.identity], items)
    assert [outcome.status for outcome in outcomes] == [pb.SIGN_STATUS_NOT_CALLED, pb.SIGN_STATUS_SIGNED]


def test_general_error_of_an_old_process_asks_for_a_fresh_one(bench: Bench) -> None:
    bench.now += FRESH_S + 1
    signed(SoftwareSession(SignFailedError("C_Sign", 0x05, was_called=True)), bench)
    assert bench.restarts == 1


def test_key_missing_in_a_fresh_process_is_not_looked_for_again_for_a_while(bench: Bench) -> None:
    session = SoftwareSession(KeyMissingError("gone"))
    for _ in range(3):
        assert signed(session, bench)[0].status == pb.SIGN_STATUS_NOT_CALLED
    assert (session.finds, bench.restarts) == (1, 0)
    assert not bench.note.exists()


def test_key_missing_in_an_old_process_restarts_it_once_a_minute_at_most(bench: Bench) -> None:
    session = SoftwareSession(KeyMissingError("gone"))
    bench.now += FRESH_S + 1
    signed(session, bench)
    assert bench.restarts == 1

    # The next process knows from the note why it was started: it looks, and does not restart for this for a minute.
    successor = Bench(bench.note)
    assert not bench.note.exists()
    successor.now += MISSING_S - 1
    signed(session, successor)
    assert successor.restarts == 0
    successor.now += MISSING_S + 1
    signed(session, successor)
    assert successor.restarts == 1


def test_loss_is_announced_once_whatever_follows(bench: Bench) -> None:
    for _ in range(3):
        bench.health.report(TokenError("C_FindObjects: CKR_DEVICE_ERROR", is_lost=True))
    assert bench.restarts == 1
