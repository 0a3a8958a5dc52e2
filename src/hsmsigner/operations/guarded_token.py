"""The token behind a guard: it signs, makes and destroys nothing until the log is known to be the one it remembers."""

from __future__ import annotations

from collections.abc import Sequence

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import (
    SignOutcome,
    SignStatus,
    SignTask,
    Token,
    TokenKeyPair,
    TokenStatus,
    TreeHead,
)

_RETRY_AFTER_S = 1.0


class GuardedToken:
    """A `Token`, at first closed. What only looks, and what it remembers of the log, is never guarded.

    Checkpoints, continuity statements and destructions go through it as well as requests: made from a store that was
    rolled back, each of them would do harm that cannot be undone.
    """

    def __init__(self, token: Token) -> None:
        self._token = token
        self._refusal: SignerError | None = SignerError(
            Reason.AUDIT_UNAVAILABLE,
            "the log was not yet held against what the token remembers of it, so nothing is signed; "
            "retry with the same request_id",
            retry_after_s=_RETRY_AFTER_S,
        )

    def refusal(self) -> SignerError | None:
        """Why nothing may be signed; None when it may."""
        return self._refusal

    def open(self) -> None:
        """The log is the one that the token remembers."""
        self._refusal = None

    def close(self) -> None:
        """It is not."""
        self._refusal = SignerError(
            Reason.AUDIT_UNAVAILABLE,
            "the log is not the one that the token remembers, so nothing is signed; the operators must put the right "
            "store back or accept the loss: `hsmsigner doctor` says how",
        )

    @property
    def connected(self) -> bool:
        """See `operations.ports.Token.connected`."""
        return self._token.connected

    @property
    def connections(self) -> int:
        """See `operations.ports.Token.connections`."""
        return self._token.connections

    async def sign(self, tasks: Sequence[SignTask]) -> list[SignOutcome]:
        """See `operations.ports.Token.sign`; NOT_CALLED while closed."""
        if self._refusal is not None:
            return [SignOutcome(SignStatus.NOT_CALLED, cause=self._refusal.message)] * len(tasks)
        return await self._token.sign(tasks)

    async def generate(self, cka_id: CkaId, label: str, algorithm: SigningAlgorithm) -> TokenKeyPair:
        """See `operations.ports.Token.generate`; TOKEN_UNAVAILABLE while closed."""
        self._require_open()
        return await self._token.generate(cka_id, label, algorithm)

    async def find(self, cka_id: CkaId, algorithm: SigningAlgorithm, *, is_sure: bool = True) -> TokenKeyPair | None:
        """See `operations.ports.Token.find`."""
        return await self._token.find(cka_id, algorithm, is_sure=is_sure)

    async def destroy(self, cka_id: CkaId, public_key: bytes, algorithm: SigningAlgorithm) -> None:
        """See `operations.ports.Token.destroy`; TOKEN_UNAVAILABLE while closed."""
        self._require_open()
        await self._token.destroy(cka_id, public_key, algorithm)

    async def remember(self, origin: str, head: TreeHead, *, is_rollback: bool = False) -> None:
        """See `operations.ports.Token.remember`."""
        await self._token.remember(origin, head, is_rollback=is_rollback)

    async def recall(self, origin: str) -> TreeHead | None:
        """See `operations.ports.Token.recall`."""
        return await self._token.recall(origin)

    async def status(self) -> TokenStatus:
        """See `operations.ports.Token.status`."""
        return await self._token.status()

    def _require_open(self) -> None:
        if self._refusal is not None:
            # For who makes or destroys a key it is as if the token were away: what was begun stays begun, and goes on.
            message, retry_after_s = self._refusal.message, self._refusal.retry_after_s
            raise SignerError(Reason.TOKEN_UNAVAILABLE, message, retry_after_s=retry_after_s)
