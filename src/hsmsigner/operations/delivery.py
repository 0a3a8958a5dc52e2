"""Brings the newest checkpoint to one place outside, until it is there. Older ones that wait are dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hsmsigner.errors import SignerError
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.ports.witness import Fault

_log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Delivery:
    """One place, with a pace of its own: nothing that it does delays another one, or the log.

    `deliver` returns None when the checkpoint, or a newer one, is there. `fault` is what it said last; empty when well.
    """

    def __init__(
        self,
        name: str,
        deliver: Callable[[Checkpoint], Awaitable[Fault | None]],
        *,
        first_pause_s: float = FIRST_PAUSE_S,
    ) -> None:
        self._name = name
        self._deliver = deliver
        self._first_pause_s = first_pause_s
        self._waiting: Checkpoint | None = None
        self._wake = asyncio.Event()
        self.fault = ""

    def offer(self, checkpoint: Checkpoint) -> None:
        """Have this one delivered, unless a newer one waits; returns at once."""
        if self._waiting is None or checkpoint.size >= self._waiting.size:
            self._waiting = checkpoint
            self._wake.set()

    def _offer_again(self, checkpoint: Checkpoint) -> None:
        if self._waiting is None:
            self.offer(checkpoint)

    async def run(self) -> None:
        """Deliver until cancelled. After a fault the next attempt waits, also for a newer checkpoint."""
        pause_s = self._first_pause_s
        while True:
            await self._wake.wait()
            self._wake.clear()
            checkpoint, self._waiting = self._waiting, None
            if checkpoint is None:
                continue
            fault = await self._attempt(checkpoint)
            self._note(fault)
            if not fault:
                pause_s = self._first_pause_s
                continue
            self._offer_again(checkpoint)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(self, checkpoint: Checkpoint) -> str:
        """What went wrong; empty when nothing did."""
        try:
            fault = await self._deliver(checkpoint)
        except SignerError as error:
            return error.message
        except Exception:  # noqa: BLE001 - as the comment says
            # One place outside must neither stop the others nor the appliance.
            _log.exception("delivering a checkpoint to %s failed", self._name)
            return "failed for a cause that the operational log shows"
        return fault.message if fault is not None else ""

    def _note(self, fault: str) -> None:
        if fault != self.fault:
            self.fault = fault
            if fault:
                _log.warning("%s: %s", self._name, fault)
            else:
                _log.info("%s: well again", self._name)
