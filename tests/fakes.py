"""Working twins of the outside: a token that really signs (with cryptography) and fails on demand, and a clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsmsigner.domain.algorithm import ALGORITHMS, HashName, KeyKind, Padding, SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import (
    TOKEN_ANSWERED,
    SignOutcome,
    SignStatus,
    SignTask,
    TokenKeyPair,
    TokenStatus,
    TreeHead,
)

_CURVES = {
    "secp256r1": (ec.SECP256R1(), 0),
    "secp384r1": (ec.SECP384R1(), 0),
    "secp521r1": (ec.SECP521R1(), 0),
    "secp256k1": (ec.SECP256K1(), 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141),
}
_HASHES = {
    HashName.SHA256: hashes.SHA256(),
    HashName.SHA384: hashes.SHA384(),
    HashName.SHA512: hashes.SHA512(),
    HashName.KECCAK256: hashes.SHA256(),  # only its length counts for a digest
}


@dataclass
class FakeClock:
    """Time that moves when told."""

    now: int = 1_800_000_000_000_000

    def __call__(self) -> Instant:
        return Instant(self.now)

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1_000_000)


@dataclass
class FakeToken:
    """A token in memory. `answer` may replace the outcome of a task; `gate`, when set, holds signing back."""

    connected: bool = True
    answer: Callable[[SignTask], SignOutcome | None] = lambda _task: None
    gate: asyncio.Event | None = None
    generate_gate: asyncio.Event | None = None
    signed: list[SignTask] = field(default_factory=list)
    found: list[CkaId] = field(default_factory=list)
    keys: dict[CkaId, PrivateKeyTypes] = field(default_factory=dict)
    fail_before_generate: bool = False
    fail_after_generate: bool = False
    # It is there, and says that it failed, which may mean anything.
    fail_with_an_answer: bool = False
    # It makes no pair: no room, or half a pair of somebody else's has the CKA_ID.
    refuse_to_generate: bool = False
    algorithms: frozenset[str] = frozenset(ALGORITHMS)
    # Pairs whose private key could leave the token.
    unprotected: set[CkaId] = field(default_factory=set)
    # What it remembers of each log, by origin; `connections` is raised by tests that replace it.
    memories: dict[str, TreeHead] = field(default_factory=dict)
    connections: int = 1
    # How often the token had to be opened afresh to be sure that a key is missing: signing is interrupted by it.
    reopened: int = 0

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        if self.gate is not None:
            await self.gate.wait()
        return [self.answer(task) or self._sign(task) for task in tasks]

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:  # noqa: ARG002
        if self.generate_gate is not None:
            await self.generate_gate.wait()
        if self.fail_before_generate:
            raise _lost()
        if self.fail_with_an_answer:
            raise SignerError(Reason.TOKEN_UNAVAILABLE, "the token failed", metadata=TOKEN_ANSWERED)
        if self.refuse_to_generate or cka_id in self.keys:
            raise SignerError(Reason.TOKEN_REFUSED, "the token is full, or the CKA_ID is taken")
        self.keys[cka_id] = new_key(algorithm)
        if self.fail_after_generate:
            raise _lost()
        return self._pair(cka_id)

    async def find(
        self,
        cka_id: CkaId,
        algorithm: SigningAlgorithm,  # noqa: ARG002
        *,
        is_sure: bool = True,
    ) -> TokenKeyPair | None:
        if not self.connected:
            raise _lost()
        self.reopened += is_sure and cka_id not in self.keys
        self.found.append(cka_id)
        return self._pair(cka_id) if cka_id in self.keys else None

    async def destroy(self, cka_id: CkaId, public_key: bytes, algorithm: SigningAlgorithm) -> None:  # noqa: ARG002
        if not self.connected:
            raise _lost()
        if cka_id in self.keys:
            if self._pair(cka_id).public_key != public_key:
                raise SignerError(Reason.TOKEN_REFUSED, "another key has that CKA_ID")
            del self.keys[cka_id]

    async def remember(self, origin: str, head: TreeHead, *, is_rollback: bool = False) -> None:
        if not self.connected:
            raise _lost()
        before = self.memories.get(origin)
        is_older = before is not None and (head.size < before.size or (head.size == before.size and head != before))
        if is_older and not is_rollback:
            raise SignerError(Reason.TOKEN_REFUSED, "the token remembers a newer log")
        self.memories[origin] = head

    async def recall(self, origin: str) -> TreeHead | None:
        if not self.connected:
            raise _lost()
        return self.memories.get(origin)

    async def status(self) -> TokenStatus:
        if not self.connected:
            raise _lost()
        return TokenStatus("fake", "0", "FakeToken", self.algorithms)

    def _sign(self, task: SignTask) -> SignOutcome:
        if task.cka_id not in self.keys or (task.cka_id in self.unprotected and not task.allow_unprotected):
            return SignOutcome(SignStatus.NOT_CALLED, cause="not there, or not protected")
        self.signed.append(task)
        return SignOutcome(SignStatus.SIGNED, sign_raw(self.keys[task.cka_id], task.algorithm, task.data))

    def _pair(self, cka_id: CkaId) -> TokenKeyPair:
        public = self.keys[cka_id].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        is_protected = cka_id not in self.unprotected
        return TokenKeyPair(public, is_protected, is_protected, is_protected)


def sign_raw(key: PrivateKeyTypes, algorithm: SigningAlgorithm, data: bytes) -> bytes:
    """Sign as a token does: a digest (or the message for EdDSA) in, the raw signature out."""
    if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey):
        return key.sign(data)
    assert algorithm.hash_name is not None
    prehashed = Prehashed(_HASHES[algorithm.hash_name])
    if isinstance(key, rsa.RSAPrivateKey):
        scheme = (
            padding.PKCS1v15()
            if algorithm.padding is Padding.PKCS1
            else padding.PSS(padding.MGF1(_HASHES[algorithm.hash_name]), algorithm.hash_name.size)
        )
        return key.sign(data, scheme, prehashed)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(prehashed)))
    order = _CURVES[algorithm.curve][1]
    if order and s > order // 2:
        s = order - s
    return r.to_bytes(algorithm.size) + s.to_bytes(algorithm.size)


def new_key(algorithm: SigningAlgorithm) -> PrivateKeyTypes:
    if algorithm.kind is KeyKind.RSA:
        return rsa.generate_private_key(65537, algorithm.size)
    if algorithm.kind is KeyKind.EC:
        return ec.generate_private_key(_CURVES[algorithm.curve][0])
    return ed25519.Ed25519PrivateKey.generate() if algorithm.size == 32 else ed448.Ed448PrivateKey.generate()


def _lost() -> SignerError:
    return SignerError(Reason.TOKEN_UNAVAILABLE, "the token is gone", retry_after_s=0.5)
