"""Puts each checkpoint where somebody else keeps it. A place that fails is told again, and stops nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from hsmsigner.domain.instant import Instant
from hsmsigner.operations.delivery import FIRST_PAUSE_S, Delivery
from hsmsigner.operations.log_status import PushState
from hsmsigner.operations.ports import Checkpoint
from hsmsigner.operations.ports.witness import Fault, PushTarget


class Pushing:
    """All places that checkpoints are pushed to, each with a task of its own."""

    def __init__(
        self, targets: Sequence[PushTarget], clock: Callable[[], Instant], *, pause_s: float = FIRST_PAUSE_S
    ) -> None:
        self._places = [_Place(target, clock, pause_s) for target in targets]

    async def on_signed(self, checkpoint: Checkpoint) -> None:
        """A checkpoint is durable, or has one more cosignature: push it. Returns at once."""
        for place in self._places:
            place.delivery.offer(checkpoint)

    async def run(self) -> None:
        """Push, and push again where it failed, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(place.delivery.run())

    def status(self) -> list[PushState]:
        """How each place stands, in the order of the settings."""
        return [place.state() for place in self._places]


class _Place:
    """One target, and what it was given since this process began."""

    def __init__(self, target: PushTarget, clock: Callable[[], Instant], pause_s: float) -> None:
        self.delivery = Delivery(f"push to {target.shown}", self._push, first_pause_s=pause_s)
        self._target = target
        self._clock = clock
        self._size = 0
        self._time: Instant | None = None

    def state(self) -> PushState:
        return PushState(self._target.shown, self._size, self._time, self.delivery.fault)

    async def _push(self, checkpoint: Checkpoint) -> Fault | None:
        fault = await self._target.push(checkpoint)
        if fault is None:
            self._size, self._time = checkpoint.size, self._clock()
        return fault
