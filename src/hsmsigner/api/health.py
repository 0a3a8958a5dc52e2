"""grpc.health.v1, per service: true only while the token answers and the log can be written; and of the key pairs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio

from hsmsigner.domain.key import KeyVersion
from hsmsigner.errors import SignerError
from hsmsigner.operations.ports import Token

_log = logging.getLogger(__name__)

# Which services need the token; all need the log. The empty name is the whole appliance.
NEEDS_TOKEN = {
    "": True,
    "hsmsigner.v1.SigningService": True,
    "hsmsigner.v1.KeyService": True,
    "hsmsigner.v1.PolicyService": False,
    "hsmsigner.v1.AuditService": False,
}
# Of no service, and no part of "": whether the token has every pair that the store says it has. Who waits for another
# key must not be sent away because of one that is lost.
PAIRS = "hsmsigner.pairs"
CHECK_EVERY_S = 1.0
# While something is missing, its return should be seen soon.
RECHECK_EVERY_S = 0.1
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """Looks at token and log every second and sets the statuses that clients and orchestrators read."""

    def __init__(
        self,
        token: Token,
        can_record: Callable[[], bool],
        missing_pairs: Callable[[], list[KeyVersion]] = list,
        may_use_token: Callable[[], bool] = lambda: True,
    ) -> None:
        self._token = token
        self._can_record = can_record
        self._missing_pairs = missing_pairs
        self._may_use_token = may_use_token
        self._shown: dict[str, bool] = {}
        self._missing: list[str] | None = None
        self.servicer = aio.HealthServicer()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_EVERY_S if self._shown[""] else RECHECK_EVERY_S)

    async def check(self) -> None:
        """Look once."""
        has_token, has_log = await self._token_answers() and self._may_use_token(), self._can_record()
        for service, needs_token in NEEDS_TOKEN.items():
            is_serving = has_log and (has_token or not needs_token)
            if self._shown.get(service) != is_serving:
                self._shown[service] = is_serving
                await self.servicer.set(service, _SERVING if is_serving else _NOT_SERVING)
                _log.info("health", extra={"service": service or "(all)", "serving": is_serving})

        missing = [str(version.name) for version in self._missing_pairs()]
        if missing != self._missing:
            self._missing = missing
            await self.servicer.set(PAIRS, _NOT_SERVING if missing else _SERVING)
            _log.info("health", extra={"service": PAIRS, "serving": not missing, "missing": missing})

    async def leave(self) -> None:
        """Say NOT_SERVING for good: the appliance is stopping."""
        await self.servicer.enter_graceful_shutdown()

    async def _token_answers(self) -> bool:
        # At every start the worker comes a moment later than the first look; that is no failure to be logged.
        if not self._token.connected:
            return False
        try:
            await self._token.status()
        except SignerError:
            return False
        return True
