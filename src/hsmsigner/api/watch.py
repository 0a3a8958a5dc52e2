"""KeyService.WatchKeys: the public keys a caller may see, pushed at every change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hsmsigner.api.authn import Authenticator, current_caller
from hsmsigner.api.convert import public_key
from hsmsigner.api.interceptors import Context
from hsmsigner.domain.policy import Right
from hsmsigner.domain.principal import Principal
from hsmsigner.operations.governance import Governance, GovernanceCache
from hsmsigner.pb import keys_pb2, resources_pb2


class WatchMethods:
    """Nothing is queued: whoever reads slowly gets, when he reads, what is newest then."""

    _governance: GovernanceCache
    _authenticator: Authenticator
    _draining: asyncio.Event

    async def WatchKeys(
        self, request: keys_pb2.WatchKeysRequest, context: Context
    ) -> AsyncIterator[keys_pb2.WatchKeysResponse]:
        caller = current_caller()
        epoch: int | None = None
        sent: list[resources_pb2.PublicKey] | None = None
        while (governance := await self._after(epoch)) is not None:
            epoch = governance.epoch
            # Days may have passed since the last change: a certificate that was revoked meanwhile sees no more.
            self._authenticator.recheck(caller)
            visible = _visible_keys(governance, caller.principal)
            if visible != sent:
                sent = visible
                yield keys_pb2.WatchKeysResponse(epoch=epoch, public_keys=visible)

    async def _after(self, epoch: int | None) -> Governance | None:
        """The newest epoch, as soon as it is another; None when the appliance stops."""
        changing = asyncio.create_task(self._governance.after(epoch))
        stopping = asyncio.create_task(self._draining.wait())
        try:
            await asyncio.wait((changing, stopping), return_when=asyncio.FIRST_COMPLETED)
            return None if stopping.done() else changing.result()
        finally:
            changing.cancel()
            stopping.cancel()


def _visible_keys(governance: Governance, principal: Principal) -> list[resources_pb2.PublicKey]:
    return [
        public_key(version)
        for key in governance.keys.values()
        if Right.GET_PUBLIC_KEY in governance.policy.entitlement(principal.text, str(key.name)).rights
        for version in key.versions
        if version.is_in_key_sets
    ]
