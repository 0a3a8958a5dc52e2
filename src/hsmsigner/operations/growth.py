"""How far the log has grown, as far as this process knows; wakes those who wait for more of it."""

from __future__ import annotations

import asyncio


class LogGrowth:
    """Told of every commit by the store, on the event loop. Costs a comparison for each who waits.

    What other processes write is not told here: whoever waits looks into the store now and then.
    """

    def __init__(self) -> None:
        self.size = 0
        # The size beyond which each waits.
        self._waiting: dict[asyncio.Future[None], int] = {}

    def announce(self, size: int) -> None:
        """The log has this many durable records."""
        if size > self.size:
            self.size = size
            for waiter, beyond in self._waiting.items():
                if size > beyond and not waiter.done():
                    waiter.set_result(None)

    async def wait_beyond(self, size: int, patience_s: float) -> None:
        """Return when there are more records than `size`, or when so much time has passed."""
        if self.size > size:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = size
        try:
            async with asyncio.timeout(patience_s):
                await waiter
        except TimeoutError:
            return
        finally:
            del self._waiting[waiter]
