"""Start-up: compare what the store says is on the token with what is. Reports, and never deletes.

A token may be the wrong one, restored from an old backup, or empty for a moment: none of that makes a record untrue.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from hsmsigner.domain.instant import Instant
from hsmsigner.domain.key import KeyState, KeyVersion
from hsmsigner.domain.principal import APPLIANCE
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.operations.key_changes import Cause, KeyChanges
from hsmsigner.operations.pairs import has_pair
from hsmsigner.operations.ports import Store, Token

_log = logging.getLogger(__name__)

_CAUSE = Cause(APPLIANCE, "store and token were compared")


async def compare_with_token(
    store: Store, token: Token, governance: GovernanceCache, clock: Callable[[], Instant]
) -> list[KeyVersion]:
    """Look for every pair that is not destroyed; the versions whose pair is missing, each recorded once.

    Raises:
        SignerError: TOKEN_UNAVAILABLE, AUDIT_UNAVAILABLE; what was found so far is recorded.
    """
    changes = KeyChanges(store, governance, clock)
    missing = []
    for key in list(governance.newest.keys.values()):
        for version in key.versions:
            if version.state is KeyState.DESTROYED or version.is_destroying:
                continue
            is_missing = not await has_pair(token, version)
            if is_missing:
                missing.append(version)
                _log.error("the token does not have %s; its record stays", version.name)
            if is_missing != (version.missing_time is not None):
                await _record(changes, version, is_missing=is_missing)
    return missing


def missing_pairs(governance: Governance) -> list[KeyVersion]:
    """The versions whose pair the token was found to lack, as it should not."""
    return [version for key in governance.keys.values() for version in key.versions if version.is_missing]


async def _record(changes: KeyChanges, version: KeyVersion, *, is_missing: bool) -> None:
    async with changes.begin() as change:
        stored = change.key(version.name.key).versions[version.name.number - 1]
        if stored.is_destroying:
            return
        missing_time = change.now if is_missing else None
        change.transaction.keys.save_version(replace(stored, missing_time=missing_time))
        kind = "key.missing_on_token" if is_missing else "key.found_on_token"
        change.record(kind, version.name, _CAUSE, cka_id=version.cka_id.hex())
