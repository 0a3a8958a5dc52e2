"""Whether enough witnesses have seen the log lately; where they have not and the settings say so, signing stops."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime

from hsmsigner.domain.instant import MICROSECONDS_PER_SECOND, Instant
from hsmsigner.errors import Reason, SignerError
from hsmsigner.operations.ports import Checkpoint, Store

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
_RETRY_S = 5.0
_LONG_AGO = Instant(0)


class QuorumGate:
    """Closed while the oldest record that no quorum has witnessed is older than the patience.

    That is told from the store alone, so a restart grants no new patience, and all frontends say the same. Before the
    first look the gate is closed. A clock that is set forward closes it until the next checkpoint is witnessed. With a
    quorum of 0 it is always open.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], Instant],
        count_witnesses: Callable[[Checkpoint], int],
        *,
        quorum: int,
        patience_s: float,
    ) -> None:
        self._store = store
        self._clock = clock
        self._count_witnesses = count_witnesses
        self._quorum = quorum
        self._patience_s = patience_s
        self._counted: tuple[Checkpoint, int] | None = None
        # The oldest record that is not witnessed, by its time, and when (event loop's time) it was first seen so.
        self._seen: tuple[Instant, float] | None = None
        self._is_open = not quorum

    def refusal(self) -> SignerError | None:
        """Why nothing new may be signed; None while it may."""
        if self._is_open:
            return None
        message = (
            f"too few witnesses answer: nothing is signed until {self._quorum} of them have cosigned the log; "
            "retry with the same request_id"
        )
        return SignerError(
            Reason.AUDIT_UNAVAILABLE, message, metadata={"witnesses_needed": str(self._quorum)}, retry_after_s=_RETRY_S
        )

    async def run(self) -> None:
        """Look every second until cancelled; returns at once where there is nothing to look at."""
        while self._quorum:
            try:
                await self.look()
            except SignerError as error:
                # While the log cannot be read nothing is signed anyway; how the witnesses stand is seen after that.
                _log.info("the witnesses' quorum cannot be told: %s", error.message)
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Look once.

        Raises:
            SignerError: AUDIT_UNAVAILABLE.
        """
        is_open = self._age_s(await self._unwitnessed_since()) <= self._patience_s
        if is_open != self._is_open:
            self._is_open = is_open
            if is_open:
                _log.info("enough witnesses have cosigned the log; requests to sign are taken")
            else:
                _log.error("too few witnesses have cosigned the log for %g s; signing stops", self._patience_s)

    def _age_s(self, since: Instant | None) -> float:
        """How long something has waited: by the clock, and if that was set back, at least as long as it was seen to."""
        if since is None:
            self._seen = None
            return 0.0
        now_s = asyncio.get_running_loop().time()
        if self._seen is None or self._seen[0] != since:
            self._seen = since, now_s
        return max((self._clock() - since) / MICROSECONDS_PER_SECOND, now_s - self._seen[1])

    async def _unwitnessed_since(self) -> Instant | None:
        """When the oldest record was written that is in no witnessed checkpoint; None when all are in one."""
        covered = await self._covered()
        try:
            page = await self._store.read_log(covered, 1)
        except SignerError as error:
            if error.reason is Reason.RECORDS_SEALED:
                return _LONG_AGO
            raise
        return _time_of(page.records[0][1]) if page.records else None

    async def _covered(self) -> int:
        """Size of the newest checkpoint that a quorum of today's witnesses has cosigned."""
        newest = await self._store.read_newest_checkpoint(self._quorum)
        if newest is None:
            return 0
        # Counted anew: the settings may have named other witnesses when it was stored.
        if self._counted is None or self._counted[0] != newest:
            self._counted = newest, self._count_witnesses(newest)
        return newest.size if self._counted[1] >= self._quorum else 0


def _time_of(record: bytes) -> Instant:
    time = datetime.fromisoformat(json.loads(record)["time"])
    return Instant(round(time.timestamp() * MICROSECONDS_PER_SECOND))
