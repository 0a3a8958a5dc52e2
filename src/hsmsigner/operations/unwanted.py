"""Pairs of rotations that were called off: none stays on the token, also if the token is away at that moment."""

from __future__ import annotations

import logging
from collections.abc import Callable

from hsmsigner.domain.algorithm import SigningAlgorithm
from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import CkaId
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.governance import GovernanceCache
from hsmsigner.operations.key_changes import KeyChanges
from hsmsigner.operations.ports import Store, Token

_log = logging.getLogger(__name__)


async def discard(changes: KeyChanges, token: Token, cka_id: CkaId, algorithm: SigningAlgorithm) -> None:
    """Destroy a pair that nobody has a use for, if the token shows it; else the next start looks for it."""
    async with changes.begin() as change:
        if change.transaction.keys.owner_of(cka_id) is not None:
            return
        change.transaction.unwanted_pairs.insert(cka_id, algorithm, change.now)
    try:
        # Not `is_sure`: the pair may just be being made, and to open the token afresh would interrupt signing.
        await _destroy(changes, token, cka_id, algorithm, is_sure=False)
    except SignerError as error:
        _log.warning("a pair that nobody wants may be on the token, CKA_ID %s: %s", cka_id.hex(), error)


async def discard_all(store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]) -> None:
    """At the start: destroy what is left of rotations that were called off.

    Raises:
        SignerError: TOKEN_UNAVAILABLE, AUDIT_UNAVAILABLE; what is left then is still known.
    """
    changes = KeyChanges(store, governance, clock)
    async with store.transaction() as transaction:
        unwanted = transaction.unwanted_pairs.load()
    for cka_id, algorithm in unwanted.items():
        try:
            await _destroy(changes, token, cka_id, algorithm, is_sure=True)
        except SignerError as error:
            if error.reason is not Reason.TOKEN_REFUSED:
                raise
            _log.warning("the token does not destroy the unwanted pair with CKA_ID %s: %s", cka_id.hex(), error)


async def _destroy(
    changes: KeyChanges, token: Token, cka_id: CkaId, algorithm: SigningAlgorithm, *, is_sure: bool
) -> None:
    pair = await token.find(cka_id, algorithm, is_sure=is_sure)
    if pair is not None:
        await token.destroy(cka_id, pair.public_key, algorithm)
    elif not is_sure:
        return
    async with changes.begin() as change:
        change.transaction.unwanted_pairs.delete(cka_id)
