"""What the use cases need from a token, and what is known after it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, unique
from typing import Protocol

from msgspec import Struct

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.key import CkaId
from hsmsigner.operations.ports.log import TreeHead

# Metadata of a TOKEN_UNAVAILABLE that is the token's own answer: it is there, and trying often does not help.
TOKEN_ANSWERED: Mapping[str, str] = {"token": "answered"}


@unique
class SignStatus(Enum):
    """What is known of one item after the token was asked."""

    SIGNED = "SIGNED"
    NOT_CALLED = "NOT_CALLED"  # proven: no signature can exist
    REFUSED = "REFUSED"  # the token was called and said no
    WRONG_SIGNATURE = "WRONG_SIGNATURE"  # the token answered, and it does not verify
    UNKNOWN = "UNKNOWN"  # a signature may exist somewhere


class SignTask(Struct, frozen=True, gc=False):
    """One item for the token: `data` is the digest, or the message for EdDSA.

    A key that is not SENSITIVE or is EXTRACTABLE is used only with `allow_unprotected`, said when it was adopted (P1).
    """

    cka_id: CkaId
    public_key: bytes  # SubjectPublicKeyInfo, DER
    algorithm: SigningAlgorithm
    data: bytes
    allow_unprotected: bool = False


class SignOutcome(Struct, frozen=True, gc=False):
    """`signature` is raw (r || s, RFC 8032, RSA integer) and has verified; empty unless SIGNED. `cause` is for logs."""

    status: SignStatus
    signature: bytes = b""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class TokenKeyPair:
    """A key pair as the token describes it (PKCS#11 v3.1 section 4.9)."""

    public_key: bytes  # SubjectPublicKeyInfo, DER
    local: bool
    always_sensitive: bool
    never_extractable: bool


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """Who answered, and which algorithms it can sign with."""

    label: str
    serial: str
    module: str
    algorithms: frozenset[str]


class Token(Protocol):
    """One token behind its worker process. All methods are coroutines of the frontend's one event loop."""

    @property
    def connected(self) -> bool:
        """Whether a worker is there to be asked; a hint, since it may go at any moment."""
        ...

    @property
    def connections(self) -> int:
        """How many workers there were to be asked so far: with another number it may be another token."""
        ...

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        """Sign and verify each task; one outcome per task, in order. Never raises: what is not known is UNKNOWN."""
        ...

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:
        """Generate a key pair: SIGN only, SENSITIVE, not EXTRACTABLE.

        Raises:
            SignerError: ALGORITHM_NOT_SUPPORTED, KEY_NOT_PROTECTED, TOKEN_REFUSED (no room, or something has that
                CKA_ID: perhaps a pair made by an earlier call), then this call made nothing; or TOKEN_UNAVAILABLE,
                after which the pair may or may not exist: ask `find`.
        """
        ...

    async def find(self, cka_id: CkaId, algorithm: SigningAlgorithm, *, is_sure: bool = True) -> TokenKeyPair | None:
        """Look a key pair up; None only when a freshly opened token has none.

        Opening the token afresh interrupts signing for a moment. Without `is_sure`, None means that the token does not
        show it now.

        Raises:
            SignerError: TOKEN_UNAVAILABLE when the token cannot be asked, TOKEN_REFUSED when what it has with that
                CKA_ID is no key pair of this algorithm.
        """
        ...

    async def destroy(self, cka_id: CkaId, public_key: bytes, algorithm: SigningAlgorithm) -> None:
        """Destroy the pair with this CKA_ID and public key; on return a freshly opened token would not have it.

        Raises:
            SignerError: TOKEN_UNAVAILABLE, the pair may or may not be there; TOKEN_REFUSED, it is there, or another
                one with its CKA_ID.
        """
        ...

    async def remember(self, origin: str, head: TreeHead, *, is_rollback: bool = False) -> None:
        """Have the token remember this state of the log instead of an older one; survives a crash at any point.

        Raises:
            SignerError: TOKEN_REFUSED, it remembers a larger log or another one of this size, and without
                `is_rollback` it goes on doing so; TOKEN_UNAVAILABLE, it remembers the old state, this one or both.
        """
        ...

    async def recall(self, origin: str) -> TreeHead | None:
        """The newest state of the log that the token remembers; None only when a freshly opened token has none.

        Raises:
            SignerError: TOKEN_UNAVAILABLE.
        """
        ...

    async def status(self) -> TokenStatus:
        """Ask the token something that only a working, logged-in token answers.

        Raises:
            SignerError: TOKEN_UNAVAILABLE.
        """
        ...
