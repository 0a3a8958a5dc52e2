"""Pairs on the token: having one made, whatever became of earlier tries, and seeing that it is there."""

from __future__ import annotations

import secrets

from hsmsigner.domain.key import CkaId, KeyVersion
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import PendingKey, Token, TokenKeyPair

# CKA_ID is random: not derived from the key, not counted, so two appliances on one device never meet. 16 bytes fit
# every device but YubiHSM2, whose library maps longer ones by itself (facts: yubihsm-shell#345).
CKA_ID_BYTES = 16


def fresh_cka_id() -> CkaId:
    """A CKA_ID that nobody has."""
    return CkaId(secrets.token_bytes(CKA_ID_BYTES))


async def make_pair(token: Token, pending: PendingKey, *, is_new: bool) -> TokenKeyPair:
    """Generate the pair, or find the one that an earlier try left. A new reservation cannot have any.

    Raises:
        SignerError: TOKEN_UNAVAILABLE, the pair may exist; other reasons, it does not.
    """
    # Looking for what is not there makes the token be opened afresh, which interrupts all signing for a moment.
    pair = None if is_new else await token.find(pending.cka_id, pending.algorithm)
    if pair is not None:
        return pair
    try:
        return await token.generate(pending.cka_id, str(pending.version), pending.algorithm)
    except SignerError as error:
        if error.reason is not Reason.TOKEN_REFUSED:
            raise
        # Taken by the same pair, if another frontend or a try that was thought to be lost made it meanwhile.
        pair = await token.find(pending.cka_id, pending.algorithm, is_sure=False)
        if pair is None:
            raise
        return pair


async def has_pair(token: Token, version: KeyVersion) -> bool:
    """Whether the token has just the pair of this version.

    Raises:
        SignerError: TOKEN_UNAVAILABLE.
    """
    try:
        pair = await token.find(version.cka_id, version.algorithm)
    except SignerError as error:
        if error.reason is not Reason.TOKEN_REFUSED:
            raise
        return False
    return pair is not None and pair.public_key == version.public_key
